"""What stands at the paths that containers are given: regular files digested, everything else only looked at.

The loop asks in every pass and puts the answer into what was observed; whether something follows from it is
the plan's business. A look is one ``stat`` per path, a file is read when its stat moved and then stood still
for a moment. For an engine on this host only: elsewhere its paths mean nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from reconciler.desired_state.stable_reader import is_open_for_writing
from reconciler.model.observed import Container, HostPath, ObservedState, State
from reconciler.model.stack import Stack

log = logging.getLogger(__name__)

LIMIT = 8 * 2**20
"""Bytes beyond which the content of a file is not followed; being replaced still shows."""

QUIET = 0.5
"""Seconds that a changed file has to stand still before its change counts: one save may be many writes."""

LONGEST = 60.0
"""Seconds after which a file that somebody keeps open for writing is read all the same."""

STEADY = 5.0
"""Seconds for which a file that changes holds up making its container; what always changes must not."""

PATIENCE = 2.0
"""Seconds that a pass waits for the file system; one that hangs must hold up no repair."""

_TICK = 0.1
_CHUNK = 2**18
_DIGEST = 32

Signature = tuple[int, ...]


class MountObservation(NamedTuple):
    """One look; the fields are those of ``ObservedState``."""

    sources: Mapping[str, HostPath] = {}
    held: Mapping[tuple[str, str], str] = {}
    again: float | None = None
    notes: tuple[str, ...] = ()


class _Known(NamedTuple):
    # ``sure``: the digest was taken so long after the last change that no later one can hide behind it.
    signature: Signature
    source: HostPath
    sure: bool


class _SourceChanged(NamedTuple):
    # Since when (monotonic) a path has looked like this, and since when it has been moving at all.
    signature: Signature
    since: float
    first: float


class MountedFiles:
    """Looks at all mounted paths of a stack, and remembers what did not move.

    ``wall`` and ``now`` are the time of day and the monotonic clock, in seconds; ``proc`` is where the
    system shows its processes. ``reading`` tells whether desired state is being read: Compose may need longer
    for that than a file needs to count as changed, and what was saved together must not be made twice.
    """

    def __init__(
        self,
        *,
        wall: Callable[[], float] = time.time,
        now: Callable[[], float] = time.monotonic,
        limit: int = LIMIT,
        proc: Path = Path("/proc"),
        reading: Callable[[], bool] = lambda: False,
    ) -> None:
        self.moved = asyncio.Event()
        self._wall = wall
        self._now = now
        self._limit = limit
        self._proc = proc
        self._reading = reading
        self._known: dict[str, _Known] = {}
        self._moving: dict[str, _SourceChanged] = {}
        self._last = MountObservation()
        self._files: frozenset[Path] = frozenset()
        self._pool = ThreadPoolExecutor(1, "sources")
        self._asked: asyncio.Future[MountObservation] | None = None

    def files(self) -> frozenset[Path]:
        """The paths worth watching, as of the last look: regular files, and what is missing."""
        return self._files

    async def observe_mounts(self, observed: ObservedState, stack: Stack) -> ObservedState:
        """What was observed, with what stands at the mounted paths.

        A file system that does not answer within ``PATIENCE`` seconds: as it was seen last.
        """
        if not any(service.mounts for service in stack.services.values()):
            return observed
        if self._asked is None or self._asked.done():
            loop = asyncio.get_running_loop()
            self._asked = loop.run_in_executor(self._pool, self.look, stack, observed.containers)
        try:
            async with asyncio.timeout(PATIENCE):
                self._last = await asyncio.shield(self._asked)
        except TimeoutError:
            log.warning("the file system of mounted files does not answer")
        files = frozenset(Path(p) for p, s in self._last.sources.items() if s.kind in {"file", "missing"})
        if files != self._files:
            self._files = files
            self.moved.set()
        return replace(observed, **self._last._asdict())

    def look(self, stack: Stack, containers: Iterable[Container] = ()) -> MountObservation:
        """One look, which may wait for the disk."""
        paths = {m.source for service in stack.services.values() for m in service.mounts if m.source}
        for gone in self._known.keys() - paths:
            del self._known[gone]
        sources = {path: self._seen(path) for path in sorted(paths)}
        self._moving = {path: moved for path, moved in self._moving.items() if path in paths}
        soon = self._now() + _TICK
        again = min((max(moved.since + QUIET, soon) for moved in self._moving.values()), default=None)
        if again is None and any(not known.sure for known in self._known.values()):
            again = self._now() + 2 * _TICK
        return MountObservation(
            sources, self._held(stack, containers, sources), again, tuple(self._notes(sources))
        )

    def _seen(self, path: str) -> HostPath:
        signature, kind = _signed(path)
        known = self._known.get(path)
        if known is not None and known.signature == signature and known.sure:
            self._moving.pop(path, None)
            return known.source
        if known is not None and known.signature != signature and self._is_moving(path, signature, kind):
            return known.source._replace(moving=self._now() - self._moving[path].first < STEADY)
        self._moving.pop(path, None)
        source = self._read(path, kind, signature)
        # Two changes within one tick of the file system's clock carry the same time.
        sure = kind != "file" or abs(self._wall() - source.changed_at) > _TICK
        if kind == "file" and _signed(path)[0] != signature:
            sure = False
        self._known[path] = _Known(signature, source, sure)
        return source

    def _is_moving(self, path: str, signature: Signature, kind: str) -> bool:
        if kind != "file":
            # Nothing is done because of it, but something may have to be left undone.
            return False
        now = self._now()
        moved = self._moving.get(path)
        if moved is None or moved.signature != signature:
            moved = _SourceChanged(signature, now, moved.first if moved else now)
            self._moving[path] = moved
        if now - moved.since < QUIET or (self._reading() and now - moved.first < STEADY):
            return True
        if now - moved.first > LONGEST:
            return False
        with suppress(OSError):
            if is_open_for_writing(Path(path)):
                self._moving[path] = moved._replace(since=now)
                return True
        return False

    def _read(self, path: str, kind: str, signature: Signature) -> HostPath:
        if kind != "file":
            return HostPath(kind)
        device, inode, size, modified, changed = signature
        digest = ""
        if size <= self._limit:
            try:
                digest = _digest(path)
            except FileNotFoundError:
                return HostPath("missing")
            except OSError:
                return HostPath("unreadable")
        return HostPath("file", digest, f"{device}:{inode}", max(modified, changed) / 1e9)

    def _held(
        self, stack: Stack, containers: Iterable[Container], sources: Mapping[str, HostPath]
    ) -> dict[tuple[str, str], str]:
        """Which file each running container really has, where the system lets us look."""
        found = {}
        for container in containers:
            service = stack.services.get(container.service)
            if service is None or container.state is not State.RUNNING or not container.pid:
                continue
            for mount in service.mounts:
                if mount.source and sources[mount.source].kind == "file":
                    with suppress(OSError, ValueError):
                        root = self._proc / str(container.pid) / "root"
                        found[container.id, mount.target] = _inode_inside(root, mount.target)
        return found

    def _notes(self, sources: Mapping[str, HostPath]) -> Iterable[str]:
        for path, source in sources.items():
            if source.kind == "file" and not source.digest:
                size = f"{self._limit // 2**20} MiB"
                yield f"{path} is larger than {size}: changes of its content are not followed"
            elif source.kind == "unreadable":
                yield f"{path} can't be read: changes of its content are not followed"


def _signed(path: str) -> tuple[Signature, str]:
    """What tells one state of a path from another, and what stands there."""
    try:
        found = Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return (), "missing"
    except (OSError, ValueError):
        return (), "unreadable"
    if stat.S_ISDIR(found.st_mode):
        return (1,), "folder"
    if not stat.S_ISREG(found.st_mode):
        return (2,), "other"
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns), "file"


def _inode_inside(root: Path, target: str) -> str:
    """The inode at a container's own path.

    Raises:
        ValueError, OSError: it can't be told from here; a link would lead out of the container.
    """
    place = root
    for part in Path(target).parts[1:]:
        place = place / part
        found = place.lstat()
        if stat.S_ISLNK(found.st_mode):
            raise ValueError(target)
    return f"{found.st_dev}:{found.st_ino}"


def _digest(path: str) -> str:
    found = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()[:_DIGEST]
