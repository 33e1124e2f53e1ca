"""What the daemon notes of its loop: how fresh the last look is, and how generations end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from reconciler.controller.progress import Progress, progress_from_json, progress_to_json
from reconciler.controller.snapshot import REMEMBERED, SnapshotPublisher
from reconciler.generations.records import Record
from reconciler.generations.store import Generations
from reconciler.host.untrusted import MALFORMED
from reconciler.model.json_text import load_json

log = logging.getLogger(__name__)


def each(*hooks: Callable[..., None]) -> Callable[..., None]:
    """One hook that tells several, in order."""

    def tell(*told: object) -> None:
        for hook in hooks:
            hook(*told)

    return tell


class LastPass:
    """When the last pass was that saw the engine: how fresh the snapshot is. ``any``: there was a pass."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self.any = False

    def __call__(self, seconds: float, outcome: str) -> None:
        """A pass is over; ``Hooks.passed``."""
        self.any = True
        if outcome not in {"unreachable", "incomplete"}:
            self._last = time.monotonic()

    def age(self) -> float:
        """Seconds since then."""
        return time.monotonic() - self._last


def ended(record: Record, newest: int) -> Progress | None:
    """How a generation ended, by its record; None: it has not. ``newest`` is the number that holds."""
    if record.outcome:
        try:
            return progress_from_json(record.generation, load_json(record.progress))
        except MALFORMED:
            # Written by an earlier version, or by hand: how it came about is lost, how it ended is not.
            return Progress(
                generation=record.generation,
                state=record.outcome,
                message=record.outcome_reason,
                began_at=record.at,
                ended_at=record.finished_at,
            )
    if record.generation < newest:
        # The daemon was not there any more when it was overtaken.
        return Progress(generation=record.generation, state="superseded", began_at=record.at)
    return None


def remember(generations: Generations, snapshots: SnapshotPublisher) -> None:
    """Have readers told of what earlier runs of the daemon brought to its end."""
    records = generations.history()
    for record in records[-REMEMBERED:]:
        one = ended(record, records[-1].generation)
        if one is not None:
            snapshots.publish_outcome(one)


class OutcomeRecorder:
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
                self._generations.record_outcome,
                progress.generation,
                progress.state,
                progress.message,
                progress.ended_at,
                progress_to_json(progress),
            )
        except OSError as error:
            log.warning("the end of a generation can't be noted", extra={"error": str(error)})
