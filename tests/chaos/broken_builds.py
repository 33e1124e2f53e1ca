"""Broken builds of the daemon: each has one mistake that such daemons are known to have had.

They patch the running program (``launch.py``), so that nothing else changes. The suite has to find each
within forty rounds of the fault that reveals it; a build that it does not find is a gap in the suite.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple


class Build(NamedTuple):
    """``mistake``: what it does wrong; ``shown_by``: the fault or kind of fault that reveals it."""

    mistake: str
    shown_by: str
    spoil: Callable[[], None]


def _no_resync() -> None:
    from reconciler.daemon import components

    honest = components._timings
    components._timings = lambda *given: honest(*given)._replace(resync=1e9)


def _trusts_events() -> None:
    from reconciler.engine.docker.engine import DockerEngine

    look, hear, act = DockerEngine.observe, DockerEngine.events, DockerEngine.act
    last: dict[int, Any] = {}

    async def observe(self: DockerEngine, stack: Any, *, full: bool = False) -> Any:
        if id(self) not in last:
            last[id(self)] = await look(self, stack, full=True)
        # Without an event, nothing has happened.
        return replace(last[id(self)], began=time.monotonic(), at=time.monotonic())

    async def events(self: DockerEngine, stack: Any) -> AsyncIterator[str]:
        async for text in hear(self, stack):
            last.pop(id(self), None)
            yield text

    async def acted(self: DockerEngine, command: Any, stack: Any) -> None:
        try:
            await act(self, command, stack)
        finally:
            last.pop(id(self), None)

    DockerEngine.observe, DockerEngine.events, DockerEngine.act = observe, events, acted  # type: ignore[assignment,method-assign]


def _repeats_blindly() -> None:
    from reconciler.engine.docker.engine import DockerEngine
    from reconciler.errors import EngineError
    from reconciler.model.observed import Action

    act = DockerEngine.act

    async def acted(self: DockerEngine, command: Any, stack: Any) -> None:
        try:
            await act(self, command, stack)
        except EngineError:
            if command.action not in {Action.CREATE, Action.RECREATE}:
                raise
            # Ignore the result of the first: create it (again).
            await act(self, command._replace(action=Action.RECREATE), stack)

    DockerEngine.act = acted  # type: ignore[method-assign]


def _goes_by_names() -> None:
    from reconciler.engine.docker.engine import DockerEngine

    look = DockerEngine.observe

    async def observe(self: DockerEngine, stack: Any, *, full: bool = False) -> Any:
        seen = await look(self, stack, full=full)
        names = {service.container_name for service in stack.services.values()}
        return replace(seen, containers=tuple(c for c in seen.containers if c.name in names))

    DockerEngine.observe = observe  # type: ignore[method-assign]


def _waits_by_the_wall_clock() -> None:
    from reconciler.controller.loop import Loop
    from reconciler.model.ledger import Clock

    Loop._now = lambda self: Clock(self._wall(), self._wall())  # type: ignore[method-assign]


def _never_syncs() -> None:
    os.fsync = lambda _: None  # type: ignore[assignment]


def _acts_on_half_a_look() -> None:
    from reconciler.engine.docker.engine import DockerEngine
    from reconciler.errors import EngineError
    from reconciler.model.observed import ObservedState

    look = DockerEngine.observe

    async def observe(self: DockerEngine, stack: Any, *, full: bool = False) -> Any:
        began = time.monotonic()
        try:
            seen = await look(self, stack, full=full)
        except EngineError:
            images = {service.image: "?" for service in stack.services.values()}
            return ObservedState(images=images, began=began, at=time.monotonic())
        return replace(seen, complete=True)

    DockerEngine.observe = observe  # type: ignore[method-assign]


def _two_composes_at_once() -> None:
    from reconciler.controller import executor
    from reconciler.engine.compose import engine

    class NoLock:
        async def __aenter__(self) -> None:
            await asyncio.sleep(0)

        async def __aexit__(self, *_: object) -> None:
            pass

    @contextlib.asynccontextmanager
    async def unlocked(path: Path, patience: float) -> AsyncIterator[int]:
        descriptor = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    engine.hold_lock = unlocked
    engine.asyncio = type("asyncio", (), {**vars(asyncio), "Lock": NoLock})  # type: ignore[attr-defined]
    executor.BATCHED = frozenset()
    executor._KIND = {}


def _ignores_dependencies() -> None:
    from reconciler.planning.rules import decision, recreation

    for module in (decision, recreation):
        module.unmet_dependency = lambda *_: None  # type: ignore[attr-defined]


BUILDS = {
    "no-resync": Build("never observes without a trigger", "lose events of a kill", _no_resync),
    "trusts-events": Build("ignores changes without an event", "lose events of a kill", _trusts_events),
    "repeats-blindly": Build(
        "makes a container again where no answer came", "lost creates", _repeats_blindly
    ),
    "goes-by-names": Build("knows its containers by their names", "rename", _goes_by_names),
    "wall-clock": Build("waits by the wall clock", "clock jumps", _waits_by_the_wall_clock),
    "no-fsync": Build("acknowledges what is not on the disk", "kill", _never_syncs),
    "half-a-look": Build("acts on a look that was cut short", "lists fail", _acts_on_half_a_look),
    "heedless": Build("starts before what is needed is ready", "remove several", _ignores_dependencies),
    "two-composes": Build("runs Compose side by side", "remove several", _two_composes_at_once),
}
