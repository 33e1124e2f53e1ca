"""The containers of the simulated engine: state changes, and changes by users and other programs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from reconciler.engine.simulated.hooks import StartWorker
from reconciler.engine.simulated.logs import ContainerLogs
from reconciler.engine.simulated.scripts import ONE_SHOT, PLAIN, ContainerScript, FaultInjection
from reconciler.errors import ContainerGone, PermanentStepFailure, StepFailed
from reconciler.model.observed import ALIVE, Container, Health, State
from reconciler.model.stack import Service, Stack


@dataclass(slots=True)
class SimulatedContainer:
    """A container and its pending timers."""

    container: Container
    one_shot: bool = False
    ready_at: float | None = None
    timers: list[asyncio.TimerHandle] = field(default_factory=list)

    def cancel(self) -> None:
        """Cancel all timers."""
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()


class SimulatedContainers:
    """All containers of a simulated engine, of any project."""

    def __init__(
        self,
        behaviours: Mapping[str, ContainerScript] | None = None,
        *,
        mischief: FaultInjection | None = None,
        wall: Callable[[], float] | None = None,
    ) -> None:
        self.behaviours = dict(behaviours or {})
        self.mischief = mischief or FaultInjection()
        self.images: dict[str, str] = {}
        self.pullable: dict[str, str] = {}
        self.foreign: dict[str, str] = {}
        self.unavailable = False
        self.auto_images = True
        self._wall = wall or (lambda: 1_700_000_000.0 + self._now())
        self._cells: dict[str, SimulatedContainer] = {}
        self._views: list[tuple[Container, ...]] = [()]
        self._projects: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._listeners: set[asyncio.Queue[str | None]] = set()
        self._serial = 0
        self._replaces: tuple[str, ...] = ()
        self._logs = ContainerLogs(self._prints)
        self.start_work = StartWorker()

    # --- changes by users and other programs -------------------------------------------------------

    def containers(self, service: str = "") -> tuple[Container, ...]:
        """Return the current containers, however stale observations are."""
        found = (cell.container for cell in self._cells.values())
        return tuple(c for c in found if not service or c.service == service)

    def add(self, container: Container) -> None:
        """Add a container, as Compose or a user would."""
        self._cells[container.id] = SimulatedContainer(container, ready_at=self._now())
        self._changed("create")

    def kill(self, service: str, exit_code: int = 137) -> None:
        """End the container's process."""
        for cell in list(self._cells.values()):
            if cell.container.service == service and cell.container.state in ALIVE:
                self._end(cell, exit_code)

    def stop(self, service: str, exit_code: int = 0) -> None:
        """Stop the containers of a service, as `docker stop` does; the process handles the signal."""
        for container in self.containers(service):
            if container.state in ALIVE:
                self.alter(container.id, stop_requested_at=self._wall())
                self._end(self._cells[container.id], exit_code)

    def alter(self, container: str, **fields: object) -> None:
        """Change any field of a container without the loop."""
        cell = self._cells[container]
        cell.container = replace(cell.container, **fields)  # type: ignore[arg-type]
        self._changed("alter")

    def drop(self, container: str) -> None:
        """Remove a container without the loop."""
        self._cells.pop(container).cancel()
        self._projects.pop(container, None)
        self._logs.forget(container)
        self._changed("destroy")

    def restart(self) -> None:
        """Restart the engine: all containers end; those with the policy ``always`` start again."""
        self._hang_up()
        for cell in list(self._cells.values()):
            if cell.container.state in ALIVE:
                self._end(cell, 255)
            if cell.container.restart in {"always", "unless-stopped"}:
                self._run(cell)

    def tag(self, image: str, image_id: str) -> None:
        """Tag another image with the reference, as after a build."""
        self.images[image] = image_id
        self._changed("tag")

    # --- internals ---------------------------------------------------------------------------------

    def _is_of(self, id: str, project: str) -> bool:
        """Whether a container belongs to the project; a container added by a test belongs to each."""
        return self._projects.get(id, (project, ()))[0] == project

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _behaviour(self, service: str) -> ContainerScript:
        return self.behaviours.get(service, PLAIN)

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

    def _set(self, cell: SimulatedContainer, event: str, **fields: object) -> None:
        cell.container = replace(cell.container, **fields)  # type: ignore[arg-type]
        self._logs.write(cell.container.id, f"{cell.container.service}: simulated {event}")
        self._changed(event)

    def _create(self, stack: Stack, service: Service, *, recreate: bool) -> None:
        """Create each missing container, or the successor of each existing one, as Compose does."""
        existing = [
            c.container
            for c in self._cells.values()
            if c.container.service == service.name and self._is_of(c.container.id, stack.name)
        ]
        if recreate and self._replaces and existing:
            existing = [c for c in existing if c.id in self._replaces]
            if not existing:
                raise ContainerGone(f"no container of {service.name} that was to be replaced")
        numbers = sorted({c.number for c in existing})
        if not recreate or not existing:
            following = max(numbers, default=0) + 1
            missing = max(1, service.replicas) - len(numbers)
            numbers = list(range(following, following + missing))
        for name in map(service.name_of, numbers):
            if name in self.foreign:
                raise StepFailed(f"the name {name} is taken", "name_conflict")
        if numbers and service.image not in self.images:
            raise PermanentStepFailure(f"no image {service.image}", "image_unavailable")
        for container in existing if recreate else ():
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
        self._cells[container.id] = SimulatedContainer(container, one_shot=ends)
        self._projects[container.id] = (stack.name, stack.files)
        self._changed("create")

    def _run(self, cell: SimulatedContainer) -> None:
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
            # The engine's own verdict comes a whole interval late, as with a real engine.
            verdict = max(30.0, behaviour.ready_after)
            cell.timers.append(loop.call_later(verdict, self._set_health, cell, Health.HEALTHY))
        if cell.one_shot:
            cell.timers.append(loop.call_later(ONE_SHOT, self._end, cell, 0))
        elif behaviour.exits_after is not None and behaviour.crashes > 0:
            behaviour.crashes -= 1
            cell.timers.append(loop.call_later(behaviour.exits_after, self._end, cell, behaviour.exit_code))

    def _set_health(self, cell: SimulatedContainer, health: Health) -> None:
        if cell.container.state is State.RUNNING:
            self._set(cell, "health_status", health=health)

    def _end(self, cell: SimulatedContainer, exit_code: int) -> None:
        cell.cancel()
        self._set(
            cell, "die", state=State.EXITED, exit_code=exit_code, finished_at=self._wall(), probed=False
        )
