"""Saves a container's last log lines before it is removed. Wraps the engine for the loop.

Saves after an exit that the daemon did not cause, and before the container is recreated or removed. A
command for a container waits until the log of its last exit is saved. ``crash_logs`` saves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from reconciler.model.ledger import Ledger
from reconciler.model.observed import Action, Command, Container
from reconciler.model.stack import Stack

SaveLog = Callable[[Container], Awaitable[None]]
"""Saves the log of a container; takes seconds at most, and never raises."""

Act = Callable[[Command, Stack], Awaitable[str]]

_DELETES_LOG = frozenset({Action.RECREATE, Action.REMOVE})
"""Actions that delete a container's log."""


class LogCapturingEngine:
    """``act`` carries out commands, ``containers`` returns the containers of the last observation."""

    def __init__(
        self, save_log: SaveLog | None, act: Act, containers: Callable[[], Iterable[Container]]
    ) -> None:
        self._save_log = save_log
        self._act = act
        self._containers = containers
        self._saving: dict[str, asyncio.Task[None]] = {}

    def capture(self, before: Ledger, after: Ledger) -> None:
        """Start saving the log of every container whose exit is new in ``after``."""
        if self._save_log is None or after.exits is before.exits:
            return
        ended = {end.container for name, end in after.exits.items() if before.exits.get(name) != end}
        for container in self._containers():
            if container.id in ended:
                self._saving[container.id] = asyncio.create_task(self._save_exit(container), name="evidence")

    async def act(self, command: Command, stack: Stack) -> str:
        """Carry out a command after saving the logs it would delete; returns the result of ``Engine.act``."""
        saving = self._saving.get(command.container)
        if saving is not None:
            # Wait, so that lines of the next run do not replace those before the exit.
            await asyncio.wait([saving])
        if self._save_log is not None and command.action in _DELETES_LOG:
            await asyncio.gather(*(self._save_log(c) for c in self._containers() if _is_lost(c, command)))
        return await self._act(command, stack)

    async def _save_exit(self, container: Container) -> None:
        assert self._save_log is not None
        try:
            await self._save_log(container)
        finally:
            self._saving.pop(container.id, None)


def _is_lost(container: Container, command: Command) -> bool:
    if not container.started_at:
        return False
    if command.container and len(command.services) == 1:
        return container.id == command.container
    return container.service in command.services
