"""Measures memory and CPU of what runs, off every reader's path: often while somebody looks, else seldom."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from reconciler.controller.loop import Loop
from reconciler.controller.snapshot import SnapshotPublisher
from reconciler.engine import Engine
from reconciler.errors import EngineError
from reconciler.model.observed import ALIVE

log = logging.getLogger(__name__)

WATCHED = 10.0
"""Seconds between samples while somebody looks."""
UNWATCHED = 30.0
"""And while nobody does."""
SETTLED = 1.0
"""And while nothing runs, at the least: a stack that starts does not do so all at once."""


class Sampler:
    """Feeds ``Loop.take_usage``. CPU is the use since the sample before, so the first one has none."""

    def __init__(self, engine: Engine, loop: Loop, snapshots: SnapshotPublisher) -> None:
        self._engine = engine
        self._loop = loop
        self._snapshots = snapshots

    async def run(self) -> None:
        """Sample until cancelled. An engine that does not answer is asked again later."""
        clock = asyncio.get_running_loop().time
        while True:
            began, serial = clock(), self._snapshots.current.serial
            if not await self._sample():
                # The first container to run is worth a look as soon as it does.
                await self._snapshots.newer_than(serial)
                await asyncio.sleep(SETTLED)
                continue
            await asyncio.sleep(max(0.0, began + WATCHED - clock()))
            if not self._snapshots.has_readers(clock(), UNWATCHED):
                # Whoever begins to look gets a fresh sample at once, not one of half a minute ago.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(began + UNWATCHED):
                        await self._snapshots.wait_for_reader()

    async def _sample(self) -> bool:
        """Whether there was anything to measure."""
        alive = tuple(c for c in self._loop.observed.containers if c.state in ALIVE)
        if not alive:
            return False
        try:
            self._loop.take_usage(await self._engine.stats(alive))
        except EngineError as error:
            log.debug("no measurement", extra={"error": str(error)})
        return True
