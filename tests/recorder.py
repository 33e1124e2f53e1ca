"""A simulated engine that keeps its own record, and a bench that runs the loop on it in virtual time.

The record is independent of the loop's word: every order is judged when it arrives, against what the
engine had last shown and what was desired then (PITFALLS section 2, "History + model").
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from reconciler.desired import Desired
from reconciler.engine.simulated import Behaviour, Mischief, SimulatedEngine
from reconciler.farewell import Keep
from reconciler.ledger import Ledger
from reconciler.loop import Hooks, Loop, Settings
from reconciler.observed import ALIVE, Action, Command, Container, Health, Observed, State
from reconciler.progress import Progress
from reconciler.snapshot import Snapshot, Snapshots
from reconciler.stack import Condition, Service, Stack, Strength

WALL = 1_700_000_000.0
_FOR_WHAT_IS_OFF = {Action.STOP, Action.UNPAUSE}


@dataclass(frozen=True, slots=True)
class Target:
    """What was desired from a moment on."""

    at: float
    stack: Stack
    desired: Desired


class Recorder(SimulatedEngine):
    """Judges every order by the rules that must hold whatever happens; ``violations`` has the verdicts."""

    def __init__(
        self, behaviours: Mapping[str, Behaviour] | None = None, *, mischief: Mischief | None = None
    ) -> None:
        super().__init__(behaviours, mischief=mischief)
        self.orders: list[tuple[float, Command]] = []
        self.violations: list[str] = []
        self.targets: list[Target] = []
        self.shown: tuple[Container, ...] = ()
        self.doubled: set[str] = set()
        self._ready_at: dict[tuple[str, float], float | None] = {}

    def wall(self) -> float:
        return WALL + asyncio.get_running_loop().time()

    async def observe(self, stack: Stack, *, full: bool = False) -> Observed:
        observed = await super().observe(stack, full=full)
        if observed.complete:
            self.shown = observed.containers
        return observed

    async def act(self, command: Command, stack: Stack) -> str:
        self.orders.append((self._now(), command))
        for service in command.services:
            self._judge(command, service)
        # An engine goes on with what it was told, also when who told it dies.
        work = asyncio.ensure_future(super().act(command, stack))
        work.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(work)

    def _changed(self, event: str) -> None:
        alive = Counter((c.service, c.number) for c in self.containers() if c.state in ALIVE)
        for (service, number), count in alive.items():
            if count > 1 and service not in self.doubled:
                self.violations.append(f"{count} containers of {service} run as number {number}")
        for cell in self._cells.values():
            key = (cell.container.id, cell.container.started_at)
            self._ready_at.setdefault(key, cell.ready_at)
        super()._changed(event)

    # --- the rules --------------------------------------------------------------------------------

    def _judge(self, command: Command, service: str) -> None:
        now = self._now()
        # An order may rest on what was desired until this very instant.
        current = [
            target
            for target, following in zip(self.targets, [*self.targets[1:], None], strict=True)
            if following is None or following.at >= now
        ]
        complaints = [self._complaint(command, service, target) for target in current]
        if all(complaints):
            self.violations.append(f"{now:.3f} {command.action} {service}: {complaints[-1]}")

    def _complaint(self, command: Command, service: str, target: Target) -> str:
        stack, desired = target.stack, target.desired
        group = stack.group_of.get(service)
        if group is None and stack.prune and service not in stack.services:
            return "" if command.action in {*_FOR_WHAT_IS_OFF, Action.REMOVE} else "is an orphan"
        if group is None:
            return "is not managed"
        state = desired.groups[group]
        if state.suspended(self.wall() + 0.001):
            return "its group is suspended"
        if not state.on:
            managed = stack.restart == "managed" and command.action is Action.UPDATE
            return "" if managed or command.action in _FOR_WHAT_IS_OFF else "its group is off"
        needed = stack.groups[group].depends_on
        if not state.force and any(not desired.groups[name].on for name in needed):
            return "its group is blocked"
        if command.container:
            mine = [c for c in self.shown if c.id == command.container]
            if mine and mine[0].service not in command.services:
                return "names a container of another service"
        if command.action is Action.START:
            return self._start_complaint(command, stack.services[service], target)
        return ""

    def _start_complaint(self, command: Command, service: Service, target: Target) -> str:
        stack, desired = target.stack, target.desired
        numbers = {c.number for c in self.shown if c.id == command.container}
        same = (c for c in self.shown if c.service == service.name and c.number in numbers)
        if any(c.state in ALIVE for c in same):
            return "another container of it runs"
        for dependency in stack.needs[service.name]:
            asked = desired.groups[stack.group_of[dependency.service]].on and dependency.required
            if asked and not self._holds(stack, dependency.service, dependency.condition):
                return f"{dependency.service} is not {dependency.condition}"
        group = stack.groups[stack.group_of[service.name]]
        if not desired.groups[group.name].force:
            for name, strength in group.depends_on.items():
                if strength is Strength.READY:
                    for other in stack.groups[name].services:
                        if not self._up(stack, other):
                            return f"{other} of {name} is not ready"
        return ""

    def _holds(self, stack: Stack, name: str, condition: Condition) -> bool:
        if not stack.services[name].replicas:
            return True
        containers = [c for c in self.shown if c.service == name]
        ended_well = any(c.state is State.EXITED and c.exit_code == 0 and c.started_at for c in containers)
        if condition is Condition.COMPLETED:
            return ended_well
        if condition is Condition.STARTED:
            return any(c.state is State.RUNNING for c in containers) or ended_well
        return any(self._is_ready(c) for c in containers)

    def _up(self, stack: Stack, name: str) -> bool:
        return any(self._is_ready(c) for c in self.shown if c.service == name) or self._holds(
            stack, name, Condition.COMPLETED
        )

    def _is_ready(self, container: Container) -> bool:
        if container.state is not State.RUNNING:
            return False
        if container.health in {Health.NONE, Health.HEALTHY}:
            return True
        ready_at = self._ready_at.get((container.id, container.started_at))
        return container.health is Health.STARTING and ready_at is not None and ready_at <= self._now()

    # --- what tests ask -----------------------------------------------------------------------------

    def log(self, *actions: Action) -> list[str]:
        """What took effect, in order, as "start kafka"."""
        return [
            f"{command.action} {service}"
            for _, command in self.history
            for service in command.services
            if not actions or command.action in actions
        ]

    def times(self, action: Action, service: str) -> list[float]:
        """When orders of this kind for the service came, in seconds since the loop's beginning."""
        return [at - 1000.0 for at, c in self.orders if c.action is action and service in c.services]

    def up(self) -> set[str]:
        """The services that run now."""
        return {c.service for c in self.containers() if c.state is State.RUNNING}


