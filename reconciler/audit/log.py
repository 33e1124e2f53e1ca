"""The audit log of a running daemon: one thread that writes, everybody else only hands over.

Whatever the disk does, no caller waits but one who asked to, and converging goes on: facts that can't be
written are held and tried again, those that there is no room to hold are counted, and the count is an entry.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

from reconciler.audit import query as audit_read
from reconciler.audit.chain import AuditEvent, Entry
from reconciler.audit.database import Retention
from reconciler.audit.maintenance import AuditWriter
from reconciler.audit.query import Query
from reconciler.audit.rate_limit import Coalescer

__all__ = ["Audit", "AuditEvent", "Entry", "Query", "Retention"]

log = logging.getLogger(__name__)

Listener = Callable[[Sequence[Entry]], None]
"""Called with entries that are on the disk, in the writer's thread; returns at once."""


class WriterTimings(NamedTuple):
    """Seconds: how long facts nobody waits for are gathered into one write; pauses after a write that
    failed (the last one repeats); ``cut`` and ``sync`` as for ``AuditWriter``. ``held``: facts that wait for
    a disk, at the most; ``batch``: facts in one write."""

    gather: float = 0.1
    again: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0, 30.0)
    cut: float = 3600.0
    sync: float = 5.0
    held: int = 5000
    batch: int = 500


class _Waiting(NamedTuple):
    fact: AuditEvent
    done: Future[bool] | None


