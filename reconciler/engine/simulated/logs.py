"""Simulated logs: a line for every event of a container, kept as an engine keeps its logs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable

_KEPT = 1000


class ContainerLogs:
    """Lines by container. ``running`` returns whether a container may still print."""

    def __init__(self, running: Callable[[str], bool]) -> None:
        self._running = running
        self._lines: dict[str, deque[str]] = {}
        self._written: dict[str, int] = {}
        self._news = asyncio.Event()

    def write(self, container: str, line: str) -> None:
        """Add a line to the container's log."""
        self._lines.setdefault(container, deque(maxlen=_KEPT)).append(line)
        self._written[container] = self._written.get(container, 0) + 1
        self.wake()

    def forget(self, container: str) -> None:
        """Delete the log of a removed container."""
        self._lines.pop(container, None)
        self._written.pop(container, None)
        self.wake()

    def wake(self) -> None:
        """Wake followers to check whether the container still runs."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def read(self, container: str, tail: int, *, follow: bool) -> AsyncGenerator[str, None]:
        """Yield the last ``tail`` lines, and with ``follow`` later ones until the container ends."""
        held = self._lines.get(container, ())
        seen = self._written.get(container, 0)
        for line in list(held)[max(0, len(held) - tail) :]:
            yield line
        while follow:
            news, fresh = self._news, self._written.get(container, 0) - seen
            if fresh > 0:
                seen += fresh
                held = self._lines[container]
                for line in list(held)[max(0, len(held) - fresh) :]:
                    yield line
            elif not self._running(container):
                return
            else:
                await news.wait()
