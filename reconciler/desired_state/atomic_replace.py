"""Atomic compare-and-replace of a file: never overwrites a concurrent edit.

An editor may save the file between the daemon's read and its replace; a plain rename would lose that edit.
So the new and the old file are exchanged (``RENAME_EXCHANGE``). If the old file is not the one that
was read, the exchange is reverted, and the caller retries with the new content.

The new file has no name until it is complete and on the disk. During the exchange it has a hidden name beside
the file it replaces, which holds the digests of both contents for ``recover_interrupted`` after a crash.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from reconciler.desired_state.stable_reader import FileBusy, is_open_for_writing
from reconciler.host.atomic_files import sync_directory, write_all
from reconciler.host.content_digest import digest
from reconciler.host.untrusted import read_regular
from reconciler.host.yaml_positions import MAX_BYTES

_EXCHANGE = 2
_AT_FDCWD = -100
_DIGITS = 12
_SUFFIX = "service-manager"
_MAX_REVERTS = 20
_NO_EXCHANGE = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
_NO_NAMELESS = frozenset({errno.EISDIR, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOENT})


OnReplaced = Callable[[Path, Path, bytes], None]
"""Callback(path, temporary name, old content) after a replace, while the old file still has that name."""


def atomic_replace(
    path: Path, expected: bytes, content: bytes, on_replaced: OnReplaced | None = None
) -> bool:
    """Write ``content`` to ``path`` if it holds ``expected``; return False if it holds something else.

    Follows links; keeps owner, mode and extended attributes. Durable on return.

    Raises:
        FileBusy: another program has the file open for writing; its writes would be lost.
        OSError: the file can't be written: read-only, full, no permission, a mount point.
    """
    target = path.resolve(strict=True)
    if read_regular(target) != expected:
        return False
    temporary = _temporary_path(target, expected, content)
    _write_temporary(target, temporary, content)
    try:
        replaced = _replace_if(target, temporary, expected, content)
        # Make the exchange durable before removing the old file; ``recover_interrupted`` removes it after a
        # crash.
        sync_directory(target.parent)
        if replaced and on_replaced is not None and temporary.exists():
            on_replaced(path, temporary, expected)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
    return replaced


def recover_interrupted(path: Path) -> bool:
    """Clean up after a crash during ``atomic_replace``; return True if this restored a concurrent edit.

    The caller holds the directory's lock, so that one process at a time does this.
    """
    restored = False
    with suppress(OSError):
        target = path.resolve(strict=True)
        for temporary in target.parent.glob(f".{target.name}.*.{_SUFFIX}"):
            # Anyone may have made a file of that name: a pipe, a device, a link. It stays where it is.
            with suppress(OSError):
                restored = _recover(target, temporary) or restored
    return restored


def _recover(target: Path, temporary: Path) -> bool:
    match = re.fullmatch(rf"\.{re.escape(target.name)}\.(\w+)\.(\w+)\.{_SUFFIX}", temporary.name)
    if match is None:
        return False
    # Neither the old nor the new content: a concurrent edit, moved out of place by the interrupted exchange.
    is_edit = _short_digest(read_regular(temporary, MAX_BYTES, follow=False)) not in match.groups()
    if is_edit:
        temporary.replace(target)
    else:
        temporary.unlink()
    sync_directory(target.parent)
    return is_edit


def _replace_if(target: Path, temporary: Path, expected: bytes, content: bytes) -> bool:
    """Exchange the files if ``target`` holds ``expected``; otherwise leave ``target`` and return False."""
    if not _exchange(target, temporary):
        # Without exchange, an edit between this check and the rename is lost.
        if read_regular(target) != expected:
            return False
        temporary.replace(target)
        return True
    if is_open_for_writing(temporary):
        _revert(target, temporary, content)
        raise FileBusy(target)
    if read_regular(temporary) == expected:
        return True
    _revert(target, temporary, content)
    return False


def _revert(target: Path, temporary: Path, content: bytes) -> None:
    # ``temporary`` holds a concurrent edit. Each exchange should move out what the one before moved in. If it
    # moves out something else, that is a newer edit, and the next exchange restores it.
    placed, edit = content, read_regular(temporary)
    for _ in range(_MAX_REVERTS):
        _exchange(target, temporary)
        moved_out = read_regular(temporary)
        if moved_out == placed:
            return
        placed, edit = edit, moved_out


def _temporary_path(target: Path, expected: bytes, content: bytes) -> Path:
    return target.with_name(f".{target.name}.{_short_digest(expected)}.{_short_digest(content)}.{_SUFFIX}")


def _short_digest(content: bytes) -> str:
    return digest(content)[:_DIGITS]


def _write_temporary(target: Path, temporary: Path, content: bytes) -> None:
    descriptor, nameless = _open_new(target.parent, temporary)
    try:
        write_all(descriptor, content)
        _copy_attributes(target, descriptor)
        os.fsync(descriptor)
        if nameless:
            _link(descriptor, temporary)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    finally:
        os.close(descriptor)


def _link(descriptor: int, temporary: Path) -> None:
    with suppress(FileNotFoundError):
        temporary.unlink()
    directory = os.open(temporary.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Python follows the link in /proc only if a directory descriptor is given.
        os.link(f"/proc/self/fd/{descriptor}", temporary.name, dst_dir_fd=directory, follow_symlinks=True)
    finally:
        os.close(directory)


def _open_new(directory: Path, temporary: Path) -> tuple[int, bool]:
    """Return the descriptor of a new file, and whether the file still has no name."""
    try:
        return os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600), True
    except OSError as error:
        if error.errno not in _NO_NAMELESS:
            raise
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(temporary, flags, 0o600), False


def _copy_attributes(target: Path, descriptor: int) -> None:
    """Copy owner, mode and extended attributes to the new file, as far as permitted."""
    old = target.stat()
    with suppress(PermissionError):
        os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, old.st_mode & 0o7777)
    with suppress(OSError):
        for name in os.listxattr(target):
            os.setxattr(descriptor, name, os.getxattr(target, name))


def _exchange(one: Path, other: Path) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    names = os.fsencode(one), os.fsencode(other)
    if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(one))
