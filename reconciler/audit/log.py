"""The audit log of a running daemon: one writer thread and a queue.

A slow or full disk blocks neither callers nor reconciling: events that can't be written stay in the queue and
are retried; events that overflow the queue are counted, and the count is recorded.
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

from reconciler.audit import query as audit_query
from reconciler.audit.chain import AuditEvent, Entry
from reconciler.audit.database import Retention
from reconciler.audit.event_stream import Delivery
from reconciler.audit.maintenance import AuditWriter
from reconciler.audit.query import Query
from reconciler.audit.rate_limit import Coalescer

__all__ = ["Audit", "AuditEvent", "Entry", "Query", "Retention"]

log = logging.getLogger(__name__)

Listener = Callable[[Sequence[Entry]], None]
"""Called in the writer's thread with entries that are on disk; must return at once."""


class WriterTimings(NamedTuple):
    """Times and limits of the writer thread.

    ``gather``: seconds to collect events into one write. ``again``: pauses in seconds after failed writes,
    the last one repeated. ``cut``, ``sync``: see ``AuditWriter``. ``held``: largest number of events in the
    queue. ``batch``: largest number of events in one write.
    """

    gather: float = 0.1
    again: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0, 30.0)
    cut: float = 3600.0
    sync: float = 5.0
    held: int = 5000
    batch: int = 500


class _Queued(NamedTuple):
    event: AuditEvent
    done: Future[bool] | None


