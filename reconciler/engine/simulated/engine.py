"""An engine in memory: obeys, or misbehaves on command. For tests of the core and a look around.

Time is the event loop's, so a test that drives a loop with a virtual clock waits for nothing. What it
does and how it answers is held to the real engine's behaviour by ``tests/engine/test_contract.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace

from reconciler.engine.simulated.hooks import NO_HOOKS, HookScript, StartWorker
from reconciler.engine.simulated.logs import ContainerLogs
from reconciler.errors import (
    BatchFailed,
    ContainerGone,
    EngineUnavailable,
    OutcomeUnknown,
    PermanentStepFailure,
    StepFailed,
)
from reconciler.model.capabilities import ALL, Capabilities
from reconciler.model.observed import (
    ALIVE,
    Action,
    Command,
    Container,
    EngineInfo,
    Health,
    LeftBehind,
    ObservedState,
    State,
    Usage,
)
from reconciler.model.stack import Service, Stack
from reconciler.model.start_work import NOTHING, StartWork


@dataclass(slots=True, kw_only=True)
class ContainerScript:
    """How the containers of one service behave. Times in seconds; None: never.

    ``exits_after`` counts from each start; ``crashes`` limits how often that happens. A service that others
    wait for to complete, and of which nothing was said, ends by itself (``ONE_SHOT``).
    ``hooks`` is how lifecycle hooks fare.
    """

    start_takes: float = 0.05
    ready_after: float | None = 0.0
    stop_takes: float = 0.05
    exits_after: float | None = None
    exit_code: int = 0
    crashes: int = 1_000_000_000
    memory: int = 50_000_000
    hooks: HookScript = NO_HOOKS


_PLAIN = ContainerScript()

ONE_SHOT = 0.5
"""Seconds that a one-shot runs before it exits with code 0."""


@dataclass(slots=True, kw_only=True)
class FaultInjection:
    """What the engine does wrong. Each is a question asked per call, so a test can script any pattern.

    ``fail`` is asked before a command takes effect, ``lie`` after it did: both say which error to
    raise, None for none. ``stale`` says how many changes old a look should be, ``mute`` whether an
    event is lost, ``partial`` whether a look is cut short.
    """

    fail: Callable[[Command], Exception | None] = lambda _: None
    lie: Callable[[Command], Exception | None] = lambda _: None
    stale: Callable[[], int] = lambda: 0
    mute: Callable[[str], bool] = lambda _: False
    partial: Callable[[], bool] = lambda: False


@dataclass(slots=True)
class _SimulatedContainer:
    # A container and what is under way in it.
    container: Container
    one_shot: bool = False
    ready_at: float | None = None
    timers: list[asyncio.TimerHandle] = field(default_factory=list)

    def cancel(self) -> None:
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()


class SimulatedEngine:
    """Implements ``reconciler.engine.Engine`` without containers.

    ``unavailable`` set to True makes every call fail as with a dead socket. ``history`` lists each
    command that took effect, with the time: a recorder independent of the loop's own word.
    """

    def __init__(
        self,
        behaviours: Mapping[str, ContainerScript] | None = None,
        *,
        mischief: FaultInjection | None = None,
        wall: Callable[[], float] | None = None,
        capabilities: Capabilities = ALL,
    ) -> None:
        self.can = capabilities
        self.behaviours = dict(behaviours or {})
        self.mischief = mischief or FaultInjection()
        self.images: dict[str, str] = {}
        self.pullable: dict[str, str] = {}
        self.foreign: dict[str, str] = {}
        self.unavailable = False
        self.auto_images = True
        self.history: list[tuple[float, Command]] = []
        self.calls = 0
        self._wall = wall or (lambda: 1_700_000_000.0 + self._now())
        self._cells: dict[str, _SimulatedContainer] = {}
        self._views: list[tuple[Container, ...]] = [()]
        self._projects: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._listeners: set[asyncio.Queue[str | None]] = set()
        self._serial = 0
        self._replaces: tuple[str, ...] = ()
        self._logs = ContainerLogs(self._prints)
        self.start_work = StartWorker()

    # --- the protocol ------------------------------------------------------------------------------

    async def info(self) -> EngineInfo:
        """See ``Engine.info``."""
        self._ask()
        return EngineInfo("simulated", "1", "1", "none", "memory", 8_000_000_000, 4)

    async def observe(self, stack: Stack, *, full: bool = False) -> ObservedState:
        """See ``Engine.observe``."""
        began = self._now()
        await asyncio.sleep(0)
        self._ask()
        age = self.mischief.stale()
        view = self._views[max(0, len(self._views) - 1 - age)]
        if self.auto_images:
            for service in stack.services.values():
                self.images.setdefault(service.image, f"sha256:{service.image}")
        others = {c.name: c.id for c in view if not self._is_of(c.id, stack.name)}
        return ObservedState(
            containers=tuple(c for c in view if self._is_of(c.id, stack.name)),
            images=dict(self.images),
            foreign={**others, **self.foreign},
            complete=not self.mischief.partial(),
            began=began,
            at=self._now(),
        )

    async def left_behind(self, stack: Stack, former: str = "") -> tuple[LeftBehind, ...]:
        """See ``Engine.left_behind``; there are no volumes here."""
        self._ask()
        found: dict[str, list[str]] = {}
        for id, (project, files) in self._projects.items():
            if project != stack.name and set(files) & set(stack.files) and id in self._cells:
                found.setdefault(project, []).append(self._cells[id].container.name)
        return tuple(LeftBehind(name, tuple(sorted(found[name]))) for name in sorted(found))

    async def events(self, stack: Stack) -> AsyncIterator[str]:
        """See ``Engine.events``."""
        self._ask()
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            yield "subscribed"
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._listeners.discard(queue)

    async def act(self, command: Command, stack: Stack) -> str:
        """See ``Engine.act``."""
        self._ask()
        refusal = self.mischief.fail(command)
        if refusal is not None:
            raise refusal
        try:
            remark = await self._carry_out(command, stack)
        except BatchFailed as batch:
            made = tuple(name for name in command.services if name not in batch.failed)
            self.history.append((self._now(), command._replace(services=made)))
            raise
        self.history.append((self._now(), command))
        lie = self.mischief.lie(command)
        if lie is not None:
            raise lie
        if self.unavailable:
            raise OutcomeUnknown("the engine went away before it answered")
        return remark

    async def probe(self, container: Container, timeout: float) -> bool:
        """See ``Engine.probe``."""
        await asyncio.sleep(0)
        cell = self._cells.get(container.id)
        if self.unavailable or cell is None or cell.container.state is not State.RUNNING:
            return False
        if not cell.container.check:
            return False
        return cell.ready_at is not None and self._now() >= cell.ready_at

    async def stats(self, containers: tuple[Container, ...]) -> Mapping[str, Usage]:
        """See ``Engine.stats``."""
        self._ask()
        return {c.id: Usage(self._behaviour(c.service).memory, 1.0) for c in containers if c.state in ALIVE}

    async def logs(self, container: str, *, tail: int = 100, follow: bool = False) -> AsyncIterator[str]:
        """See ``Engine.logs``."""
        self._ask()
        cell = self._cells.get(container)
        if cell is None:
            raise ContainerGone(f"no container {container}")
        async for line in self._logs.read(container, tail, follow=follow):
            yield line

    @property
    def capabilities(self) -> Capabilities:
        """See ``Engine.capabilities``."""
        return self.can

    async def close(self) -> None:
        """See ``Engine.close``."""
        for cell in self._cells.values():
            cell.cancel()
        self._hang_up()

    # --- what a person or the world does to it --------------------------------------------------------

    def containers(self, service: str = "") -> tuple[Container, ...]:
        """What is really there, however stale the looks are."""
        found = (cell.container for cell in self._cells.values())
        return tuple(c for c in found if not service or c.service == service)

    def add(self, container: Container) -> None:
        """Put a container there, as Compose or a person would."""
        self._cells[container.id] = _SimulatedContainer(container, ready_at=self._now())
        self._changed("create")

    def kill(self, service: str, exit_code: int = 137) -> None:
        """The container's process ends."""
        for cell in list(self._cells.values()):
            if cell.container.service == service and cell.container.state in ALIVE:
                self._end(cell, exit_code)

    def alter(self, container: str, **fields: object) -> None:
        """Change any field of a container behind the loop's back."""
        cell = self._cells[container]
        cell.container = replace(cell.container, **fields)  # type: ignore[arg-type]
        self._changed("alter")

    def drop(self, container: str) -> None:
        """The container is removed by somebody."""
        self._cells.pop(container).cancel()
        self._projects.pop(container, None)
        self._logs.forget(container)
        self._changed("destroy")

    def restart(self) -> None:
        """The engine restarts: everything ends; what has the policy ``always`` comes back."""
        self._hang_up()
        for cell in list(self._cells.values()):
            if cell.container.state in ALIVE:
                self._end(cell, 255)
            if cell.container.restart in {"always", "unless-stopped"}:
                self._run(cell)

    def tag(self, image: str, image_id: str) -> None:
        """The reference names another image now, as after a build."""
        self.images[image] = image_id
        self._changed("tag")

    # --- inside ---------------------------------------------------------------------------------------

    def _is_of(self, id: str, project: str) -> bool:
        """Whether a container belongs to the project; what a test put there belongs to each."""
        return self._projects.get(id, (project, ()))[0] == project

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _ask(self) -> None:
        self.calls += 1
        if self.unavailable:
            raise EngineUnavailable("the simulated engine is not there")

    def _behaviour(self, service: str) -> ContainerScript:
        return self.behaviours.get(service, _PLAIN)

    def _changed(self, event: str) -> None:
        self._views.append(tuple(sorted((c.container for c in self._cells.values()), key=lambda c: c.id)))
        del self._views[:-50]
        if not self.mischief.mute(event):
            for queue in self._listeners:
                queue.put_nowait(event)

    def _prints(self, container: str) -> bool:
        cell = self._cells.get(container)
        return cell is not None and cell.container.state in ALIVE and not self.unavailable

    def _hang_up(self) -> None:
        self._logs.wake()
        for queue in self._listeners:
            queue.put_nowait(None)

    async def _carry_out(self, command: Command, stack: Stack) -> str:
        match command.action:
            case Action.CREATE | Action.RECREATE:
                await asyncio.sleep(0.1)
                self._create_all(command, stack)
            case Action.PULL | Action.BUILD:
                await asyncio.sleep(1.0)
                self._fetch(command, stack)
            case Action.START:
                own = self._cell(command).container
                if own.state is not State.RUNNING:
                    hooks = self._behaviour(own.service).hooks
                    await self.start_work.before_start(own.id, _work(command, stack), hooks)
                await self._start(command)
            case Action.POST_START:
                own = self._cell(command).container
                hooks = self._behaviour(own.service).hooks
                if own.state is not State.RUNNING:
                    raise ContainerGone(f"{own.name} does not run any more")
                await self.start_work.post_start(command.container, _work(command, stack), hooks)
            case Action.STOP | Action.KILL:
                return await self._stop(command, _work(command, stack))
            case Action.REMOVE:
                cell = self._cells.get(command.container)
                if cell is not None and cell.container.state in ALIVE:
                    raise StepFailed(f"{cell.container.name} is running: stop it before removing it")
                if cell is not None:
                    self.drop(command.container)
            case Action.UNPAUSE:
                cell = self._cell(command)
                if cell.container.state is State.PAUSED:
                    self._set(cell, "unpause", state=State.RUNNING)
            case Action.RENAME:
                self._set(self._cell(command), "rename", name=command.value)
            case Action.UPDATE:
                self._set(self._cell(command), "update", restart=command.value)
        return ""

    def _cell(self, command: Command) -> _SimulatedContainer:
        cell = self._cells.get(command.container)
        if cell is None:
            raise ContainerGone(f"no container {command.container}")
        return cell

    def _set(self, cell: _SimulatedContainer, event: str, **fields: object) -> None:
        cell.container = replace(cell.container, **fields)  # type: ignore[arg-type]
        self._logs.write(cell.container.id, f"{cell.container.service}: simulated {event}")
        self._changed(event)

    def _create_all(self, command: Command, stack: Stack) -> None:
        failed: dict[str, StepFailed] = {}
        self._replaces = command.replaces
        for name in command.services:
            try:
                self._create(stack, stack.services[name], recreate=command.action is Action.RECREATE)
            except StepFailed as error:
                failed[name] = error
        if failed and len(command.services) == 1:
            raise failed[command.services[0]]
        if failed:
            raise BatchFailed(failed)

    def _create(self, stack: Stack, service: Service, *, recreate: bool) -> None:
        """As Compose does: one more for each that is missing, or a successor for each that is there."""
        mine = [
            c.container
            for c in self._cells.values()
            if c.container.service == service.name and self._is_of(c.container.id, stack.name)
        ]
        if recreate and self._replaces and mine:
            mine = [c for c in mine if c.id in self._replaces]
            if not mine:
                raise ContainerGone(f"no container of {service.name} that was to be replaced")
        numbers = sorted({c.number for c in mine})
        if not recreate or not mine:
            following = max(numbers, default=0) + 1
            missing = max(1, service.replicas) - len(numbers)
            numbers = list(range(following, following + missing))
        for name in map(service.name_of, numbers):
            if name in self.foreign:
                raise StepFailed(f"the name {name} is taken", "name_conflict")
        if numbers and service.image not in self.images:
            raise PermanentStepFailure(f"no image {service.image}", "image_unavailable")
        for container in mine if recreate else ():
            if container.state in ALIVE:
                self._end(self._cells[container.id], 0)
            self.drop(container.id)
        for number in numbers:
            self._make(stack, service, number)

    def _make(self, stack: Stack, service: Service, number: int) -> None:
        self._serial += 1
        has_check = service.check is not None
        container = Container(
            id=f"{self._serial:04d}-{service.name}",
            name=service.name_of(number),
            service=service.name,
            number=number,
            state=State.CREATED,
            health=Health.STARTING if has_check else Health.NONE,
            image=self.images[service.image],
            config_hash=service.config_hash,
            created_at=self._wall(),
            restart="no" if stack.restart == "managed" else service.restart,
            networks=service.networks,
            check=service.check.test if service.check else (),
            joins=tuple(
                c.container.id for c in self._cells.values() if c.container.service in service.shares
            ),
            borrowed=tuple(
                ("volumes_from", c.container.id)
                for c in self._cells.values()
                if c.container.service in service.volumes_from
            ),
        )
        ends = service.name in stack.one_shots and service.name not in self.behaviours
        self._cells[container.id] = _SimulatedContainer(container, one_shot=ends)
        self._projects[container.id] = (stack.name, stack.files)
        self._changed("create")

    def _fetch(self, command: Command, stack: Stack) -> None:
        for name in command.services:
            image = stack.services[name].image
            if command.action is Action.BUILD:
                self.images[image] = f"sha256:{image}"
            elif image in self.pullable:
                self.images[image] = self.pullable[image]
            else:
                raise PermanentStepFailure(f"no registry has {image}", "image_unavailable")
        self._changed("pull")

    async def _start(self, command: Command) -> None:
        cell = self._cell(command)
        if cell.container.state is State.RUNNING:
            return
        await asyncio.sleep(self._behaviour(cell.container.service).start_takes)
        if command.container not in self._cells:
            raise ContainerGone(f"no container {command.container}")
        self._run(cell)

    def _run(self, cell: _SimulatedContainer) -> None:
        cell.cancel()
        behaviour = self._behaviour(cell.container.service)
        loop, now = asyncio.get_running_loop(), self._now()
        has_check = bool(cell.container.check)
        cell.ready_at = None if behaviour.ready_after is None else now + behaviour.ready_after
        self._set(
            cell,
            "start",
            state=State.RUNNING,
            health=Health.STARTING if has_check else Health.NONE,
            started_at=self._wall(),
            finished_at=0.0,
        )
        if has_check and behaviour.ready_after is not None:
            # The engine's own verdict comes a whole interval late, as the real one's does.
            verdict = max(30.0, behaviour.ready_after)
            cell.timers.append(loop.call_later(verdict, self._set_health, cell, Health.HEALTHY))
        if cell.one_shot:
            cell.timers.append(loop.call_later(ONE_SHOT, self._end, cell, 0))
        elif behaviour.exits_after is not None and behaviour.crashes > 0:
            behaviour.crashes -= 1
            cell.timers.append(loop.call_later(behaviour.exits_after, self._end, cell, behaviour.exit_code))

    def _set_health(self, cell: _SimulatedContainer, health: Health) -> None:
        if cell.container.state is State.RUNNING:
            self._set(cell, "health_status", health=health)

    async def _stop(self, command: Command, work: StartWork) -> str:
        cell, remark = self._cells.get(command.container), ""
        if cell is None or cell.container.state not in ALIVE:
            return remark
        if cell.container.state is State.PAUSED:
            raise StepFailed(f"{cell.container.name} is paused: unpause it first")
        if command.action is Action.STOP:
            hooks = self._behaviour(cell.container.service).hooks
            remark = await self.start_work.pre_stop(command.container, work, hooks, command.grace)
            await asyncio.sleep(min(command.grace, self._behaviour(cell.container.service).stop_takes))
        if cell.container.state in ALIVE:
            self._end(cell, 0 if command.action is Action.STOP else 137)
        return remark

    def _end(self, cell: _SimulatedContainer, exit_code: int) -> None:
        cell.cancel()
        self._set(
            cell, "die", state=State.EXITED, exit_code=exit_code, finished_at=self._wall(), probed=False
        )


def _work(command: Command, stack: Stack) -> StartWork:
    service = stack.services.get(command.services[0]) if command.services else None
    return service.start if service else NOTHING
