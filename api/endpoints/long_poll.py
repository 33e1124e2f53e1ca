"""Waiting for snapshots: for one newer than another, for a generation to end, for the daemon to go down."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from api.context import Context
from api.wire.views import state_of
from reconciler.controller.progress import Progress
from reconciler.controller.snapshot import SnapshotPublisher


async def is_finished(context: Context, generation: int, seconds: float) -> Progress:
    """How far a generation is once it ended, or after ``seconds``, or when the daemon goes down.

    A generation that the loop has not taken in yet counts as having done nothing so far.
    """
    snapshots = context.snapshots
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        seen = snapshots.current
        one = find_generation(snapshots, generation)
        left = deadline - asyncio.get_running_loop().time()
        if state_of(one, seen.generation) != "progressing" or left <= 0 or context.closing.is_set():
            return one
        await wait_newer(context, seen.serial, left)


def find_generation(snapshots: SnapshotPublisher, generation: int) -> Progress:
    """What is known of a generation; one of which nothing is known has only just been accepted."""
    return snapshots.progress(generation) or Progress(generation=generation)


async def wait_newer(context: Context, serial: int, seconds: float | None = None) -> bool:
    """Wait for a snapshot after ``serial``. False: ``seconds`` are over, or the daemon goes down first."""
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
