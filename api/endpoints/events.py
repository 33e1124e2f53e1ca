"""Server-Sent Events: one bounded ring buffer of events for all readers, filled by one task.

Each event is encoded once for all readers. A reader is a position in the ring. A reader that is too slow
falls behind the oldest event, is dropped, and reconnects with a full status. There is no queue per reader,
so five hundred readers cost one wake-up each and no growing memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from secrets import token_hex
from typing import NamedTuple

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.context import Context
from api.endpoints.long_poll import wait_newer
from api.wire.views import StatusCache, progress, to_bytes
from reconciler.controller.snapshot import Snapshot

RETRY = b"retry: 2000\n\n"
HEARTBEAT = b": alive\n\n"


class Limits(NamedTuple):
    """Bounds of a ``Broadcast``; the defaults suit a machine with 8 GB.

    ``events`` and ``size`` (bytes) bound the ring. Readers are woken in batches of ``batch``, so that other
    tasks run in between. ``pause`` is the minimum time between two snapshots, in seconds. After a send, the
    broadcast pauses for ``rest`` times its duration (1 s at most). Events are kept for ``linger`` seconds
    after the last reader left, so that a reader that lost its connection can resume.
    """

    events: int = 256
    size: int = 4 * 2**20
    batch: int = 8
    pause: float = 0.05
    linger: float = 60.0
    rest: float = 4.0


DEFAULT = Limits()


class Subscriber:
    """One reader: its position in the ring, and the event that wakes it."""

    def __init__(self, position: int) -> None:
        self.position = position
        self.gone = False
        self.wake = asyncio.Event()

    def unsubscribe(self) -> None:
        """End this reader's stream when it next runs."""
        self.gone = True
        self.wake.set()

    async def wait(self, seconds: float) -> bool:
        """Wait to be woken; return False after ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                await self.wake.wait()
        except TimeoutError:
            return False
        self.wake.clear()
        return True


class Broadcast:
    """The ring, its readers, and the task that converts snapshots to events while there are readers.

    Event ids are ``RUN-NUMBER``. RUN is random for each start of the daemon, so that an id from before a
    restart never matches one of this run.
    """

    def __init__(self, context: Context, cache: StatusCache, limits: Limits = DEFAULT) -> None:
        self.context = context
        self._cache = cache
        self._limits = limits
        self._run = token_hex(4)
        self._ring: deque[tuple[int, bytes]] = deque()
        self._size = 0
        self._last = 0
        # All events after this number are still in the ring: the oldest position to resume from.
        self._floor = 0
        self._readers: set[Subscriber] = set()
        self._left_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._waking: asyncio.Task[None] | None = None

    @contextmanager
    def reader(self, last_id: str) -> Iterator[tuple[Subscriber, bytes]]:
        """Subscribe; yields the reader and the first bytes to send: a full status unless it resumes."""
        resumed = self._number(last_id)
        reader = Subscriber(self._last if resumed is None else resumed)
        first = RETRY if resumed is not None else RETRY + self._full()
        self._readers.add(reader)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._fill(self.context.snapshots.current))
        try:
            yield reader, first
        finally:
            self._readers.discard(reader)
            self._left_at = asyncio.get_running_loop().time()

    def next(self, reader: Subscriber) -> bytes | None:
        """Return the event after the reader's position, None if it has read them all."""
        if reader.position < self._floor:
            # The reader is too slow: the events that it missed are no longer in the ring.
            reader.gone = True
        if reader.gone or reader.position >= self._last:
            return None
        number, event = self._ring[reader.position - self._floor]
        reader.position = number
        return event

    def send(self, kind: str, data: bytes) -> None:
        """Send one event (``data`` is JSON) to the current readers; without readers, drop it."""
        if self._task is None:
            return
        self._add(kind, data)
        if self._waking is None or self._waking.done():
            # One delayed wake-up serves all events that arrive until then, not one per reader and event.
            self._waking = asyncio.get_running_loop().create_task(self._wake_later())

    async def _wake_later(self) -> None:
        await asyncio.sleep(self._limits.pause)
        await self._wake_readers()

    def close(self) -> None:
        """End all streams; each one ends when its reader next runs."""
        for reader in self._readers:
            reader.unsubscribe()

    async def aclose(self) -> None:
        """End all streams and the task that fills the ring."""
        self.close()
        tasks = [task for task in (self._task, self._waking) if task is not None]
        self._task = self._waking = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _number(self, last_id: str) -> int | None:
        """Return the position of an event id, None if events after it are no longer in the ring."""
        run, _, digits = last_id.partition("-")
        if run != self._run or not (digits.isascii() and digits.isdigit() and len(digits) < 16):
            return None
        number = int(digits)
        return number if self._floor <= number <= self._last else None

    def _full(self) -> bytes:
        snapshot = self.context.snapshots.current
        return self._encoded("status", self._status(snapshot))

    def _status(self, snapshot: Snapshot) -> bytes:
        return self._cache.get(snapshot, self.context.settings.clock())

    def _encoded(self, kind: str, data: bytes) -> bytes:
        return b"id: %s-%d\nevent: %s\ndata: %s\n\n" % (self._run.encode(), self._last, kind.encode(), data)

    def _add(self, kind: str, data: bytes) -> None:
        self._last += 1
        event = self._encoded(kind, data)
        self._ring.append((self._last, event))
        self._size += len(event)
        while len(self._ring) > self._limits.events or self._size > self._limits.size:
            self._floor, dropped = self._ring.popleft()
            self._size -= len(dropped)

    async def _fill(self, seen: Snapshot) -> None:
        loop = asyncio.get_running_loop()
        try:
            while await wait_newer(self.context, seen.serial):
                if not self._readers and loop.time() - self._left_at > self._limits.linger:
                    break
                before, seen = seen, self.context.snapshots.current
                self._add("status", self._status(seen))
                self._add_progress(before, seen)
                began = loop.time()
                await self._wake_readers()
                # With many readers a send takes long. Send fewer, newer snapshots then, so that the
                # reconcile loop keeps most of the core.
                rest = self._limits.rest * (loop.time() - began)
                await asyncio.sleep(max(self._limits.pause, min(1.0, rest)))
        finally:
            self._forget()

    def _add_progress(self, before: Snapshot, now: Snapshot) -> None:
        if now.generation != before.generation:
            # The superseded generation has ended: send its last progress to its readers.
            ended = self.context.snapshots.progress(before.generation)
            if ended is not None and before.generation:
                self._add("progress", to_bytes(progress(ended, now.generation)))
        if now.progress != before.progress:
            self._add("progress", to_bytes(progress(now.progress, now.generation)))

    async def _wake_readers(self) -> None:
        for count, reader in enumerate(list(self._readers), 1):
            reader.wake.set()
            if count % self._limits.batch == 0:
                await asyncio.sleep(0)

    def _forget(self) -> None:
        # Snapshots are no longer recorded from here on, so no earlier id may be resumed from.
        self._task = None
        self._ring.clear()
        self._size = 0
        self._last += 1
        self._floor = self._last
        self.close()


