"""The audit log of one run of the daemon: begun before anything else, ended after everything else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from reconciler import __version__
from reconciler.audit import events, query
from reconciler.audit.events import StepRecorder, Target
from reconciler.audit.log import Audit, Entry
from reconciler.generations.store import Generations

log = logging.getLogger(__name__)


class AuditSession:
    """The log, and the chronicle that feeds it with what the loop does. ``wall``: the time of day, seconds.

    The chain's end is told to the daemon's own log when it ends: the journal keeps it where nobody who
    changes the state directory thinks of it.
    """

    def __init__(self, state_dir: Path, wall: Callable[[], float]) -> None:
        self._state_dir = state_dir
        self._wall = wall
        self._newest: Entry | None = None
        self._target: Callable[[], Target | None] = lambda: None
        self.audit = Audit(state_dir, wall=wall)
        self.chronicle = StepRecorder(self.audit.append, self._followed, wall)
        self.audit.subscribe(self._told)

    async def begin(self, generations: Generations, *, engine: str, address: str) -> None:
        """Start writing, and make up for what a crash kept out of the log."""
        before = await self.audit.latest("daemon_start", "daemon_stop")
        highest = await asyncio.to_thread(query.highest_generation, self._state_dir)
        self.audit.start()
        for record in generations.history():
            if highest is not None and record.generation > highest:
                fact = events.accepted(
                    record.reason,
                    user=record.author,
                    source="",
                    generation=record.generation,
                    groups=(),
                    changes=(*record.changes, "recorded after a crash"),
                    at=record.at,
                )
                self.audit.append(fact)
        crashed = before is not None and before.event.action == "daemon_start"
        self.audit.append(
            events.daemon_started(
                __version__, engine=engine, address=address, crashed=crashed, at=self._wall()
            )
        )

    def follow(self, target: Callable[[], Target | None]) -> None:
        """Ask here what the loop converges to."""
        self._target = target

    async def end(self, *, failed: bool) -> None:
        """Record the end, and write all that there is."""
        self.chronicle.close()
        self.audit.append(events.daemon_stopped(failed=failed, at=self._wall()))
        await asyncio.to_thread(self.audit.close)
        if self._newest is not None:
            told = {"id": self._newest.id, "hash": self._newest.hash.hex()}
            log.info("the audit log ends here", extra=told)
        if self.audit.lost:
            log.warning("audit entries were lost", extra={"count": self.audit.lost})

    def _followed(self) -> Target | None:
        return self._target()

    def _told(self, entries: Sequence[Entry]) -> None:
        self._newest = entries[-1]