class Audit:
    """The log in a state directory. Thread-safe. ``wall`` returns wall time in seconds.

    Events before ``start`` are queued; events after ``close`` are dropped. ``written`` and ``lost`` count
    entries since the start; ``error`` is the error of the last write, empty after a success.
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
        self._queue: deque[_Queued] = deque()
        self._urgent = False
        self._closing = False
        self._lost_unrecorded = 0
        self._repeats = Coalescer()
        self._listeners: list[Listener] = []
        self._writer = AuditWriter(state_dir, retention, cut=pace.cut, sync=pace.sync, now=time.monotonic())
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)

    def start(self) -> None:
        """Start the writer thread, which also opens and checks the database."""
        self._thread.start()

    def subscribe(self, listener: Listener) -> None:
        """Call ``listener`` with every entry once it is on disk."""
        self._listeners.append(listener)

    # --- callers ---------------------------------------------------------------------------------

    def append(self, event: AuditEvent) -> None:
        """Queue an event; never blocks and never fails."""
        self._submit(event, None)

    def on_event(self, event: AuditEvent, delivery: Delivery) -> Future[bool] | None:
        """Store an event of the stream; see ``event_stream.Subscriber``."""
        if delivery.durable:
            return self.append_durable(event)
        if delivery.repeat_key:
            self.append_coalesced(delivery.repeat_key, event)
        else:
            self.append(event)
        return None

    def append_durable(self, event: AuditEvent) -> Future[bool]:
        """Write an event at once. The future is True when it is on disk, False when the write failed.

        A failed event is retried later, like any other.
        """
        done: Future[bool] = Future()
        # Callers must not be able to cancel it.
        done.set_running_or_notify_cancel()
        self._submit(event, done)
        return done

    def append_coalesced(self, key: tuple[str, ...], event: AuditEvent) -> None:
        """Queue an event that may repeat. The first of a key is written soon, its repeats once a minute."""
        with self._change:
            first = self._repeats.add(key, self._stamped(event), time.monotonic())
            if first is not None and not self._closing:
                self._enqueue(_Queued(first, None))
            self._change.notify()

    async def read(self, query: Query) -> list[Entry]:
        """Return matching entries on disk, the newest last.

        Raises:
            sqlite3.Error: the log can't be read.
        """
        return await asyncio.to_thread(audit_query.read, self._state_dir, query)

    async def latest(self, *actions: str, result: str = "") -> Entry | None:
        """See ``query.latest``; None also when the log can't be read."""
        try:
            return await asyncio.to_thread(audit_query.latest, self._state_dir, *actions, result=result)
        except sqlite3.Error:
            return None

    def close(self, seconds: float = 3.0) -> None:
        """Write the queue and stop the thread. Blocks up to ``seconds``: call it outside the event loop."""
        with self._change:
            for event in self._repeats.due(time.monotonic(), self._wall(), everything=True):
                self._enqueue(_Queued(event, None))
            self._closing = True
            self._change.notify()
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def _stamped(self, event: AuditEvent) -> AuditEvent:
        return event if event.at else event._replace(at=self._wall())

    def _submit(self, event: AuditEvent, done: Future[bool] | None) -> None:
        with self._change:
            if self._closing:
                if done is not None:
                    done.set_result(False)
                return
            self._enqueue(_Queued(self._stamped(event), done))
            self._change.notify()

    def _enqueue(self, queued: _Queued) -> None:
        self._queue.append(queued)
        self._urgent = self._urgent or queued.done is not None
        if len(self._queue) > self._pace.held:
            self._drop(self._queue.popleft())

    def _drop(self, queued: _Queued) -> None:
        self.lost += queued.event.times
        self._lost_unrecorded += queued.event.times
        _resolve(queued, good=False)

    # --- the writer's thread ---------------------------------------------------------------------

    def _run(self) -> None:
        running = True
        while running:
            try:
                running = self._write_next()
            except Exception:
                # A bug in this module. The thread must go on: without it every durable write would block.
                log.exception("the audit log failed unexpectedly")
                time.sleep(self._pace.again[0])
        self._writer.close()

    def _write_next(self) -> bool:
        """Wait for a batch and write it; return False once the log is closed and everything is written."""
        batch = self._batch()
        if batch:
            good = self._write(batch)
            if not good and self._closing:
                return False
        elif self._closing:
            return False
        if not self._closing:
            for entries in self._writer.apply_retention(time.monotonic(), self._wall):
                self._notify_listeners(entries)
        return True

    def _batch(self) -> list[_Queued]:
        with self._change:
            while not self._closing:
                now = time.monotonic()
                for event in self._repeats.due(now, self._wall()):
                    self._enqueue(_Queued(event, None))
                if self._urgent:
                    break
                if self._queue and self._failures:
                    # Pause between retries; a durable event is tried at once.
                    again = self._pace.again
                    pause = again[min(self._failures, len(again)) - 1]
                    self._change.wait_for(self._is_urgent, pause)
                    break
                if self._queue:
                    self._change.wait_for(self._is_urgent, self._pace.gather)
                    break
                due = self._due()
                if due <= now:
                    return []
                self._change.wait(due - now)
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), self._pace.batch))]
            self._urgent = any(queued.done for queued in self._queue)
            return batch

    def _is_urgent(self) -> bool:
        return self._urgent or self._closing

    def _due(self) -> float:
        due, repeats = self._writer.due(), self._repeats.next_due()
        return due if repeats is None else min(due, repeats)

    def _write(self, batch: list[_Queued]) -> bool:
        events = [queued.event for queued in batch]
        lost = self._lost_unrecorded
        if lost:
            events.insert(0, self._lost_event(lost))
        try:
            entries = self._writer.append(events, time.monotonic())
        except (sqlite3.Error, OSError) as error:
            self._failed(batch, error)
            return False
        except BaseException:
            # A bug in this module. These events would fail again, so drop them; later ones may succeed.
            with self._change:
                for queued in batch:
                    self._drop(queued)
            raise
        with self._change:
            self._lost_unrecorded -= lost
        if self._failures:
            log.info("the audit log is writable again", extra={"lost": lost})
        self._failures, self.error = 0, ""
        self.written += len(entries)
        for queued in batch:
            _resolve(queued, good=True)
        self._notify_listeners(entries)
        return True

    def _failed(self, batch: list[_Queued], error: Exception) -> None:
        if not self._failures:
            log.warning("the audit log can't be written; retrying", extra={"error": str(error)})
        self.error = str(error)
        with self._change:
            self._failures += 1
            for queued in batch:
                _resolve(queued, good=False)
            # Return them to the front of the queue, the oldest first; events that overflow are lost.
            self._queue.extendleft(_Queued(queued.event, None) for queued in reversed(batch))
            while len(self._queue) > self._pace.held:
                self._drop(self._queue.popleft())

    def _lost_event(self, lost: int) -> AuditEvent:
        return AuditEvent(
            "audit_lost",
            result="lost",
            user="daemon",
            reason="not_writable",
            message=f"{lost} entries were lost because the log could not be written",
            times=lost,
            at=self._wall(),
        )

    def _notify_listeners(self, entries: Sequence[Entry]) -> None:
        for listener in self._listeners:
            try:
                listener(entries)
            except Exception:
                log.exception("a listener of the audit log failed")


def _resolve(queued: _Queued, *, good: bool) -> None:
    if queued.done is not None and not queued.done.done():
        queued.done.set_result(good)
