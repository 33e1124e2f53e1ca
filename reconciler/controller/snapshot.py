"""The published state: one immutable snapshot per pass, and its distribution to readers.

A snapshot is built from the executed plan, so it shows what the daemon does. It holds no running counters:
the API computes uptime from ``started_at``; otherwise every second would be a change for every subscriber.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from reconciler.controller.progress import Progress
from reconciler.errors import Mistake
from reconciler.model.desired import Desired
from reconciler.model.ledger import Clock, ContainerExit, Ledger
from reconciler.model.ledger_updates import expected_start_time
from reconciler.model.observed import ALIVE, Action, Container, ObservedState, Usage
from reconciler.model.stack import Stack
from reconciler.model.units import format_time
from reconciler.planning import project_rename
from reconciler.planning.drift import Drift
from reconciler.planning.planner import Plan, ServicePlan, Step
from reconciler.planning.status import CONVERGED, Phase, ServiceStatus, of_group, outcome, summarise


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceView:
    """The state of one service. Times are wall seconds since the epoch, 0: never; memory in bytes.

    ``status`` is the container's state (``absent`` without one); ``expected`` the expected seconds of a
    start, None: not known; ``step`` the action in flight. ``replicas`` is the desired number of containers,
    ``alive`` the running number, counted unless one is desired.
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
    suspended_until: float | None = None
    suspend_reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineView:
    """Whether the engine is reachable, and since when (wall). ``memory``: its host's, in bytes."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The inputs of a snapshot, collected by the loop."""

    stack: Stack
    desired: Desired
    observed: ObservedState
    ledger: Ledger
    plan: Plan
    progress: Progress
    engine: EngineView
    now: Clock
    in_flight: Mapping[str, Action] = field(default_factory=dict)
    usage: Mapping[str, Usage] = field(default_factory=dict)
    errors: tuple[Mistake, ...] = ()
    warnings: tuple[str, ...] = ()
    observed_generation: int = 0
    accepted_at: float = 0.0


def build(inputs: Inputs, summaries: Mapping[str, ServiceStatus] | None = None) -> Snapshot:
    """Build the snapshot of one pass. Pure; ``SnapshotPublisher.publish`` sets ``serial``."""
    if summaries is None:
        summaries = summarise(inputs.plan, inputs.ledger, inputs.in_flight)
    stack = inputs.stack
    groups = {name: _group(inputs, name, summaries) for name in stack.groups}
    containers = {c.service: c for c in inputs.observed.containers}
    unmanaged = tuple(
        ServiceView(name=name, **_of_container(name, containers.get(name), inputs))
        for name in stack.unmanaged
    )
    known = inputs.engine.reachable and inputs.plan.complete
    pilot_ready = bool(stack.pilot.groups) and all(
        groups[name].desired and all(s.ready or s.done or not s.replicas for s in groups[name].services)
        for name in stack.pilot.groups
    )
    return Snapshot(
        at=inputs.now.wall,
        stack=stack.name,
        generation=inputs.desired.generation,
        revision=inputs.desired.revision,
        commit=inputs.desired.commit,
        accepted_at=inputs.accepted_at,
        observed_generation=inputs.observed_generation,
        converged=known and outcome(summaries.values()) == "converged",
        pilot_ready=known and pilot_ready,
        pilot_groups=stack.pilot.groups,
        pilot_memory=stack.pilot.memory,
        groups=groups,
        unmanaged=unmanaged,
        orphans=tuple(c.name for c in inputs.plan.orphans),
        engine=inputs.engine,
        errors=inputs.errors,
        warnings=(
            *stack.warnings,
            *inputs.warnings,
            *_to_come(inputs),
            *_renamed(inputs),
            *inputs.observed.notes,
        ),
        drifts=inputs.plan.drifts,
        steps=inputs.plan.steps,
        plan=str(inputs.plan),
        progress=inputs.progress,
    )


def _to_come(inputs: Inputs) -> Iterator[str]:
    """Warn about future times in the files: intended, or written while the clock was ahead."""
    for name, state in inputs.desired.groups.items():
        for key, at in (("restarted_at", state.restarted_at), ("accepted_at", state.accepted_at)):
            if at is not None and at > inputs.now.wall:
                yield f"{name}: {key} is in the future, and nothing is done about it before {format_time(at)}"


def _renamed(inputs: Inputs) -> tuple[str, ...]:
    states = {name: state.on for name, state in inputs.desired.groups.items()}
    return project_rename.warnings(inputs.stack, states, inputs.observed, inputs.ledger)


def _group(inputs: Inputs, name: str, summaries: Mapping[str, ServiceStatus]) -> GroupView:
    group, state = inputs.stack.groups[name], inputs.desired.groups[name]
    services = tuple(_service(inputs, service, summaries) for service in group.services)
    running = sum(1 for s in services if s.status in ALIVE)
    up = sum(1 for s in services if s.up)
    suspended = state.suspended(inputs.now.wall)
    summary = of_group(((s, summaries.get(s, CONVERGED)) for s in group.services), suspended=suspended)
    if not inputs.plan.complete and summary.phase is Phase.CONVERGED:
        summary = ServiceStatus(Phase.WAITING, "engine_unreachable", "waits for the engine to answer")
    suspend = state.suspend if suspended else None
    return GroupView(
        name=name,
        description=group.description,
        desired=state.on,
        force=state.force,
        status="stopped" if not running else "running" if up == len(services) else "partial",
        phase=str(summary.phase),
        reason=summary.reason,
        message=summary.message,
        services=services,
        running=running,
        memory=sum(s.memory or 0 for s in services),
        estimate=group.memory,
        depends_on={n: str(strength) for n, strength in group.depends_on.items()},
        dependents=inputs.stack.group_dependents[name],
        suspended_until=suspend.until if suspend else None,
        suspend_reason=suspend.reason if suspend else "",
    )


