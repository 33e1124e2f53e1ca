"""Samples memory and CPU of running containers in the background, more often while there are readers."""

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
"""Seconds between samples while there are readers."""
UNWATCHED = 30.0
"""Seconds between samples without readers."""
SETTLED = 1.0
"""Minimum seconds between samples while nothing runs: a stack starts step by step."""


class Sampler:
    """Feeds ``Loop.take_usage``. CPU is the usage since the previous sample; the first one has none."""

    def __init__(self, engine: Engine, loop: Loop, snapshots: SnapshotPublisher) -> None:
        self._engine = engine
        self._loop = loop
        self._snapshots = snapshots

    async def run(self) -> None:
        """Sample until cancelled; after an engine error, try again."""
        clock = asyncio.get_running_loop().time
        while True:
            began, serial = clock(), self._snapshots.current.serial
            if not await self._sample():
                # Sample as soon as the first container runs.
                await self._snapshots.newer_than(serial)
                await asyncio.sleep(SETTLED)
                continue
            await asyncio.sleep(max(0.0, began + WATCHED - clock()))
            if not self._snapshots.has_readers(clock(), UNWATCHED):
                # A new reader gets a fresh sample at once, not one from 30 s ago.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(began + UNWATCHED):
                        await self._snapshots.wait_for_reader()

    async def _sample(self) -> bool:
        """Take one sample; False if no container runs."""
        alive = tuple(c for c in self._loop.observed.containers if c.state in ALIVE)
        if not alive:
            return False
        try:
            self._loop.take_usage(await self._engine.stats(alive))
        except EngineError as error:
            log.debug("no measurement", extra={"error": str(error)})
        return True