class Audit:
    """The log in a state directory. Safe to be told things from any thread; nothing is told in vain
    before ``start``, and nothing is taken after ``close``. ``wall`` gives the time of day in seconds.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        wall: Callable[[], float] = time.time,
        retention: Retention = Retention(),  # noqa: B008 - immutable
        pace: WriterTimings = WriterTimings(),  # noqa: B008 - immutable
    ) -> None:
        self.written = 0
        self.lost = 0
        self.error = ""
        self._state_dir = state_dir
        self._wall = wall
        self._retention = retention
        self._pace = pace
        self._change = threading.Condition()
        self._queue: deque[_Waiting] = deque()
        self._urgent = False
        self._closing = False
        self._lost_untold = 0
        self._repeats = Coalescer()
        self._told: list[Listener] = []
        self._keeper = AuditWriter(state_dir, retention, cut=pace.cut, sync=pace.sync, now=time.monotonic())
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)

    def start(self) -> None:
        """Begin to write; opening and looking through the database happens in the thread, too."""
        self._thread.start()

    def listen(self, told: Listener) -> None:
        """Have every entry told once it is on the disk."""
        self._told.append(told)

    # --- what others hand over -------------------------------------------------------------------

    def append(self, fact: AuditEvent) -> None:
        """Record it soon; never waits and never fails."""
        self._hand_over(fact, None)

    def append_durable(self, fact: AuditEvent) -> Future[bool]:
        """Record it now. The result is there when it is on the disk: True, or False where it can't be.

        One that can't be written now is tried again later, like any other.
        """
        done: Future[bool] = Future()
        # So that nobody who waits can take it back.
        done.set_running_or_notify_cancel()
        self._hand_over(fact, done)
        return done

    def append_coalesced(self, key: tuple[str, ...], fact: AuditEvent) -> None:
        """Record what may come again and again: the first of a key soon, the rest counted by the minute."""
        with self._change:
            first = self._repeats.add(key, self._stamped(fact), time.monotonic())
            if first is not None and not self._closing:
                self._take(_Waiting(first, None))
            self._change.notify()

    async def read(self, query: Query) -> list[Entry]:
        """Entries on the disk, the newest last.

        Raises:
            sqlite3.Error: the log can't be read.
        """
        return await asyncio.to_thread(audit_read.read, self._state_dir, query)

    async def latest(self, *actions: str, result: str = "") -> Entry | None:
        """See ``query.newest``; None also where the log can't be read."""
        try:
            return await asyncio.to_thread(audit_read.latest, self._state_dir, *actions, result=result)
        except sqlite3.Error:
            return None

    def close(self, seconds: float = 3.0) -> None:
        """Write what there is, and end. Waits for so long at most; call it in a thread of its own."""
        with self._change:
            for fact in self._repeats.due(time.monotonic(), self._wall(), everything=True):
                self._take(_Waiting(fact, None))
            self._closing = True
            self._change.notify()
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def _stamped(self, fact: AuditEvent) -> AuditEvent:
        return fact if fact.at else fact._replace(at=self._wall())

    def _hand_over(self, fact: AuditEvent, done: Future[bool] | None) -> None:
        with self._change:
            if self._closing:
                if done is not None:
                    done.set_result(False)
                return
            self._take(_Waiting(self._stamped(fact), done))
            self._change.notify()

    def _take(self, waiting: _Waiting) -> None:
        self._queue.append(waiting)
        self._urgent = self._urgent or waiting.done is not None
        if len(self._queue) > self._pace.held:
            self._drop(self._queue.popleft())

    def _drop(self, waiting: _Waiting) -> None:
        self.lost += waiting.fact.times
        self._lost_untold += waiting.fact.times
        _answer(waiting, good=False)

    # --- the writer's thread ---------------------------------------------------------------------

    def _run(self) -> None:
        going = True
        while going:
            try:
                going = self._turn()
            except Exception:
                # A bug of ours. Without this thread every write would wait for ever.
                log.exception("the audit log failed in a way nobody foresaw")
                time.sleep(self._pace.again[0])
        self._keeper.close()

    def _turn(self) -> bool:
        """Wait for something to do, and do it; False when it is all over."""
        batch = self._batch()
        if batch:
            good = self._write(batch)
            if not good and self._closing:
                return False
        elif self._closing:
            return False
        if not self._closing:
            for entries in self._keeper.apply_retention(time.monotonic(), self._wall):
                self._tell_others(entries)
        return True

    def _batch(self) -> list[_Waiting]:
        with self._change:
            while not self._closing:
                now = time.monotonic()
                for fact in self._repeats.due(now, self._wall()):
                    self._take(_Waiting(fact, None))
                if self._urgent:
                    break
                if self._queue and self._failures:
                    # Not in a tight loop; but somebody who waits is worth a try at once.
                    again = self._pace.again
                    pause = again[min(self._failures, len(again)) - 1]
                    self._change.wait_for(self._pressed, pause)
                    break
                if self._queue:
                    self._change.wait_for(self._pressed, self._pace.gather)
                    break
                due = self._due()
                if due <= now:
                    return []
                self._change.wait(due - now)
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), self._pace.batch))]
            self._urgent = any(waiting.done for waiting in self._queue)
            return batch

    def _pressed(self) -> bool:
        return self._urgent or self._closing

    def _due(self) -> float:
        due, repeats = self._keeper.due(), self._repeats.next()
        return due if repeats is None else min(due, repeats)

    def _write(self, batch: list[_Waiting]) -> bool:
        facts = [waiting.fact for waiting in batch]
        lost = self._lost_untold
        if lost:
            facts.insert(0, self._about_lost(lost))
        try:
            entries = self._keeper.append(facts, time.monotonic())
        except (sqlite3.Error, OSError) as error:
            self._failed(batch, error)
            return False
        except BaseException:
            # A bug of ours: these would only fail again, the next may fare better.
            with self._change:
                for waiting in batch:
                    self._drop(waiting)
            raise
        with self._change:
            self._lost_untold -= lost
        if self._failures:
            log.info("the audit log is written again", extra={"lost": lost})
        self._failures, self.error = 0, ""
        self.written += len(entries)
        for waiting in batch:
            _answer(waiting, good=True)
        self._tell_others(entries)
        return True

    def _failed(self, batch: list[_Waiting], error: Exception) -> None:
        if not self._failures:
            log.warning("the audit log can't be written; it is tried again", extra={"error": str(error)})
        self.error = str(error)
        with self._change:
            self._failures += 1
            for waiting in batch:
                _answer(waiting, good=False)
            # Back to where they were taken from, the oldest first; no room means lost.
            self._queue.extendleft(_Waiting(waiting.fact, None) for waiting in reversed(batch))
            while len(self._queue) > self._pace.held:
                self._drop(self._queue.popleft())

    def _about_lost(self, lost: int) -> AuditEvent:
        return AuditEvent(
            "audit_lost",
            result="lost",
            user="daemon",
            reason="not_writable",
            message=f"{lost} entries were lost, because the log could not be written",
            times=lost,
            at=self._wall(),
        )

    def _tell_others(self, entries: Sequence[Entry]) -> None:
        for told in self._told:
            try:
                told(entries)
            except Exception:
                log.exception("a listener of the audit log failed")


def _answer(waiting: _Waiting, *, good: bool) -> None:
    if waiting.done is not None and not waiting.done.done():
        waiting.done.set_result(good)
