"""Report when files may have changed, however they are saved, replaced or linked.

watchfiles watches the folders of the inputs and of every link on the path to an input; the watch of a file
would be lost when the file is saved by rename. watchfiles does not report lost events (queue overflow, an
unmounted folder), so the stats of all inputs are also compared every ``_CHECK`` seconds. Where the system
can't watch (its limits are used up), they are compared every second instead. watchfiles' own polling is not
used: it missed 5 of 10 saves made 0.3 s apart (1.3.0).

A report means that reading is worthwhile, not what happened.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from watchfiles._rust_notify import RustNotify, WatchfilesRustInternalError

from reconciler.desired_state.stable_reader import is_open_for_writing

log = logging.getLogger(__name__)

Inputs = Callable[[], Iterable[Path]]
"""Returns the files to watch, existing or not; runs in the thread of the watch."""

ProblemListener = Callable[[str], None]
"""Receives the reason why files can't be watched, for people; '' when they are watched."""

_STEP = 60
"""Milliseconds between two checks for events. A burst is over after this time without an event.

Costs about 0.07 % of a core while idle and reports a save after 90 ms on average (40 ms: 0.10 % and 60 ms,
25 ms: 0.16 % and 38 ms).
"""

_LONGEST = 100
"""Milliseconds after which a burst is reported, over or not."""

_CHECK = 3.0
"""Seconds between two comparisons of all stats, which find changes without an event."""

_OPEN_CHECK = 0.25
"""Seconds between two checks whether a changed file is still open for writing."""

_POLL = 1.0
_ATTEMPTS = 3
_MAX_LINKS = 40
_LIMITS = {
    "watch limit": "fs.inotify.max_user_watches",
    "os error 24": "fs.inotify.max_user_instances",
}
"""A part of the error of watchfiles, which has no errno, and the exhausted setting of the system."""


async def changes(
    inputs: Inputs,
    *,
    wake: threading.Event | None = None,
    poll: float = _POLL,
    report: ProblemListener = lambda _: None,
) -> AsyncGenerator[frozenset[Path], None]:
    """Yield the inputs that may have changed, bursts merged into one; never ends and never fails.

    The first yield, of all inputs, comes as soon as they are watched: a change made between a first load
    and that moment is not lost. New inputs are yielded too. Set ``wake`` when ``inputs`` has new results.
    A file that is open for writing is reported when it is closed. ``poll`` is the pause in seconds between
    comparisons where the system can't watch.
    """
    loop = asyncio.get_running_loop()
    watch = _Watch(inputs, wake or threading.Event(), poll)
    # A thread of its own: it always waits, and stat may wait for a hanging file system.
    thread = ThreadPoolExecutor(1, "file-watch")
    try:
        while True:
            changed, problem = await loop.run_in_executor(thread, watch.next_change)
            report(problem)
            if changed:
                yield changed
    finally:
        watch.stop()
        thread.submit(watch.close)
        thread.shutdown(wait=False)


def watch_problem(folder: Path) -> str:
    """Return why this user can't watch files at the moment, '' if possible."""
    try:
        with _start([str(folder)]):
            return ""
    except OSError as error:
        return str(error)


def _start(folders: Iterable[str]) -> RustNotify:
    """Watch these folders, without their subfolders.

    Raises:
        FileNotFoundError, PermissionError: one of them is gone or not readable.
        OSError: the system can't watch; the message names the limit that is used up.
    """
    try:
        return RustNotify(
            [*folders],
            debug=False,
            force_polling=False,
            poll_delay_ms=int(_POLL * 1000),
            recursive=False,
            ignore_permission_denied=False,
        )
    except (FileNotFoundError, PermissionError):
        raise
    except (OSError, WatchfilesRustInternalError, UnicodeError) as error:
        setting = next((name for part, name in _LIMITS.items() if part in str(error)), "")
        reason = f"{setting} is used up: raise it with sysctl" if setting else str(error)
        raise OSError(reason) from error


