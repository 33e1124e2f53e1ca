"""The published state: one immutable snapshot per pass, and its distribution to readers.

``snapshot_builder`` builds the snapshot from the executed plan, so it shows what the daemon does. A snapshot
holds no running counters: otherwise every second would be a change for every subscriber. The API computes
uptime from ``started_at``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from reconciler.controller.progress import Progress
from reconciler.errors import Mistake
from reconciler.model.observed import ALIVE
from reconciler.planning.drift import Drift
from reconciler.planning.planner import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceView:
    """The state of one service. Times are wall seconds since the epoch, 0: never; memory in bytes.

    ``status`` is the container's state (``absent`` without one); ``expected`` the expected seconds of a
    start, None: not known; ``step`` the action in flight. ``replicas`` is the desired number of containers.
    ``alive`` is the number that runs; it is counted only for a service with several replicas.
    """

    name: str
    group: str = ""
    container: str = ""
    id: str = ""
    status: str = "absent"
    health: str = "none"
    ready: bool = False
    done: bool = False
    wanted: bool = False
    phase: str = ""
    reason: str = ""
    message: str = ""
    waits_for: tuple[str, ...] = ()
    step: str = ""
    drift: tuple[str, ...] = ()
    last_error: str = ""
    image: str = ""
    started_at: float = 0.0
    exit_code: int = 0
    restart_count: int = 0
    ports: tuple[str, ...] = ()
    memory: int | None = None
    cpu: float | None = None
    expected: float | None = None
    retry_at: float | None = None
    replicas: int = 1
    alive: int = 0

    @property
    def up(self) -> bool:
        """Whether all desired containers run; for a one-shot, whether it is done."""
        if self.replicas == 1 or self.done:
            return self.done or self.status in ALIVE
        return self.alive >= self.replicas


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupView:
    """The state of one group. ``memory`` is the measured sum in bytes, ``estimate`` the stack's."""

    name: str
    description: str
    desired: bool
    force: bool
    status: str
    phase: str
    reason: str
    message: str
    services: tuple[ServiceView, ...]
    running: int
    memory: int
    estimate: int
    depends_on: Mapping[str, str] = field(default_factory=dict)
    dependents: tuple[str, ...] = ()
    suspended: bool = False
    suspended_until: float | None = None
    suspend_reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineView:
    """The engine, and since when (wall) it is reachable or not. ``memory`` is that of its host, in bytes."""

    kind: str = ""
    version: str = ""
    compose: str = ""
    memory: int = 0
    reachable: bool = False
    since: float = 0.0
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The whole stack at one instant. ``serial`` grows with every change; equal content, equal serial.

    ``pilot_memory`` is the memory of the pilot itself according to ``stack.yaml``, in bytes.
    """

    serial: int = 0
    at: float = 0.0
    stack: str = ""
    generation: int = 0
    revision: str = ""
    commit: str = ""
    accepted_at: float = 0.0
    observed_generation: int = 0
    converged: bool = False
    pilot_ready: bool = False
    pilot_groups: tuple[str, ...] = ()
    pilot_memory: int = 0
    groups: Mapping[str, GroupView] = field(default_factory=dict)
    unmanaged: tuple[ServiceView, ...] = ()
    orphans: tuple[str, ...] = ()
    engine: EngineView = field(default_factory=EngineView)
    errors: tuple[Mistake, ...] = ()
    warnings: tuple[str, ...] = ()
    drifts: tuple[Drift, ...] = ()
    steps: tuple[Step, ...] = ()
    plan: str = ""
    progress: Progress = field(default_factory=lambda: Progress(generation=0))

    @property
    def valid(self) -> bool:
        """Whether the files on disk are valid (False: the last valid state stays in force)."""
        return not self.errors


REMEMBERED = 100
"""Generations whose progress is kept."""


class SnapshotPublisher:
    """Holds the last snapshot and wakes readers that wait for the next. Publishing never blocks.

    A slow reader gets fewer snapshots, never a queue of old ones.
    """

    def __init__(self) -> None:
        self._current = Snapshot()
        self._changed: asyncio.Event = asyncio.Event()
        self._progress: dict[int, Progress] = {}
        self._reader_seen_at = float("-inf")
        self._reader_seen = asyncio.Event()

    def note_reader(self, now: float) -> None:
        """Record a reader at this monotonic second: usage is sampled more often while there are readers."""
        self._reader_seen_at = now
        self._reader_seen.set()

    async def wait_for_reader(self) -> None:
        """Wait for the next reader."""
        self._reader_seen.clear()
        await self._reader_seen.wait()

    def has_readers(self, now: float, within: float) -> bool:
        """Return whether a reader was recorded in the last ``within`` seconds."""
        return now - self._reader_seen_at <= within

    @property
    def current(self) -> Snapshot:
        """The last snapshot published."""
        return self._current

    def publish(self, snapshot: Snapshot) -> Snapshot:
        """Publish a snapshot and wake all waiting readers, unless its content is unchanged.

        Returns the current snapshot, with its ``serial``.
        """
        same = replace(snapshot, serial=self._current.serial, at=self._current.at)
        self._progress[snapshot.progress.generation] = snapshot.progress
        while len(self._progress) > REMEMBERED:
            del self._progress[min(self._progress)]
        if same == self._current:
            return self._current
        self._current = replace(snapshot, serial=self._current.serial + 1)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        return self._current

    async def newer_than(self, serial: int) -> Snapshot:
        """Return the first snapshot newer than ``serial``; wait for it if necessary."""
        while self._current.serial <= serial:
            await self._changed.wait()
        return self._current

    def progress(self, generation: int) -> Progress | None:
        """Return the progress of a generation; None if unknown or no longer kept."""
        return self._progress.get(generation)

    def publish_outcome(self, progress: Progress) -> None:
        """Record the outcome of a generation that is no longer the current one."""
        known = self._progress.get(progress.generation)
        if known is None or known.state == "progressing":
            self._progress[progress.generation] = progress
