"""Implements the engine port in memory, with scripted behaviour and faults.

Time is the event loop's, so a test with a virtual clock waits for nothing. ``tests/engine/test_contract.py``
checks that it behaves as the real engines do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

from reconciler.engine.simulated.containers import SimulatedContainer, SimulatedContainers
from reconciler.engine.simulated.scripts import ContainerScript, FaultInjection
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
    LeftBehind,
    ObservedState,
    State,
    Usage,
)
from reconciler.model.stack import Stack
from reconciler.model.start_work import NOTHING, StartWork


class SimulatedEngine(SimulatedContainers):
    """Implements ``reconciler.engine.Engine`` without containers.

    ``unavailable`` set to True makes every call fail as with a dead socket. ``history`` lists each command
    that took effect, with its time: a record that does not depend on the loop.
    """

    def __init__(
        self,
        behaviours: Mapping[str, ContainerScript] | None = None,
        *,
        mischief: FaultInjection | None = None,
        wall: Callable[[], float] | None = None,
        capabilities: Capabilities = ALL,
    ) -> None:
        super().__init__(behaviours, mischief=mischief, wall=wall)
        self.can = capabilities
        self.history: list[tuple[float, Command]] = []
        self.calls = 0

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
            capabilities=self.can,
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

    def _ask(self) -> None:
        self.calls += 1
        if self.unavailable:
            raise EngineUnavailable("the simulated engine is not there")

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

    def _cell(self, command: Command) -> SimulatedContainer:
        cell = self._cells.get(command.container)
        if cell is None:
            raise ContainerGone(f"no container {command.container}")
        return cell

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


def _work(command: Command, stack: Stack) -> StartWork:
    service = stack.services.get(command.services[0]) if command.services else None
    return service.start if service else NOTHING
