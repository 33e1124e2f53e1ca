"""The audit log of one run of the daemon: opened first, closed last."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from reconciler import __version__
from reconciler.audit import events, query
from reconciler.audit.event_stream import AuditEventStream
from reconciler.audit.events import StepRecorder
from reconciler.audit.log import Audit, Entry
from reconciler.generations.store import Generations
from reconciler.model.accepted_state import AcceptedState

log = logging.getLogger(__name__)


class AuditSession:
    """The stream of audit events, the log that stores them, and the recorder of the loop's steps.

    ``wall`` returns the time of day in seconds. Every component publishes to ``events``; a further subscriber
    is one line: ``session.events.subscribe(subscriber)``.

    At the end the daemon logs the head of the hash chain: the journal keeps it apart from the state
    directory, so that a manipulated log can be detected.
    """

    def __init__(self, state_dir: Path, wall: Callable[[], float]) -> None:
        self._state_dir = state_dir
        self._wall = wall
        self._newest: Entry | None = None
        self._target: Callable[[], AcceptedState | None] = lambda: None
        self.events = AuditEventStream()
        self.audit = Audit(state_dir, wall=wall)
        self.events.subscribe(self.audit.on_event)
        self.step_recorder = StepRecorder(self.events.publish, self._followed, wall)
        self.audit.subscribe(self._on_entries)

    async def begin(self, generations: Generations, *, engine: str, address: str) -> None:
        """Start writing, and add the generations that a crash kept out of the log."""
        before = await self.audit.latest("daemon_start", "daemon_stop")
        highest = await asyncio.to_thread(query.highest_generation, self._state_dir)
        self.audit.start()
        for record in generations.history():
            if highest is not None and record.generation > highest:
                event = events.accepted(
                    record.cause,
                    user=record.author,
                    source="",
                    generation=record.generation,
                    groups=(),
                    changes=(*record.changes, "recorded after a crash"),
                    at=record.at,
                )
                self.events.publish(event)
        crashed = before is not None and before.event.action == "daemon_start"
        self.events.publish(
            events.daemon_started(
                __version__, engine=engine, address=address, crashed=crashed, at=self._wall()
            )
        )

    def follow(self, target: Callable[[], AcceptedState | None]) -> None:
        """Set the function that returns the loop's current target."""
        self._target = target

    async def end(self, *, failed: bool) -> None:
        """Record the end and write all pending entries."""
        self.step_recorder.close()
        self.events.publish(events.daemon_stopped(failed=failed, at=self._wall()))
        await asyncio.to_thread(self.audit.close)
        if self._newest is not None:
            head = {"id": self._newest.id, "hash": self._newest.hash.hex()}
            log.info("the audit log ends here", extra=head)
        if self.audit.lost:
            log.warning("audit entries were lost", extra={"count": self.audit.lost})

    def _followed(self) -> AcceptedState | None:
        return self._target()

    def _on_entries(self, entries: Sequence[Entry]) -> None:
        self._newest = entries[-1]
