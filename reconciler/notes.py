"""What the daemon notes of its loop: how fresh the last look is, and how generations end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from reconciler.generations import Generations
from reconciler.progress import Progress

log = logging.getLogger(__name__)


def each(*hooks: Callable[..., None]) -> Callable[..., None]:
    """One hook that tells several, in order."""

    def tell(*told: object) -> None:
        for hook in hooks:
            hook(*told)

    return tell


class Passes:
    """When the last pass was that saw the engine: how fresh the snapshot is."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, seconds: float, outcome: str) -> None:
        """A pass is over; ``Hooks.passed``."""
        if outcome not in {"unreachable", "incomplete"}:
            self._last = time.monotonic()

    def age(self) -> float:
        """Seconds since then."""
        return time.monotonic() - self._last


class Ends:
    """Notes how generations end, in the state directory, off the loop's path and in order."""

    def __init__(self, generations: Generations, told: Callable[[Progress], None]) -> None:
        self._generations = generations
        self._told = told
        self._writing: asyncio.Task[None] | None = None

    def __call__(self, progress: Progress) -> None:
        """A generation ended; ``Hooks.ended``."""
        self._told(progress)
        before = self._writing
        self._writing = asyncio.create_task(self._note(progress, before))

    async def _note(self, progress: Progress, before: Awaitable[None] | None) -> None:
        if before is not None:
            await before
        try:
            await asyncio.to_thread(
                self._generations.finish,
                progress.generation,
                progress.state,
                progress.message,
                progress.ended_at,
            )
        except OSError as error:
            log.warning("the end of a generation can't be noted", extra={"error": str(error)})
