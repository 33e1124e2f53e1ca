"""Sees to it that no container goes before its last words are kept. Between the loop and its engine.

What keeping means is handed in (``crash_logs``); here is only when: once a container is known to have ended
by itself, before it is started again, and before it is remade or removed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from reconciler.model.ledger import Ledger
from reconciler.model.observed import Action, Command, Container
from reconciler.model.stack import Stack

Keep = Callable[[Container], Awaitable[None]]
"""Keeps the evidence of a container before it is gone; takes seconds at most, and never raises."""

Act = Callable[[Command, Stack], Awaitable[str]]

_LOSE = frozenset({Action.RECREATE, Action.REMOVE})
"""What takes a container's log away."""


class LogCapturingEngine:
    """``act`` carries out orders, ``seen`` gives the containers as they were last observed."""

    def __init__(self, keep: Keep | None, act: Act, seen: Callable[[], Iterable[Container]]) -> None:
        self._keep = keep
        self._act = act
        self._seen = seen
        self._keeping: dict[str, asyncio.Task[None]] = {}

    def capture(self, before: Ledger, after: Ledger) -> None:
        """Have the log kept of every container that is newly known to have ended by itself."""
        if self._keep is None or after.exits is before.exits:
            return
        ended = {end.container for name, end in after.exits.items() if before.exits.get(name) != end}
        for container in self._seen():
            if container.id in ended:
                self._keeping[container.id] = asyncio.create_task(self._end(container), name="evidence")

    async def act(self, command: Command, stack: Stack) -> str:
        """Carry out an order, once what it would lose is kept; returns what ``Engine.act`` does."""
        under_way = self._keeping.get(command.container)
        if under_way is not None:
            # Or its last words would drown in those of its next run.
            await asyncio.wait([under_way])
        if self._keep is not None and command.action in _LOSE:
            await asyncio.gather(*(self._keep(c) for c in self._seen() if _is_lost(c, command)))
        return await self._act(command, stack)

    async def _end(self, container: Container) -> None:
        assert self._keep is not None
        try:
            await self._keep(container)
        finally:
            self._keeping.pop(container.id, None)


def _is_lost(container: Container, command: Command) -> bool:
    if not container.started_at:
        return False
    if command.container and len(command.services) == 1:
        return container.id == command.container
    return container.service in command.services
