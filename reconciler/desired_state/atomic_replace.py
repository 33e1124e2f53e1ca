"""Replaces a file by another in one instant, and looks at what came out: no edit is ever written over.

An editor may save the file between our reading it and our replacing it. A plain rename would lose that
edit. So the new file and the old one change places (``RENAME_EXCHANGE``); if what came out is not what
was read, it is put back, and the write begins anew on top of it.

The new file has no name until it is complete and on the disk, then for an instant a hidden one beside the
file it replaces. That name carries the digests of both contents, so that after a crash in that instant
``recover_interrupted`` knows what to do with it.
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

_EXCHANGE = 2
_AT_FDCWD = -100
_DIGITS = 12
_SUFFIX = "service-manager"
_MOST_TURNS = 20
_NO_EXCHANGE = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
_NO_NAMELESS = frozenset({errno.EISDIR, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOENT})


Keep = Callable[[Path, Path, bytes], None]
"""Told what was replaced: its path, what it is called for an instant more, its content."""


def atomic_replace(path: Path, expected: bytes, content: bytes, keep: Keep | None = None) -> bool:
    """Makes ``content`` that of ``path``, if it holds ``expected``; False if it holds something else.

    Links are followed, owner, mode and attributes stay. When this returns the file is on the disk.

    Raises:
        StillWritten: another program has it open for writing; what it writes would be lost.
        OSError: it can't be written: read-only, full, no permission, a mount point.
    """
    target = path.resolve(strict=True)
    if target.read_bytes() != expected:
        return False
    aside = _aside(target, expected, content)
    _placed(target, aside, content)
    try:
        done = _swapped(target, aside, expected, content)
        # Before the old file goes, which the disk need not know: what a crash leaves of it is cleared up.
        sync_directory(target.parent)
        if done and keep is not None and aside.exists():
            keep(path, aside, expected)
    finally:
        with suppress(FileNotFoundError):
            aside.unlink()
    return done


def recover_interrupted(path: Path) -> bool:
    """Clears up what a crash in the middle of ``atomic_replace`` left; True if an edit was saved by it.

    Only one program may do so at a time: call it while holding the directory's lock.
    """
    saved = False
    with suppress(OSError):
        target = path.resolve(strict=True)
        for aside in target.parent.glob(f".{target.name}.*.{_SUFFIX}"):
            saved = _recovered(target, aside) or saved
    return saved


def _recovered(target: Path, aside: Path) -> bool:
    match = re.fullmatch(rf"\.{re.escape(target.name)}\.(\w+)\.(\w+)\.{_SUFFIX}", aside.name)
    if match is None:
        return False
    # What is neither the old nor the new content is an edit that came out and was not put back yet.
    edit = _short(aside.read_bytes()) not in match.groups()
    if edit:
        aside.replace(target)
    else:
        aside.unlink()
    sync_directory(target.parent)
    return edit


def _swapped(target: Path, aside: Path, expected: bytes, content: bytes) -> bool:
    if not _exchange(target, aside):
        # A file system that can't exchange: the check just before leaves an instant uncovered.
        if target.read_bytes() != expected:
            return False
        aside.replace(target)
        return True
    if is_open_for_writing(aside):
        _put_back(target, aside, content)
        raise FileBusy(target)
    if aside.read_bytes() == expected:
        return True
    _put_back(target, aside, content)
    return False


def _put_back(target: Path, aside: Path, content: bytes) -> None:
    # What is aside is somebody's edit. Should a still newer one have come into the target, then that
    # comes out here in place of what we put in, and goes back in the same way.
    ours, edit = content, aside.read_bytes()
    for _ in range(_MOST_TURNS):
        _exchange(target, aside)
        out = aside.read_bytes()
        if out == ours:
            return
        ours, edit = edit, out


def _aside(target: Path, expected: bytes, content: bytes) -> Path:
    return target.with_name(f".{target.name}.{_short(expected)}.{_short(content)}.{_SUFFIX}")


def _short(content: bytes) -> str:
    return digest(content)[:_DIGITS]


def _placed(target: Path, aside: Path, content: bytes) -> None:
    descriptor, nameless = _opened(target.parent, aside)
    try:
        write_all(descriptor, content)
        _take_after(target, descriptor)
        os.fsync(descriptor)
        if nameless:
            _name(descriptor, aside)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise
    finally:
        os.close(descriptor)


def _name(descriptor: int, aside: Path) -> None:
    with suppress(FileNotFoundError):
        aside.unlink()
    directory = os.open(aside.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Only with a directory given does Python follow the link in /proc, as is needed here.
        os.link(f"/proc/self/fd/{descriptor}", aside.name, dst_dir_fd=directory, follow_symlinks=True)
    finally:
        os.close(directory)


def _opened(directory: Path, aside: Path) -> tuple[int, bool]:
    try:
        return os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600), True
    except OSError as error:
        if error.errno not in _NO_NAMELESS:
            raise
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(aside, flags, 0o600), False


def _take_after(target: Path, descriptor: int) -> None:
    """Gives the new file what belongs to the file and not to its content, as far as we may."""
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
