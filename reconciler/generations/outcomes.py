"""Hooks of the loop: when the last pass observed the engine, and how generations end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from reconciler.controller.progress import Progress
from reconciler.controller.progress_codec import decode_progress, encode_progress
from reconciler.controller.snapshot import REMEMBERED, SnapshotPublisher
from reconciler.generations.record import Record
from reconciler.generations.store import Generations
from reconciler.host.untrusted import MALFORMED

log = logging.getLogger(__name__)


def fan_out(*hooks: Callable[..., None]) -> Callable[..., None]:
    """Combine several hooks into one that calls them in order."""

    def call(*arguments: object) -> None:
        for hook in hooks:
            hook(*arguments)

    return call


class LastPass:
    """Time of the last pass that observed the engine. ``any``: whether there was a pass at all."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self.any = False

    def __call__(self, seconds: float, outcome: str) -> None:
        """Record the end of a pass; used as ``LoopHooks.on_pass``."""
        self.any = True
        if outcome not in {"unreachable", "incomplete"}:
            self._last = time.monotonic()

    def age(self) -> float:
        """Return the seconds since that pass."""
        return time.monotonic() - self._last


def final_progress(record: Record, newest: int) -> Progress | None:
    """Return how a generation ended, from its record; None: it has not. ``newest`` is the current number."""
    if record.outcome:
        try:
            return decode_progress(record.generation, record.progress)
        except MALFORMED:
            # Written by an earlier version, or by hand: the steps are lost, the outcome is not.
            return Progress(
                generation=record.generation,
                state=record.outcome,
                message=record.outcome_reason,
                began_at=record.at,
                ended_at=record.finished_at,
            )
    if record.generation < newest:
        # The daemon did not run when the generation was superseded.
        return Progress(generation=record.generation, state="superseded", began_at=record.at)
    return None


def publish_outcomes(generations: Generations, snapshots: SnapshotPublisher) -> None:
    """Publish the outcomes of generations that ended in earlier runs of the daemon."""
    records = generations.history()
    for record in records[-REMEMBERED:]:
        progress = final_progress(record, records[-1].generation)
        if progress is not None:
            snapshots.publish_outcome(progress)


class OutcomeRecorder:
    """Records how generations end in the state directory, in order and without delaying the loop.

    ``publish`` is called first, at once.
    """

    def __init__(self, generations: Generations, publish: Callable[[Progress], None]) -> None:
        self._generations = generations
        self._publish = publish
        self._writing: asyncio.Task[None] | None = None

    def __call__(self, progress: Progress) -> None:
        """Record the end of a generation; used as ``LoopHooks.on_generation_end``."""
        self._publish(progress)
        before = self._writing
        self._writing = asyncio.create_task(self._record(progress, before))

    async def _record(self, progress: Progress, before: Awaitable[None] | None) -> None:
        if before is not None:
            await before
        try:
            await asyncio.to_thread(
                self._generations.record_outcome,
                progress.generation,
                progress.state,
                progress.message,
                progress.ended_at,
                encode_progress(progress),
            )
        except OSError as error:
            log.warning("the outcome of a generation can't be recorded", extra={"error": str(error)})
