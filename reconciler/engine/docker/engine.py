"""Implements the engine port for the Docker Engine.

Combines the parts: observation, streams and probes use ``http``, creation and builds use Compose, commands
for single containers use the SDK (``container_commands``). Translates the engine's refusals into errors.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

from reconciler.engine.compose.discovery import config_directory
from reconciler.engine.compose.engine import ComposeRunner
from reconciler.engine.compose.labels import Labels
from reconciler.engine.docker import usage
from reconciler.engine.docker.address import find_address
from reconciler.engine.docker.container_commands import ContainerCommands
from reconciler.engine.docker.http import DockerHttp, Refused
from reconciler.engine.docker.identity import Identity
from reconciler.engine.docker.logs import log_lines
from reconciler.engine.docker.observe import Observer
from reconciler.engine.docker.parse import state_from
from reconciler.engine.docker.probe import HealthExec
from reconciler.engine.docker.projects import left_behind
from reconciler.engine.docker.refusals import is_done, is_missing, refusal_error
from reconciler.engine.docker.service_commands import ServiceCommands
from reconciler.engine.docker.start.definition import Definition, definition_of
from reconciler.engine.docker.start.hooks import post_start, pre_stop
from reconciler.engine.docker.start.inject import Injector
from reconciler.engine.docker.start.pre_start import PreStart
from reconciler.engine.docker.streams import Events
from reconciler.engine.docker.thread_pool import DaemonThreadPool, NotStarted
from reconciler.engine.error_reasons import failure
from reconciler.errors import ContainerGone, EngineError, EngineUnavailable, StepFailed
from reconciler.model.capabilities import ALL, Capabilities, Capability
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

_EVENT_WITHIN = 10.0
"""Seconds after a command within which an event must arrive; otherwise the stream is dead."""
_STATS_WITHIN = 4.0


class DockerEngine:
    """One Docker Engine, at the address that the docker CLI would use.

    ``state_directory`` holds the Compose lock and must outlive the daemon. ``environ`` says where engine and
    Compose are. ``patience`` is the number of seconds that a read may take.
    """

    def __init__(
        self, state_directory: Path, *, environ: Mapping[str, str] | None = None, patience: float = 10.0
    ) -> None:
        surroundings = dict(os.environ if environ is None else environ)
        self._address = find_address(surroundings)
        self._config = config_directory(surroundings) / "config.json"
        self._http = DockerHttp(self._address, patience)
        self._observer = Observer(self._http, self.capabilities)
        self._identity = Identity(self._http)
        self._health_exec = HealthExec(self._http)
        self._cpu_meter = usage.CpuMeter()
        self._compose = ComposeRunner(state_directory, surroundings)
        self._labels = Labels(self._compose.compose, surroundings)
        self._events: set[Events] = set()
        self._commands = ContainerCommands(self._http)
        self._services = ServiceCommands(
            self._http, self._observer, self._compose, self._commands, self._config
        )
        self._injector = Injector(self._http, lambda: self._commands.all_credentials(self._config))
        self._pre_start = PreStart(self._http, lambda image: self._services.pull_one(image, ""))
        self._file_threads = DaemonThreadPool("cgroup-files", 1)

    async def info(self) -> EngineInfo:
        """See ``Engine.info``."""
        try:
            version = await self._http.get("/version")
            host = await self._http.get("/info")
        except Refused as error:
            raise EngineUnavailable(str(error)) from error
        try:
            compose = (await self._compose.compose()).version
        except StepFailed:
            compose = ""
        kind, number = _product(version)
        return EngineInfo(
            kind=kind,
            version=number,
            api=await self._http.negotiate(),
            compose=compose,
            address=self._address.url,
            memory=int(host.get("MemTotal") or 0),
            cpus=int(host.get("NCPU") or 0),
        )

    async def observe(self, stack: Stack, *, full: bool = False) -> ObservedState:
        """See ``Engine.observe``."""
        return await self._labels.add_to(await self._observer.refresh(stack, full=full), stack)

    async def left_behind(self, stack: Stack, former: str = "") -> tuple[LeftBehind, ...]:
        """See ``Engine.left_behind``."""
        entries = await self._observer.listed()
        return await left_behind(
            self._http, self._identity, entries, stack, former, local=bool(self._address.socket)
        )

    async def events(self, stack: Stack) -> AsyncGenerator[str, None]:
        """See ``Engine.events``."""
        events = Events(self._http, self._observer, stack)
        self._events.add(events)
        try:
            async with aclosing(events.lines()) as texts:
                async for text in texts:
                    yield text
        finally:
            self._events.discard(events)

    async def act(self, command: Command, stack: Stack) -> str:
        """See ``Engine.act``."""
        remark = ""
        try:
            match command.action:
                case Action.CREATE | Action.RECREATE:
                    await self._services.create(stack, command)
                case Action.BUILD:
                    await self._compose.build(stack, command.services)
                case Action.PULL:
                    await self._services.pull(stack, command.services)
                case Action.STOP:
                    remark = await self._before_stop(command, stack)
                    with self._observer.holding(command.container, stopping=True):
                        await self._stop(command)
                case Action.REMOVE:
                    await self._remove(command)
                case Action.START:
                    await self._before_start(command, stack)
                    with self._observer.holding(command.container):
                        await self._send(command)
                case Action.POST_START:
                    await post_start(self._http, command.container, await self._definition(command, stack))
                case _:
                    await self._send(command)
        finally:
            # Also after an error: the next observation must not rely on the list and on events alone.
            self._observer.invalidate(command.container)
            if command.action in {Action.BUILD, Action.PULL}:
                # Docker 20.10 sends no event for the tag that BuildKit creates.
                self._observer.invalidate_images()
        return remark

    async def probe(self, container: Container, timeout: float) -> bool:
        """See ``Engine.probe``."""
        return await self._health_exec.probe(container, timeout)

    async def stats(self, containers: tuple[Container, ...]) -> Mapping[str, Usage]:
        """See ``Engine.stats``."""
        alive = [container for container in containers if container.state in ALIVE]
        samples: dict[Container, usage.UsageSample] = {}
        if self._address.socket:
            with contextlib.suppress(TimeoutError, NotStarted):
                samples = await self._file_threads.run(lambda: usage.read_all(alive), _STATS_WITHIN)
        others = [container for container in alive if container not in samples]
        results = await asyncio.gather(*(self._sample(container) for container in others))
        samples |= {c: sample for c, sample in zip(others, results, strict=True) if sample is not None}
        return self._cpu_meter.usage(samples)

    async def logs(
        self, container: str, *, tail: int = 100, follow: bool = False
    ) -> AsyncGenerator[str, None]:
        """See ``Engine.logs``."""
        async with aclosing(log_lines(self._http, container, tail, follow)) as lines:
            async for line in lines:
                yield line

    @property
    def capabilities(self) -> Capabilities:
        """All, but not the files of this host if the engine is reached over the network."""
        return ALL if self._address.socket else ALL - {Capability.HOST_FILES}

    async def close(self) -> None:
        """See ``Engine.close``."""
        await self._http.close()
        self._commands.close()

    async def _sample(self, container: Container) -> usage.UsageSample | None:
        path = f"/containers/{container.id}/stats"
        try:
            stats = await self._http.get(path, within=_STATS_WITHIN, stream=False, **{"one-shot": True})
        except (EngineError, Refused):
            return None
        return usage.from_api(stats or {})

    # --- Compose's work before a start and a stop ---

    async def _definition(self, command: Command, stack: Stack) -> Definition:
        known = self._observer.is_known(command.container)
        made_from = known.model if known else ""
        return await asyncio.to_thread(definition_of, stack, command.services[0], made_from)

    async def _before_start(self, command: Command, stack: Stack) -> None:
        known, service = self._observer.is_known(command.container), command.services[0]
        if known is not None and known.state in ALIVE:
            # Another client has started it in the meantime, and has done all this.
            return
        definition = await self._definition(command, stack)
        if definition.work.pre_start:
            await self._pre_start.run(command.container, stack.name, service, definition)
        await self._injector.inject(command.container, service, definition)

    async def _before_stop(self, command: Command, stack: Stack) -> str:
        known = self._observer.is_known(command.container)
        if known is None or known.state is not State.RUNNING:
            return ""
        try:
            definition = await self._definition(command, stack)
        except StepFailed as error:
            return f"pre_stop hooks are not known: {error}"
        return await pre_stop(self._http, command.container, definition, grace=command.grace)

    # --- commands for one container ---

    async def _send(self, command: Command) -> None:
        began = asyncio.get_running_loop().time()
        try:
            await self._commands.execute(command)
        except Refused as error:
            if is_done(command.action, error):
                return
            if is_missing(error):
                raise ContainerGone(f"container {command.container[:12]} is gone") from error
            raise await refusal_error(self._http, str(error)) from error
        self._expect_event(command, began)

    async def _stop(self, command: Command) -> None:
        await self._send(command)
        state = await self._state(command.container)
        if state in ALIVE:
            # The engine reports "stopped" for a container that its restart policy is about to restart.
            message = f"the engine stopped container {command.container[:12]}, but it is {state}"
            raise StepFailed(message, "still_running")

    async def _remove(self, command: Command) -> None:
        began = asyncio.get_running_loop().time()
        try:
            await self._commands.execute(command)
        except Refused as error:
            if is_done(command.action, error):
                return
            if error.status != 409 or "already in progress" not in str(error):
                raise await refusal_error(self._http, str(error)) from error
            with contextlib.suppress(Refused):
                await self._commands.wait_until_removed(command.container)
        self._expect_event(command, began)

    async def _state(self, id: str) -> State | None:
        try:
            seen = await self._http.get(f"/containers/{id}/json")
        except Refused as error:
            if error.status == 404:
                return None
            raise failure(str(error)) from error
        state = seen.get("State") if isinstance(seen, Mapping) else None
        return state_from(state.get("Status")) if isinstance(state, Mapping) else State.UNKNOWN

    def _expect_event(self, command: Command, began: float) -> None:
        known = self._observer.is_known(command.container)
        changes = command.action is Action.REMOVE or (
            command.action is Action.START and known is not None and known.state not in ALIVE
        )
        if changes:
            for events in self._events:
                events.expect_event(began, _EVENT_WITHIN)


def _product(version: Mapping[str, Any]) -> tuple[str, str]:
    """Return the engine's kind and version: what answers at Docker's socket may be Podman."""
    components = version.get("Components")
    for component in components if isinstance(components, list) else ():
        if isinstance(component, Mapping) and component.get("Name") == "Podman Engine":
            return "podman", str(component.get("Version") or "")
    return "docker", str(version.get("Version") or "")
