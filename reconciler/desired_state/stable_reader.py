"""Read files consistently: no half-written file, no mixture of two versions.

One pass of a ``StableReader`` reads any number of files; ``has_changed`` reports whether one of them changed
since. A file is read again only if its stat changed, or if its last change was so shortly before the last
read that a second change may have the same time stamp.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from reconciler.errors import InvalidDesiredState, Mistake, NotReadableNow
from reconciler.host.untrusted import is_transient
from reconciler.host.yaml_positions import MAX_BYTES

_TICK = 100_000_000
"""Nanoseconds within which two changes may have the same time stamp; file systems tick in 4 to 10 ms."""

_OPEN_FILE_TIMEOUT = 60_000_000_000
"""Nanoseconds without a change after which a file is read although it is open for writing."""

_MAX_CACHED = 2000
"""Files cached between passes; a bound for directories whose file names keep changing."""

_LEASES = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "f2fs", "overlay", "zfs", "bcachefs"})
"""File systems that refuse a lease only if the file has a writer. NFS refuses leases for other reasons."""


_NULL_DEVICE = os.makedev(1, 3)
"""The number of /dev/null on Linux."""

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class FileStat(NamedTuple):
    """Identity and time stamps of a file from stat; times in nanoseconds."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int


class FileBusy(Exception):
    """Another program has the file open for writing."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path


class _CachedFile(NamedTuple):
    signature: FileStat | None
    content: bytes | None
    settled: bool


class StableReader:
    """Read files for the store and cache them between passes. ``now`` is wall-clock time in nanoseconds.

    ``complete``: all files requested in this pass were read; ``has_changed`` does not cover unread files.
    """

    def __init__(self, now: Callable[[], int] = time.time_ns) -> None:
        self._now = now
        self._known: dict[Path, _CachedFile] = {}
        self._pass: dict[Path, _CachedFile] = {}
        self.complete = True

    def open_scan(self) -> None:
        """Start a pass. Keeps the cache of earlier passes too, since the last pass may be incomplete."""
        self._known = (self._known | self._pass) if len(self._known) < _MAX_CACHED else self._pass
        self._pass = {}
        self.complete = True

    def read(self, path: Path) -> bytes | None:
        """Return the content of ``path``, None if it is missing; the same throughout a pass.

        Raises:
            FileBusy: another program has it open for writing.
            InvalidDesiredState: it exists but is too large, not a regular file, or not permitted.
            NotReadableNow: it can't be read at the moment.
        """
        if path not in self._pass:
            try:
                self._pass[path] = self._read(path)
            except (InvalidDesiredState, NotReadableNow, FileBusy):
                self.complete = False
                raise
        return self._pass[path].content

    def read_all(self) -> Mapping[Path, bytes]:
        """Return every existing file read in this pass."""
        return {path: file.content for path, file in self._pass.items() if file.content is not None}

    def has_changed(self, but: Path | None = None) -> bool:
        """Return whether any file read in this pass has changed since, ``but`` aside."""
        return any(self._differs(path, file) for path, file in self._pass.items() if path != but)

    def _differs(self, path: Path, cached: _CachedFile) -> bool:
        try:
            if stat_signature(path) != cached.signature:
                return True
            if cached.settled:
                return False
            fresh = self._read(path, use_cache=False)
        except (InvalidDesiredState, NotReadableNow, FileBusy):
            return True
        if fresh.content != cached.content:
            return True
        # The fresh entry may be settled, which saves the next call a read.
        self._pass[path] = fresh
        return False

    def _read(self, path: Path, *, use_cache: bool = True) -> _CachedFile:
        before = stat_signature(path)
        known = self._known.get(path)
        if use_cache and known and known.settled and known.signature == before:
            return known
        settled = before is None or self._now() - max(before.modified, before.changed) > _TICK
        if before is None:
            return _CachedFile(None, None, settled=True)
        return _CachedFile(before, _content(path, before, self._now), settled)


def stat_signature(path: Path) -> FileStat | None:
    """Return the signature of a file, following links; None if it is missing. Raises as ``read``."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _failed(path, error) from None
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == _NULL_DEVICE:
        # `env_file: /dev/null` is a common way to name no file; Compose reads it as an empty one.
        return FileStat(status.st_dev, status.st_ino, 0, 0, 0)
    # Opening a pipe blocks until it has a writer.
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for test, name in _KINDS if test(status.st_mode)), "not a regular file")
        raise _unreadable(path, f"is {kind}; a regular file is needed")
    return FileStat(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def is_open_for_writing(path: Path) -> bool:
    """Return whether another program has the file open for writing; False if the system can't detect it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return not _has_no_writer(descriptor)
    finally:
        os.close(descriptor)


def _content(path: Path, seen: FileStat, now: Callable[[], int]) -> bytes | None:
    if seen.size > MAX_BYTES:
        raise _unreadable(path, f"is {seen.size} bytes long; at most {MAX_BYTES} are read")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _failed(path, error) from None
    try:
        # Take the lease in any case: it makes a new writer wait until the read is done.
        has_writer = not _has_no_writer(descriptor)
        if has_writer and now() - max(seen.modified, seen.changed) < _OPEN_FILE_TIMEOUT:
            raise FileBusy(path)
        return _read_all(descriptor)
    except OSError as error:
        raise _failed(path, error) from None
    finally:
        # Closing releases the lease, so a writer waits only for the time of the read.
        os.close(descriptor)


def _read_all(descriptor: int) -> bytes:
    parts = []
    remaining = MAX_BYTES + 1
    while remaining and (part := os.read(descriptor, remaining)):
        parts.append(part)
        remaining -= len(part)
    return b"".join(parts)


def _has_no_writer(descriptor: int) -> bool:
    """Take a read lease; return whether the file has no writer, True if the system can't detect it."""
    # If a writer opens the file during the lease, the kernel signals this process. The default SIGIO would
    # end the process; SIGURG is ignored by default.
    with suppress(OSError):
        fcntl.fcntl(descriptor, _F_SETSIG, signal.SIGURG)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno != errno.EAGAIN or _file_system(descriptor) not in _LEASES
    return True


_F_SETSIG = 10


def _file_system(descriptor: int) -> str:
    device = os.fstat(descriptor).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            parts = line.split()
            if parts[2] == number:
                return parts[parts.index("-") + 1]
    return ""


def _failed(path: Path, error: OSError) -> InvalidDesiredState | NotReadableNow:
    reason = error.strerror or str(error)
    if is_transient(error):
        return NotReadableNow(f"{path} can't be read at the moment: {reason[:1].lower() + reason[1:]}")
    return _unreadable(path, reason)


def _unreadable(path: Path, reason: str) -> InvalidDesiredState:
    return InvalidDesiredState((Mistake(str(path), 0, 0, reason[:1].lower() + reason[1:]),))