def _service(inputs: Inputs, name: str, summaries: Mapping[str, ServiceStatus]) -> ServiceView:
    group = inputs.stack.group_of[name]
    verdict = inputs.plan.verdicts.get(name)
    if verdict is None:
        container = next((c for c in inputs.observed.containers if c.service == name), None)
        return ServiceView(name=name, group=group, **_of_container(name, container, inputs))
    summary = summaries[name]
    wait = verdict.wait
    retry = wait.until - inputs.now.mono + inputs.now.wall if wait and wait.until is not None else None
    return ServiceView(
        name=name,
        group=group,
        ready=verdict.ready,
        done=verdict.done,
        wanted=verdict.wanted,
        phase=str(summary.phase),
        reason=summary.reason,
        message=summary.message,
        waits_for=wait.on if wait else (),
        step=str(inputs.in_flight.get(name, "")),
        drift=tuple(str(d.kind) for d in verdict.drifts if not d.pending),
        last_error=_last_error(inputs, verdict),
        expected=expected_start_time(inputs.ledger, name),
        # Whole seconds: clock jitter would otherwise be a change in every pass.
        retry_at=round(retry) if retry is not None else None,
        alive=sum(1 for one in verdict.units if one.container and one.container.state in ALIVE),
        replicas=verdict.replicas,
        **_of_container(name, verdict.container, inputs) | _used(verdict, inputs),
    )


def _used(verdict: ServicePlan, inputs: Inputs) -> dict[str, Any]:
    """Sum memory and CPU over the containers of a service with several replicas; {} for any other."""
    ids = [one.container.id for one in verdict.units if one.container and one.container.state in ALIVE]
    used = [usage for id_ in ids if (usage := inputs.usage.get(id_))]
    return {"memory": sum(u.memory for u in used), "cpu": sum(u.cpu for u in used)} if used else {}


def _last_error(inputs: Inputs, verdict: ServicePlan) -> str:
    """Return the most recent error of all replicas."""
    ledger = inputs.ledger

    def when(one: ServicePlan) -> float:
        failure, end = ledger.failures.get(one.service), ledger.exits.get(one.service)
        return max(failure.at if failure else 0.0, end.finished_at if end else 0.0)

    for one in sorted(verdict.units or (verdict,), key=when, reverse=True):
        error = _error_of(inputs, one.service, one.container)
        if error:
            return error
    return ""


def _error_of(inputs: Inputs, name: str, container: Container | None) -> str:
    failure = inputs.ledger.failures.get(name)
    if (
        container is not None
        and container.oom_killed
        and container.state in ALIVE
        # A failure of an earlier run is older than this one.
        and (failure is None or failure.at < container.started_at)
    ):
        return "out of memory: the kernel killed a process in it, and it runs on without that"
    if failure:
        return failure.error
    return _last_end(inputs.ledger.exits.get(name))


def _last_end(end: ContainerExit | None) -> str:
    """Describe the last exit that the daemon did not cause; kept after the repair."""
    if end is None:
        return ""
    at = datetime.fromtimestamp(end.finished_at, UTC).strftime(" at %Y-%m-%dT%H:%M:%SZ")
    why = ", out of memory" if end.oom_killed else ""
    return f"exited with code {end.code}{why}{at if end.finished_at else ''}"


def _of_container(name: str, container: Container | None, inputs: Inputs) -> dict[str, Any]:
    """Return the view's fields of the container, or of the one that would be created."""
    service = inputs.stack.services[name]
    if container is None:
        return {"container": service.container_name, "image": service.image}
    usage = inputs.usage.get(container.id) if container.state in ALIVE else None
    return {
        "container": container.name,
        "id": container.id,
        "status": str(container.state),
        "health": str(container.health),
        "image": service.image,
        "started_at": container.started_at if container.state in ALIVE else 0.0,
        "exit_code": container.exit_code,
        "restart_count": container.restart_count,
        "ports": container.ports,
        "memory": usage.memory if usage else None,
        "cpu": usage.cpu if usage else None,
    }


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
        self._looked_at = float("-inf")
        self._look = asyncio.Event()

    def note_reader(self, now: float) -> None:
        """Record a reader at this monotonic second: usage is sampled more often while there are readers."""
        self._looked_at = now
        self._look.set()

    async def wait_for_reader(self) -> None:
        """Wait for the next reader."""
        self._look.clear()
        await self._look.wait()

    def has_readers(self, now: float, within: float) -> bool:
        """Whether a reader was recorded in the last ``within`` seconds."""
        return now - self._looked_at <= within

    @property
    def current(self) -> Snapshot:
        """The last snapshot published."""
        return self._current

    def publish(self, snapshot: Snapshot) -> Snapshot:
        """Make it the current snapshot and wake all waiting readers, unless its content is unchanged."""
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
