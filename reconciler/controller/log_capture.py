"""Saves a container's last log lines before it is removed. Wraps the engine for the loop.

The caller passes the function that saves (``crash_logs``); this module decides when: after an exit that the
daemon did not cause, before the next start, and before the container is recreated or removed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from reconciler.model.ledger import Ledger
from reconciler.model.observed import Action, Command, Container
from reconciler.model.stack import Stack

Keep = Callable[[Container], Awaitable[None]]
"""Saves the log of a container; takes seconds at most, and never raises."""

Act = Callable[[Command, Stack], Awaitable[str]]

_LOSE = frozenset({Action.RECREATE, Action.REMOVE})
"""Actions that delete a container's log."""


class LogCapturingEngine:
    """``act`` carries out commands, ``seen`` returns the containers of the last observation."""

    def __init__(self, keep: Keep | None, act: Act, seen: Callable[[], Iterable[Container]]) -> None:
        self._keep = keep
        self._act = act
        self._seen = seen
        self._keeping: dict[str, asyncio.Task[None]] = {}

    def capture(self, before: Ledger, after: Ledger) -> None:
        """Start saving the log of every container whose exit is new in ``after``."""
        if self._keep is None or after.exits is before.exits:
            return
        ended = {end.container for name, end in after.exits.items() if before.exits.get(name) != end}
        for container in self._seen():
            if container.id in ended:
                self._keeping[container.id] = asyncio.create_task(self._end(container), name="evidence")

    async def act(self, command: Command, stack: Stack) -> str:
        """Carry out a command after saving the logs it would delete; returns the result of ``Engine.act``."""
        under_way = self._keeping.get(command.container)
        if under_way is not None:
            # Otherwise lines of the next run would displace those before the exit.
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
