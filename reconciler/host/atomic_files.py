"""Atomic, durable file writes: after a power failure a file is complete or absent.

A directory may belong to another user than the one who writes (``sudo service-manager key add``). That user
can plant links in it, so root writes with that user's permissions and follows no link.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def mkdir_private(directory: Path) -> None:
    """Create a directory and its missing parents; the directory has mode 0700."""
    with suppress(FileNotFoundError), directory_of(directory.parent) as parent:
        with suppress(FileExistsError):
            os.mkdir(directory.name, 0o700, dir_fd=parent)
        if not stat.S_ISDIR(os.stat(directory.name, dir_fd=parent).st_mode):
            raise FileExistsError(errno.EEXIST, "exists and is not a directory", str(directory))
        return
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def write_file(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` with mode 0600; durable on return.

    The temporary file beside it has a fixed name, so that the next write replaces one left by a crash.

    Raises:
        OSError: the file can't be written, or its directory is another user's link (ELOOP).
    """
    temporary = f".{path.name}.new"
    with directory_of(path.parent) as directory:
        descriptor = _create(temporary, directory)
        try:
            write_all(descriptor, content)
            os.fsync(descriptor)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=directory)
            raise
        finally:
            os.close(descriptor)
        os.replace(temporary, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)


def open_private(path: Path, flags: int) -> int:
    """Open or create a file with mode 0600 for its directory's owner; ``flags`` as in ``os.open``.

    Raises:
        OSError: the file can't be opened, or it is a link (ELOOP).
    """
    with directory_of(path.parent) as directory:
        try:
            return os.open(path.name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise OSError(errno.ELOOP, f"{path.name} is a link; remove it", str(path)) from error
            raise


@contextmanager
def directory_of(path: Path) -> Iterator[int]:
    """Yield a descriptor of a directory; until the end, root acts with the permissions of its owner.

    Only this thread changes its permissions. Don't await inside.

    Raises:
        OSError: the directory can't be opened, or it is a link that another user made (ELOOP).
    """
    descriptor = _open_directory(path)
    try:
        with acting_as_owner(descriptor):
            yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def acting_as_owner(directory: int | Path) -> Iterator[None]:
    """Let root use files with the permissions of the directory's owner, in this thread.

    Otherwise a planted link would lead root to any file of the machine, and ``sudo service-manager key add``
    would leave a file that the service's user can't read.
    """
    owner = os.stat(directory)  # noqa: PTH116 - may be a descriptor
    if os.geteuid() != 0 or owner.st_uid == 0:
        yield
        return
    libc = ctypes.CDLL(None)
    group = libc.setfsgid(owner.st_gid)
    user = libc.setfsuid(owner.st_uid)
    try:
        yield
    finally:
        libc.setfsuid(user)
        libc.setfsgid(group)


def write_all(descriptor: int, content: bytes) -> None:
    """Call ``os.write`` until all content is written."""
    remaining = memoryview(content)
    while remaining:
        remaining = remaining[os.write(descriptor, remaining) :]


def sync_directory(directory: Path) -> None:
    """Make a rename in ``directory`` durable."""
    descriptor = os.open(directory, _DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_directory(path: Path) -> int:
    if os.geteuid() != 0:
        return os.open(path, _DIRECTORY)
    try:
        return os.open(path, _DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        # The kernel reports a link to a directory as ENOTDIR.
        if error.errno not in {errno.ELOOP, errno.ENOTDIR} or not path.is_symlink():
            raise
        if path.lstat().st_uid != 0:
            raise OSError(errno.ELOOP, f"{path} is a link of another user", str(path)) from error
    return os.open(path, _DIRECTORY)


def _create(name: str, directory: int) -> int:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)
    return os.open(name, _NEW, 0o600, dir_fd=directory)
