"""Files that are either there whole or not at all, whatever happens to the power."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def mkdir_private(directory: Path) -> None:
    """Makes a directory, and what leads to it, that only its owner can look into."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def write_file(path: Path, content: bytes) -> None:
    """Puts ``content`` at ``path``, mode 0600; on the disk when this returns.

    The temporary file beside it has a fixed name, so that one left by a crash is written over, not kept.
    """
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        chown_like(descriptor, path.parent)
        write_all(descriptor, content)
        os.fsync(descriptor)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    finally:
        os.close(descriptor)
    temporary.replace(path)
    sync_directory(path.parent)


def chown_like(descriptor: int, directory: Path) -> None:
    """Give a file that root makes to whom the directory belongs.

    ``sudo service-manager key add`` would else leave a file that the service's own user can't read.
    """
    if os.geteuid() == 0:
        owner = directory.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def write_all(descriptor: int, content: bytes) -> None:
    """``os.write`` until everything is written."""
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def sync_directory(directory: Path) -> None:
    """Makes a rename in ``directory`` last."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
