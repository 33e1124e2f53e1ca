"""Tells when files may have changed, whatever way they are saved, replaced or linked.

Directories are watched, never files: a file saved by rename is a new file. Watched are the directories of
the inputs, of every link on the way to them, and the one that the desired-state directory lies in. Where
the system can't notify (its limits reached, or none at all) files are looked at once a second instead.
A notice says that it is worth looking, not what happened; missing one costs until the next resync.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import stat
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from pathlib import Path

from reconciler.host.inotify import DELETE_SELF, IGNORED, MOVE_SELF, OVERFLOW, UNMOUNT, Inotify

log = logging.getLogger(__name__)

Inputs = Callable[[], Iterable[Path]]

Listener = Callable[[str], None]
"""Is told what keeps files from being watched, for people; nothing (``""``): they are watched."""

_QUIET = 0.01
"""Seconds without a further notice after which a burst of them is over."""

_LONGEST = 0.1
"""Seconds after which a burst is told of, over or not."""

_POLL = 1.0
_POLLS = 5
_MOST_LINKS = 40
_GONE = DELETE_SELF | MOVE_SELF | UNMOUNT | IGNORED
_LOST_DIRECTORY = (FileNotFoundError, NotADirectoryError, PermissionError)
_LIMITS = {errno.ENOSPC: "fs.inotify.max_user_watches", errno.EMFILE: "fs.inotify.max_user_instances"}


async def changes(
    inputs: Inputs,
    *,
    directory: Path | None = None,
    wake: asyncio.Event | None = None,
    poll: float = _POLL,
    told: Listener = lambda _: None,
) -> AsyncGenerator[frozenset[str], None]:
    """Yields the inputs that may have changed, bursts merged into one; never ends and never fails.

    The first yield, of all inputs, comes as soon as they are watched: a change made between a first load
    and that moment is not lost. ``inputs`` is asked again after each yield, and when ``wake`` is set (on
    the loop's thread). ``directory`` is watched for being replaced. ``poll`` is the pause in seconds
    between looks where the system can't notify; notification is tried again every ``_POLLS`` looks.
    """
    wake = wake or asyncio.Event()
    said = ""
    seen: dict[str, object] = {}
    while True:
        try:
            async with aclosing(_notified(inputs, directory, wake)) as source:
                async for found in source:
                    said = ""
                    told(said)
                    yield found
        except OSError as error:
            trouble = (
                f"files can't be watched ({change_reason(error)}); they are read every {poll:g} s instead"
            )
            if trouble != said:
                said = trouble
                log.warning(said)
                told(said)
        async with aclosing(_polled(inputs, poll, seen)) as source:
            async for found in source:
                yield found


def change_reason(error: OSError) -> str:
    """What the system lacks, and the setting that gives it more."""
    limit = _LIMITS.get(error.errno or 0)
    return f"{limit} is used up: raise it with sysctl" if limit else str(error)


async def _notified(
    inputs: Inputs, directory: Path | None, wake: asyncio.Event
) -> AsyncGenerator[frozenset[str], None]:
    loop = asyncio.get_running_loop()
    watching = _Watching(inputs, directory, wake.set)
    loop.add_reader(watching.fd, watching.take_in)
    try:
        while True:
            watching.arm()
            if watching.found:
                await _calm(wake)
                # Whatever was replaced meanwhile is watched before it is told, so that no edit falls between.
                watching.arm()
                yield watching.taken()
            else:
                await wake.wait()
                wake.clear()
    finally:
        loop.remove_reader(watching.fd)
        watching.close()


async def _calm(wake: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + _LONGEST
    while (left := end - loop.time()) > 0:
        wake.clear()
        try:
            async with asyncio.timeout(min(_QUIET, left)):
                await wake.wait()
        except TimeoutError:
            return


class _Watching:
    """What is watched at the moment, and what was heard since it was last told."""

    def __init__(self, inputs: Inputs, directory: Path | None, heard: Callable[[], None]) -> None:
        self._inputs = inputs
        self._directory = directory
        self._heard = heard
        self._notify = Inotify()
        self._names: dict[int, dict[str, set[str]]] = {}
        self.found: set[str] = set()

    @property
    def fd(self) -> int:
        return self._notify.fd

    def close(self) -> None:
        self._notify.close()

    def taken(self) -> frozenset[str]:
        found, self.found = frozenset(self.found), set()
        return found

    def arm(self) -> None:
        """Watches what the inputs are now; whatever was not watched until now counts as found."""
        names: dict[int, dict[str, set[str]]] = {}
        for directory, wanted in _places(self._inputs(), self._directory).items():
            try:
                watch = self._notify.watch(directory)
            except _LOST_DIRECTORY:
                # Gone again, or not ours to see: what leads to it is watched, so its return is noticed.
                continue
            there, known = names.setdefault(watch, {}), self._names.get(watch, {})
            for name, paths in wanted.items():
                there.setdefault(name, set()).update(paths)
                self.found.update(paths - known.get(name, set()))
        for watch in self._names.keys() - names.keys():
            self._notify.forget(watch)
        self._names = names

    def take_in(self) -> None:
        """Reads what the system has to tell; called when it has something."""
        for event in self._notify.read():
            names = self._names.get(event.watch, {})
            if event.mask & OVERFLOW:
                log.warning("the system dropped notices of changed files; all are looked at")
                self.found.update(str(path) for path in self._inputs())
            elif event.mask & _GONE:
                self.found.update(*names.values())
            else:
                self.found.update(names.get(event.name, ()))
        if self.found:
            self._heard()


def _places(inputs: Iterable[Path], directory: Path | None) -> Mapping[Path, Mapping[str, set[str]]]:
    """For each directory to watch the names in it that matter, and the inputs that they matter to."""
    found: dict[Path, dict[str, set[str]]] = {}
    known = [*inputs]
    for path in known:
        for parent, name in _way(path):
            found.setdefault(parent, {}).setdefault(name, set()).add(str(path))
    for parent, name in _way(directory) if directory else ():
        found.setdefault(parent, {}).setdefault(name, set()).update(map(str, known))
    return found


def _way(path: Path) -> Iterator[tuple[Path, str]]:
    """The entries that decide what ``path`` means: every link on the way, the first one missing, itself."""
    at, links = "/", 0
    ahead = list(reversed(path.absolute().parts[1:]))
    while ahead:
        name = ahead.pop()
        if name == "..":
            at = os.path.dirname(at)  # noqa: PTH120 - `at` has no links in it; Path would cost ten times as much
            continue
        entry = f"{at.rstrip('/')}/{name}"
        try:
            linked = stat.S_ISLNK(os.lstat(entry).st_mode)
        except OSError:
            yield Path(at), name
            return
        if linked or not ahead:
            yield Path(at), name
        if not linked:
            at = entry
            continue
        links += 1
        if links > _MOST_LINKS:
            return
        target = Path(os.readlink(entry))  # noqa: PTH115 - as above
        at = "/" if target.is_absolute() else at
        ahead += reversed(target.parts[1:] if target.is_absolute() else target.parts)


async def _polled(
    inputs: Inputs, pause: float, seen: dict[str, object]
) -> AsyncGenerator[frozenset[str], None]:
    """``seen`` is how each input looked the last time, and is kept so."""
    for _ in range(_POLLS):
        now = {str(path): _looks(path) for path in inputs()}
        found = frozenset(path for path in now if seen.get(path, "") != now[path])
        seen.clear()
        seen.update(now)
        if found:
            yield found
        await asyncio.sleep(pause)


def _looks(path: Path) -> object:
    try:
        found = path.stat()
    except OSError as error:
        return error.errno
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
