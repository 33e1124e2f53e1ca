"""Atomic, durable file writes: after a power failure a file is complete or absent."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def mkdir_private(directory: Path) -> None:
    """Create a directory and its missing parents; the directory has mode 0700."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def write_file(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` with mode 0600; durable on return.

    The temporary file beside it has a fixed name, so that the next write overwrites one left by a crash.
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
    """Change the owner of a file created by root to the owner of its directory.

    Otherwise ``sudo service-manager key add`` leaves a file that the service's user can't read.
    """
    if os.geteuid() == 0:
        owner = directory.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def write_all(descriptor: int, content: bytes) -> None:
    """Call ``os.write`` until all content is written."""
    remaining = memoryview(content)
    while remaining:
        remaining = remaining[os.write(descriptor, remaining) :]


def sync_directory(directory: Path) -> None:
    """Make a rename in ``directory`` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