class EventStream(Response):
    """Response of ``GET /services/events``; it ends with the connection, the caller's key or the daemon.

    Written against ASGI, because only there a stalled client differs from an idle one.
    """

    media_type = "text/event-stream"

    def __init__(
        self, broadcast: Broadcast, last_id: str, may_read: Callable[[], bool] = lambda: True
    ) -> None:
        super().__init__(headers={"x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._broadcast = broadcast
        self._last_id = last_id
        self._may_read = may_read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the stream ends."""
        # Returns at once: the server has nothing to flush before it.
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        with self._broadcast.reader(self._last_id) as (reader, first):
            watch = asyncio.get_running_loop().create_task(_watch(receive, reader))
            try:
                await self._stream(send, reader, first)
                await self._send(send, b"", more=False)
            except TimeoutError:
                # The client has stalled. An unfinished response makes the server close the connection.
                return
            finally:
                watch.cancel()

    async def _stream(self, send: Send, reader: Subscriber, first: bytes) -> None:
        context = self._broadcast.context
        await self._send(send, first)
        while not reader.gone and not context.closing.is_set():
            event = self._broadcast.next(reader)
            if event is None and not reader.gone and not await reader.wait(context.settings.heartbeat):
                event = HEARTBEAT
            if not self._may_read():
                # The key was revoked: send no further event.
                return
            if event is not None:
                await self._send(send, event)

    async def _send(self, send: Send, body: bytes, *, more: bool = True) -> None:
        async with asyncio.timeout(self._broadcast.context.settings.patience):
            await send({"type": "http.response.body", "body": body, "more_body": more})


async def _watch(receive: Receive, reader: Subscriber) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    reader.unsubscribe()
