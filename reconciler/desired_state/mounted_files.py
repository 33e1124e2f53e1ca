"""Observe the host paths that containers mount: digests of regular files, the kind of everything else.

The loop adds the result to the observed state in every pass; the planner decides what follows. An observation
costs one ``stat`` per path; a file is read after its stat changed and was then stable for a moment.
Only for an engine on this host: the paths of a remote engine belong to another machine.
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
from reconciler.host.lfs_pointers import is_pointer_file, pointer_warning
from reconciler.model.observed import Container, HostPath, ObservedState, State
from reconciler.model.stack import Stack

log = logging.getLogger(__name__)

MAX_DIGEST_BYTES = 8 * 2**20
"""Files above this size are not digested; replacing such a file is still detected."""

SETTLE_TIME = 0.5
"""Seconds that a changed file must be stable before its change counts: one save may be many writes."""

OPEN_FILE_TIMEOUT = 60.0
"""Seconds after which a changed file is read although another program has it open for writing."""

UNSTABLE_TIMEOUT = 5.0
"""Seconds for which a changing file delays its container; a file that always changes must not block it."""

STAT_TIMEOUT = 2.0
"""Seconds that a pass waits for the file system; a hanging one must not delay repairs."""

_TICK = 0.1
_CHUNK = 2**18
_DIGEST = 32

Signature = tuple[int, ...]


class MountObservation(NamedTuple):
    """One observation; the fields are those of ``ObservedState``."""

    sources: Mapping[str, HostPath] = {}
    held: Mapping[tuple[str, str], str] = {}
    again: float | None = None
    notes: tuple[str, ...] = ()


class _Known(NamedTuple):
    # ``settled``: read so long after the last change that no later change can have the same time stamp.
    signature: Signature
    source: HostPath
    settled: bool
    pointer: bool = False


class _SourceChanged(NamedTuple):
    # Monotonic times of the change to this signature and of the first change.
    signature: Signature
    since: float
    first: float


class MountedFiles:
    """Observe all mounted paths of a stack; caches the paths that did not change.

    ``wall`` and ``now`` are wall-clock and monotonic time in seconds; ``limit`` is the largest size digested,
    in bytes; ``proc`` is the mount point of procfs. ``reading`` returns whether desired state is being read:
    Compose may need longer for that than ``SETTLE_TIME``, and files saved together must not recreate a
    container twice. ``files_changed`` is called when ``files`` returns other paths.
    """

    def __init__(
        self,
        *,
        wall: Callable[[], float] = time.time,
        now: Callable[[], float] = time.monotonic,
        limit: int = MAX_DIGEST_BYTES,
        proc: Path = Path("/proc"),
        reading: Callable[[], bool] = lambda: False,
        files_changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._wall = wall
        self._now = now
        self._limit = limit
        self._proc = proc
        self._reading = reading
        self._files_changed = files_changed
        self._known: dict[str, _Known] = {}
        self._moving: dict[str, _SourceChanged] = {}
        self._last = MountObservation()
        self._files: frozenset[Path] = frozenset()
        self._pool = ThreadPoolExecutor(1, "sources")
        self._running: asyncio.Future[MountObservation] | None = None

    def files(self) -> frozenset[Path]:
        """Return the paths to watch, as of the last observation: regular files and missing paths."""
        return self._files

    async def observe_mounts(self, observed: ObservedState, stack: Stack) -> ObservedState:
        """Return the observed state with the mounted paths added.

        Uses the last observation if the file system does not answer within ``STAT_TIMEOUT`` seconds.
        """
        if not any(service.mounts for service in stack.services.values()):
            return observed
        if self._running is None or self._running.done():
            loop = asyncio.get_running_loop()
            self._running = loop.run_in_executor(self._pool, self.observe, stack, observed.containers)
        try:
            async with asyncio.timeout(STAT_TIMEOUT):
                self._last = await asyncio.shield(self._running)
        except TimeoutError:
            log.warning("the file system of mounted files does not answer")
        files = frozenset(Path(p) for p, s in self._last.sources.items() if s.kind in {"file", "missing"})
        if files != self._files:
            self._files = files
            self._files_changed()
        return replace(observed, **self._last._asdict())

    def observe(self, stack: Stack, containers: Iterable[Container] = ()) -> MountObservation:
        """Observe the mounted paths once; may wait for the disk."""
        paths = {m.source for service in stack.services.values() for m in service.mounts if m.source}
        for gone in self._known.keys() - paths:
            del self._known[gone]
        sources = {path: self._observe_path(path) for path in sorted(paths)}
        self._moving = {path: change for path, change in self._moving.items() if path in paths}
        soon = self._now() + _TICK
        again = min((max(change.since + SETTLE_TIME, soon) for change in self._moving.values()), default=None)
        if again is None and any(not known.settled for known in self._known.values()):
            again = self._now() + 2 * _TICK
        return MountObservation(
            sources, self._mounted_inodes(stack, containers, sources), again, tuple(self._notes(sources))
        )

    def _observe_path(self, path: str) -> HostPath:
        signature, kind = _signature_and_kind(path)
        known = self._known.get(path)
        if known is not None and known.signature == signature and known.settled:
            self._moving.pop(path, None)
            return known.source
        if known is not None and known.signature != signature and self._is_moving(path, signature, kind):
            return known.source._replace(moving=self._now() - self._moving[path].first < UNSTABLE_TIMEOUT)
        self._moving.pop(path, None)
        source = self._read(path, kind, signature)
        # Two changes within one tick of the file system's clock have the same time stamp.
        settled = kind != "file" or abs(self._wall() - source.changed_at) > _TICK
        if kind == "file" and _signature_and_kind(path)[0] != signature:
            settled = False
        self._known[path] = _Known(signature, source, settled, kind == "file" and is_pointer_file(Path(path)))
        return source

    def _is_moving(self, path: str, signature: Signature, kind: str) -> bool:
        if kind != "file":
            # A path that is not a regular file recreates no container but may block one: count it at once.
            return False
        now = self._now()
        change = self._moving.get(path)
        if change is None or change.signature != signature:
            change = _SourceChanged(signature, now, change.first if change else now)
            self._moving[path] = change
        if now - change.since < SETTLE_TIME or (self._reading() and now - change.first < UNSTABLE_TIMEOUT):
            return True
        if now - change.first > OPEN_FILE_TIMEOUT:
            return False
        with suppress(OSError):
            if is_open_for_writing(Path(path)):
                self._moving[path] = change._replace(since=now)
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

    def _mounted_inodes(
        self, stack: Stack, containers: Iterable[Container], sources: Mapping[str, HostPath]
    ) -> dict[tuple[str, str], str]:
        """Return the inode that each running container has mounted, as far as procfs allows access."""
        inodes = {}
        for container in containers:
            service = stack.services.get(container.service)
            if service is None or container.state is not State.RUNNING or not container.pid:
                continue
            for mount in service.mounts:
                if mount.source and sources[mount.source].kind == "file":
                    with suppress(OSError, ValueError):
                        root = self._proc / str(container.pid) / "root"
                        inodes[container.id, mount.target] = _inode_inside(root, mount.target)
        return inodes

    def _notes(self, sources: Mapping[str, HostPath]) -> Iterable[str]:
        for path, source in sources.items():
            if self._known[path].pointer:
                yield pointer_warning(path)
            if source.kind == "file" and not source.digest:
                size = f"{self._limit // 2**20} MiB"
                yield f"{path} is larger than {size}: changes of its content are not detected"
            elif source.kind == "unreadable":
                yield f"{path} can't be read: changes of its content are not detected"


def _signature_and_kind(path: str) -> tuple[Signature, str]:
    """Return a signature that differs after a change of the path, and the kind of the path."""
    try:
        status = Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return (), "missing"
    except (OSError, ValueError):
        return (), "unreadable"
    if stat.S_ISDIR(status.st_mode):
        return (1,), "folder"
    if not stat.S_ISREG(status.st_mode):
        return (2,), "other"
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns), "file"


def _inode_inside(root: Path, target: str) -> str:
    """Return the inode at a path inside a container's root.

    Raises:
        ValueError, OSError: the path is not accessible, or has a link, which would lead out of the container.
    """
    path = root
    for part in Path(target).parts[1:]:
        path = path / part
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            raise ValueError(target)
    return f"{status.st_dev}:{status.st_ino}"


def _digest(path: str) -> str:
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()[:_DIGEST]
