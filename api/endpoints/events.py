"""Server-Sent Events: one bounded ring of events for all readers, filled by one task.

Each event is encoded once, whoever reads it. A reader is a place in the ring: one that is too slow is
overtaken by the ring's end and dropped, and comes back with a full status. Nothing is queued per reader,
so five hundred of them cost a wake-up each and no memory that grows.
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
    """Bounds of a ``Broadcast``; the defaults are meant for a box with 8 GB.

    ``events`` and ``size`` (bytes) bound the ring. ``batch`` readers are woken at a time, the loop gets
    its turn between. ``pause`` is the least time between two snapshots sent, in seconds; ``rest`` says
    how many times as long as it took to send one is waited before the next (a second at most). For ``linger``
    seconds after the last reader left events are kept, so that one who lost the connection can resume.
    """

    events: int = 256
    size: int = 4 * 2**20
    batch: int = 8
    pause: float = 0.05
    linger: float = 60.0
    rest: float = 4.0


DEFAULT = Limits()


class Subscriber:
    """One subscriber: its place in the ring, and how it is woken."""

    def __init__(self, position: int) -> None:
        self.position = position
        self.gone = False
        self.wake = asyncio.Event()

    def unsubscribe(self) -> None:
        """End this reader's stream at its next turn."""
        self.gone = True
        self.wake.set()

    async def wait(self, seconds: float) -> bool:
        """Wait to be woken; False when ``seconds`` pass first."""
        try:
            async with asyncio.timeout(seconds):
                await self.wake.wait()
        except TimeoutError:
            return False
        self.wake.clear()
        return True


class Broadcast:
    """The ring, its readers, and the task that turns snapshots into events while anybody reads.

    Event ids are ``RUN-NUMBER``: the run is drawn anew at every start of the daemon, so that an id from
    before a restart is never taken for one of this run.
    """

    def __init__(self, context: Context, cache: StatusCache, limits: Limits = DEFAULT) -> None:
        self.context = context
        self._cache = cache
        self._limits = limits
        self._run = token_hex(4)
        self._ring: deque[tuple[int, bytes]] = deque()
        self._size = 0
        self._last = 0
        # Everything after this number is still held: the oldest place to resume from.
        self._floor = 0
        self._readers: set[Subscriber] = set()
        self._left_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None

    @contextmanager
    def reader(self, last_id: str) -> Iterator[tuple[Subscriber, bytes]]:
        """A subscription, with what to send first: nothing for a resume, else a full status."""
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
        """The event after the reader's place; None: it has them all."""
        if reader.position < self._floor:
            # Overtaken: what it missed is gone.
            reader.gone = True
        if reader.gone or reader.position >= self._last:
            return None
        number, event = self._ring[reader.position - self._floor]
        reader.position = number
        return event

    def tell(self, kind: str, data: bytes) -> None:
        """Send one more event (``data`` is JSON) to those who read now; nobody reads, nothing is kept."""
        if self._task is None:
            return
        self._add(kind, data)
        if self._telling is None or self._telling.done():
            # Not one wake-up for each reader and event: what comes meanwhile is found by those woken.
            self._telling = asyncio.get_running_loop().create_task(self._wake_later())

    async def _wake_later(self) -> None:
        await asyncio.sleep(self._limits.pause)
        await self._wake_readers()

    def close(self) -> None:
        """End all streams; each reader is told at its next turn."""
        for reader in self._readers:
            reader.unsubscribe()

    async def aclose(self) -> None:
        """End all streams and the task that fills the ring."""
        self.close()
        tasks = [task for task in (self._task, self._telling) if task is not None]
        self._task = self._telling = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _number(self, last_id: str) -> int | None:
        """The place that an id stands for; None where what came after it is not held any more."""
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
                # Many readers take long: then fewer, newer snapshots are sent, and the loop that
                # converges things keeps most of the core.
                rest = self._limits.rest * (loop.time() - began)
                await asyncio.sleep(max(self._limits.pause, min(1.0, rest)))
        finally:
            self._forget()

    def _add_progress(self, before: Snapshot, now: Snapshot) -> None:
        if now.generation != before.generation:
            # The one overtaken has ended, and those who watch it must hear of it.
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
        # From here on changes go unseen, so no id handed out so far may be resumed from.
        self._task = None
        self._ring.clear()
        self._size = 0
        self._last += 1
        self._floor = self._last
        self.close()


class EventStream(Response):
    """The answer of ``GET /services/events``: it lasts until the reader, its key, or the daemon goes.

    Written against ASGI, because only there can a reader that takes nothing be told from an idle one.
    """

    media_type = "text/event-stream"

    def __init__(self, broadcast: Broadcast, last_id: str, good: Callable[[], bool] = lambda: True) -> None:
        super().__init__(headers={"x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._broadcast = broadcast
        self._last_id = last_id
        self._good = good

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until there is no reason to go on."""
        # Returns at once: nothing was sent before it that a server would have to wait for.
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        with self._broadcast.reader(self._last_id) as (reader, first):
            watch = asyncio.get_running_loop().create_task(_watch(receive, reader))
            try:
                await self._pour(send, reader, first)
                await self._send(send, b"", more=False)
            except TimeoutError:
                # Takes nothing any more. Not ending the answer makes the server close the connection.
                return
            finally:
                watch.cancel()

    async def _pour(self, send: Send, reader: Subscriber, first: bytes) -> None:
        context = self._broadcast.context
        await self._send(send, first)
        while not reader.gone and not context.closing.is_set():
            event = self._broadcast.next(reader)
            if event is None and not reader.gone and not await reader.wait(context.settings.heartbeat):
                event = HEARTBEAT
            if not self._good():
                # The key was revoked: not one event more.
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