@dataclass
class Bench:
    """The loop on a recorder. ``begin`` starts it; ``crash`` ends it as ``kill -9`` would."""

    stack: Stack
    engine: Recorder = field(default_factory=Recorder)
    settings: Settings = field(default_factory=Settings)
    ledger: Ledger | None = None
    keep: Keep | None = None
    chance: Callable[[], float] = lambda: 0.5
    ended: list[Progress] = field(default_factory=list)
    passes: list[str] = field(default_factory=list)
    generation: int = 0

    def begin(self) -> None:
        self.snapshots = Snapshots()
        self.loop = Loop(
            self.engine,
            self.snapshots,
            wall=self.engine.wall,
            chance=self.chance,
            ledger=self.ledger,
            settings=self.settings,
            keep=self.keep,
            hooks=Hooks(ended=self.ended.append, passed=lambda _, outcome: self.passes.append(outcome)),
        )
        self.task = asyncio.create_task(self.loop.run())

    def want(self, desired: Desired, stack: Stack | None = None) -> int:
        """Adopt this as a new generation; returns its number."""
        self.stack = stack or self.stack
        self.generation += 1
        desired = replace(desired, generation=self.generation)
        now = asyncio.get_running_loop().time()
        self.engine.targets.append(Target(now, self.stack, desired))
        self.loop.adopt(self.stack, desired, accepted_at=self.engine.wall())
        return self.generation

    @property
    def seen(self) -> Snapshot:
        return self.snapshots.current

    async def until(self, holds: Callable[[Snapshot], bool], seconds: float = 120.0) -> float:
        """Wait until a snapshot is as asked; how many (virtual) seconds that took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.timeout(seconds):
            while not holds(self.seen):
                await self.snapshots.after(self.seen.serial)
        return loop.time() - began

    async def converged(self, seconds: float = 120.0) -> float:
        """Wait until the generation last wanted is converged."""
        return await self.until(lambda s: s.converged and s.observed_generation == self.generation, seconds)

    async def crash(self) -> None:
        """The daemon dies at this moment; what it had sent, the engine may or may not carry out."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.loop.stop(0.0)

    async def end(self) -> None:
        await self.loop.stop()
        await self.task
        await self.engine.close()
        assert self.engine.violations == []


def bench(stack: Stack, **fields: object) -> Bench:
    """A bench that has begun."""
    made = Bench(stack, **fields)  # type: ignore[arg-type]
    made.begin()
    return made
