"""Reading files so that what is read is what one writer meant: nothing half-written, nothing mixed.

One ``StableReader`` pass reads any number of files; afterwards ``moved`` tells whether any of them changed
meanwhile. A file is read again only when its stat moved, or when it changed so shortly before the last
read that a second change could hide within the same tick of the file system's clock.
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
"""Nanoseconds within which two changes may carry the same time stamp; file systems tick in 4 to 10 ms."""

_FOR_EVER = 60_000_000_000
"""Nanoseconds after which a file that is open for writing, but stands still, is read all the same."""

_MOST_KNOWN = 2000
"""Files remembered from pass to pass; a bound only against paths that change for ever."""

_LEASES = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "f2fs", "overlay", "zfs", "bcachefs"})
"""File systems whose refusal of a lease means a writer. NFS refuses for reasons of its own."""


class FileStat(NamedTuple):
    """What stat says of a file's identity and age; times in nanoseconds."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int


class FileBusy(Exception):
    """Somebody has the file open for writing."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path


class _Held(NamedTuple):
    signature: FileStat | None
    content: bytes | None
    settled: bool


class StableReader:
    """Reads files for the store, and remembers them from pass to pass. ``now`` is wall time in ns.

    ``complete``: whether all asked for in this pass could be read; of the rest ``moved`` tells nothing.
    """

    def __init__(self, now: Callable[[], int] = time.time_ns) -> None:
        self._now = now
        self._known: dict[Path, _Held] = {}
        self._pass: dict[Path, _Held] = {}
        self.complete = True

    def open_scan(self) -> None:
        """Starts a pass. A pass may have been cut short, so what earlier ones knew is kept with it."""
        self._known = (self._known | self._pass) if len(self._known) < _MOST_KNOWN else self._pass
        self._pass = {}
        self.complete = True

    def read(self, path: Path) -> bytes | None:
        """The content of ``path``, None if there is no such file; the same all through one pass.

        Raises:
            StillWritten: it is being written.
            InvalidDesiredState: it is there and can't be read: too large, a folder, no permission.
            NotReadableNow: it can't be read at the moment.
        """
        if path not in self._pass:
            try:
                self._pass[path] = self._fresh(path)
            except (InvalidDesiredState, NotReadableNow, FileBusy):
                self.complete = False
                raise
        return self._pass[path].content

    def read_all(self) -> Mapping[Path, bytes]:
        """Everything read in this pass that exists."""
        return {path: held.content for path, held in self._pass.items() if held.content is not None}

    def has_changed(self) -> bool:
        """Whether anything read in this pass is no longer what was read."""
        return any(self._differs(path, held) for path, held in self._pass.items())

    def _differs(self, path: Path, held: _Held) -> bool:
        try:
            if stat_signature(path) != held.signature:
                return True
            if held.settled:
                return False
            fresh = self._fresh(path, trust=False)
        except (InvalidDesiredState, NotReadableNow, FileBusy):
            return True
        if fresh.content != held.content:
            return True
        # Old enough by now, it need not be read at the next question.
        self._pass[path] = fresh
        return False

    def _fresh(self, path: Path, *, trust: bool = True) -> _Held:
        before = stat_signature(path)
        known = self._known.get(path)
        if trust and known and known.settled and known.signature == before:
            return known
        settled = before is None or self._now() - max(before.modified, before.changed) > _TICK
        if before is None:
            return _Held(None, None, settled=True)
        return _Held(before, _content(path, before, self._now), settled)


def stat_signature(path: Path) -> FileStat | None:
    """The signature of the file that ``path`` leads to, None if it leads nowhere. Raises as ``read``."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _failed(path, error) from None
    # Opening a pipe would wait for its writer for ever.
    if not stat.S_ISREG(found.st_mode):
        raise _unreadable(path, "is not a regular file")
    return FileStat(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def is_open_for_writing(path: Path) -> bool:
    """Whether another program has the file open for writing, as far as the system can tell."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return not _leased(descriptor)
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
        if not _leased(descriptor) and now() - max(seen.modified, seen.changed) < _FOR_EVER:
            raise FileBusy(path)
        return _all(descriptor)
    except OSError as error:
        raise _failed(path, error) from None
    finally:
        # Closing gives the lease back, so a writer waits for us no longer than the read takes.
        os.close(descriptor)


def _all(descriptor: int) -> bytes:
    parts = []
    left = MAX_BYTES + 1
    while left and (part := os.read(descriptor, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _leased(descriptor: int) -> bool:
    """Whether nobody has the file open for writing, as far as the system can tell."""
    # A writer that comes while the lease is held makes the kernel signal us: SIGIO by default, which
    # would end the process, so a signal is named that is ignored unless somebody asks for it.
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
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            parts = line.split()
            if parts[2] == wanted:
                return parts[parts.index("-") + 1]
    return ""


def _failed(path: Path, error: OSError) -> InvalidDesiredState | NotReadableNow:
    why = error.strerror or str(error)
    if is_transient(error):
        return NotReadableNow(f"{path} can't be read at the moment: {why[:1].lower() + why[1:]}")
    return _unreadable(path, why)


def _unreadable(path: Path, why: str) -> InvalidDesiredState:
    return InvalidDesiredState((Mistake(str(path), 0, 0, why[:1].lower() + why[1:]),))
