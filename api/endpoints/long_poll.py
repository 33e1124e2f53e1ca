"""Long polls: wait for a newer snapshot, the end of a generation, or the shutdown of the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from api.context import Context
from api.wire.views import state_of
from reconciler.controller.progress import Progress
from reconciler.controller.snapshot import SnapshotPublisher


async def wait_finished(context: Context, generation: int, seconds: float) -> Progress:
    """Wait until a generation has ended, ``seconds`` have passed or the daemon shuts down.

    Returns the progress of the generation; it is empty if the loop has not adopted the generation yet.
    """
    snapshots = context.snapshots
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        seen = snapshots.current
        progress = find_generation(snapshots, generation)
        left = deadline - asyncio.get_running_loop().time()
        if state_of(progress, seen.generation) != "progressing" or left <= 0 or context.closing.is_set():
            return progress
        await wait_newer(context, seen.serial, left)


def find_generation(snapshots: SnapshotPublisher, generation: int) -> Progress:
    """Return the progress of a generation; empty if it is unknown, because it has only just been accepted."""
    return snapshots.progress(generation) or Progress(generation=generation)


async def wait_newer(context: Context, serial: int, seconds: float | None = None) -> bool:
    """Wait for a snapshot after ``serial``; return False after ``seconds`` or if the daemon shuts down."""
    if context.snapshots.current.serial > serial:
        return True
    waits = [_task(context.snapshots.newer_than(serial)), _task(context.closing.wait())]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return context.snapshots.current.serial > serial
    finally:
        for wait in waits:
            wait.cancel()


def _task(waits: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(waits)
