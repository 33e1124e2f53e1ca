"""Runs the daemon's components as named tasks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from reconciler.daemon.keep_running import keep_up

log = logging.getLogger(__name__)

Component = Callable[[], Awaitable[None]]


class TaskRunner:
    """Starts components and watches that none of them ends before the daemon does."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, name: str, component: Component, *, restart: bool = True) -> None:
        """Start a component. After an error it is restarted, or else ends the daemon."""
        run = keep_up(name, component) if restart else _run(component)
        self._tasks[name] = asyncio.create_task(run, name=name)

    async def wait(self, stop: asyncio.Event) -> None:
        """Wait for ``stop``.

        Raises:
            SystemExit: a component ended earlier, which is a bug.
        """
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([stopped, *self._tasks.values()], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        for name, task in self._tasks.items():
            if task.done() and not task.cancelled():
                log.critical("a part of the daemon ended", extra={"part": name}, exc_info=task.exception())
                if not stop.is_set():
                    raise SystemExit(1)

    async def wait_for_end(self, *names: str, timeout: float) -> None:
        """Wait at most ``timeout`` seconds until the named components have ended."""
        await asyncio.wait([self._tasks[name] for name in names], timeout=timeout)

    async def cancel(self) -> None:
        """Cancel all components that still run, and wait for their end."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)


async def _run(component: Component) -> None:
    await component()