class _Watch:
    """The watched folders, and the stats of the inputs when they were last compared."""

    def __init__(self, inputs: Inputs, wake: threading.Event, poll: float) -> None:
        self._inputs = inputs
        self._wake = wake
        self._poll = poll
        self._stopped = False
        self._problem = ""
        self._notify: RustNotify | None = None
        self._entries: Mapping[str, frozenset[Path]] = {}
        self._folders: Mapping[str, tuple[int, int]] = {}
        self._stats: Mapping[Path, object] = {}
        self._open: frozenset[Path] = frozenset()

    def stop(self) -> None:
        """End ``next_change`` within ``_STEP`` milliseconds. Thread-safe."""
        self._stopped = True
        self._wake.set()

    def close(self) -> None:
        """Remove all watches."""
        if self._notify is not None:
            self._notify.close()
            self._notify = None

    def next_change(self) -> tuple[frozenset[Path], str]:
        """Wait until inputs have changed, or the problem has; return both."""
        before = self._problem
        while not self._stopped:
            notified = self._wait()
            self._wake.clear()
            inputs = frozenset(self._inputs())
            # Watch before comparing, so that no change in between is lost.
            self._watch_folders(inputs)
            candidates = inputs & (notified | self._compare(inputs) | self._open)
            self._open = frozenset(path for path in candidates if _is_open(path))
            if candidates != self._open or self._problem != before:
                return candidates - self._open, self._problem
        return frozenset(), self._problem

    def _wait(self) -> frozenset[Path]:
        """Wait for an event, at most ``_CHECK`` seconds; return the inputs that may have changed."""
        if self._notify is None:
            if self._problem:
                self._wake.wait(self._poll)
            return frozenset()
        due = time.monotonic() + _CHECK
        while (left := due - time.monotonic()) > 0:
            pause = min(left, _OPEN_CHECK) if self._open else left
            try:
                events = self._notify.watch(_LONGEST, _STEP, max(1, int(pause * 1000)), self._wake)
            except WatchfilesRustInternalError:
                # A file name that is not UTF-8, for example. The watch then repeats this error at every call.
                self.close()
                return frozenset()
            if isinstance(events, set):
                paths = {path for _, path in events}
                concerned = self._entries.keys() & paths
                if not paths.isdisjoint(self._folders):
                    # A folder was moved or removed; a new one may get the same inode number.
                    self.close()
                changed = frozenset[Path]().union(*(self._entries[path] for path in concerned))
                if changed - self._open or self._notify is None:
                    return changed
            elif events != "timeout":
                return frozenset()
            # Further writes to a file that stays open cost only this check.
            if not all(map(_is_open, self._open)):
                return frozenset()
        lost = self._compare(self._stats) - self._open
        if lost:
            log.info("files changed without an event; the watch is renewed", extra={"files": len(lost)})
            self.close()
        return lost

    def _watch_folders(self, inputs: frozenset[Path]) -> None:
        """Watch the folders that concern the inputs now; an unchanged set of folders keeps its watch."""
        reason = ""
        for _ in range(_ATTEMPTS):
            self._entries, folders = _watch_targets(inputs)
            if self._notify is not None and folders == self._folders:
                return
            self.close()
            self._folders = folders
            try:
                self._notify = _start(folders)
                reason = ""
                break
            except (FileNotFoundError, PermissionError) as error:
                # The folder was removed in between.
                reason = str(error)
            except OSError as error:
                reason = str(error)
                break
        problem = f"files can't be watched ({reason}); they are read every {self._poll:g} s instead"
        if reason and problem != self._problem:
            log.warning(problem)
        self._problem = problem if reason else ""

    def _compare(self, inputs: Iterable[Path]) -> frozenset[Path]:
        """Return the inputs that differ from the last comparison, and those that were not part of it."""
        stats = {path: _stat(path) for path in inputs}
        changed = frozenset(path for path, new in stats.items() if self._stats.get(path, "") != new)
        self._stats = stats
        return changed


def _watch_targets(
    inputs: Iterable[Path],
) -> tuple[Mapping[str, frozenset[Path]], Mapping[str, tuple[int, int]]]:
    """Return the inputs that an event at each path concerns, and device and inode of the folders to watch."""
    entries: dict[str, set[Path]] = {}
    folders: dict[str, tuple[int, int]] = {}
    for path in inputs:
        for folder, name in _deciding_entries(path):
            entries.setdefault(f"{folder.rstrip('/')}/{name}", set()).add(path)
            folders[folder] = (0, 0)
    for folder in tuple(folders):
        try:
            status = os.stat(folder)  # noqa: PTH116 - as below
            folders[folder] = status.st_dev, status.st_ino
            readable = os.access(folder, os.R_OK)
        except OSError:
            readable = False
        if not readable:
            # Missing or not permitted. The parent of a missing folder is watched for its return.
            del folders[folder]
    return {entry: frozenset(paths) for entry, paths in entries.items()}, folders


def _deciding_entries(path: Path) -> Iterator[tuple[str, str]]:
    """Yield folder and name of the entries that decide what ``path`` means.

    These are every link on the way, the first missing entry, and the file itself.
    """
    folder, links = "/", 0
    remaining = list(reversed(path.absolute().parts[1:]))
    while remaining:
        name = remaining.pop()
        if name == "..":
            folder = os.path.dirname(folder)  # noqa: PTH120 - it has no links; Path costs ten times as much
            continue
        entry = f"{folder.rstrip('/')}/{name}"
        try:
            is_link = stat.S_ISLNK(os.lstat(entry).st_mode)
        except (OSError, ValueError):
            yield folder, name
            return
        if is_link or not remaining:
            yield folder, name
        if not is_link:
            folder = entry
            continue
        links += 1
        if links > _MAX_LINKS:
            return
        target = Path(os.readlink(entry))  # noqa: PTH115 - as above
        folder = "/" if target.is_absolute() else folder
        remaining += reversed(target.parts[1:] if target.is_absolute() else target.parts)


def _stat(path: Path) -> object:
    try:
        status = path.stat()
    except OSError as error:
        return error.errno
    except ValueError:
        # A null character in the name.
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _is_open(path: Path) -> bool:
    try:
        return path.is_file() and is_open_for_writing(path)
    except OSError:
        return False
