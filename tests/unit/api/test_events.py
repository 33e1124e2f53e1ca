"""Server-Sent Events: the first event, later ones, resuming, and slow readers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest

from api.app import close_streams
from api.context import Context, Settings
from api.endpoints.events import Broadcast, EventStream, Limits
from api.wire.views import StatusCache
from reconciler.controller.progress import Progress
from reconciler.controller.snapshot import SnapshotPublisher
from tests.support.fixtures.api import (
    WALL,
    FakeWriter,
    a_snapshot,
    a_step,
    a_world,
    desired,
    run_other_tasks,
    running,
)


class Event(NamedTuple):
    id: str
    name: str
    data: Any


@dataclass
class Subscriber:
    """A client of one ASGI connection; it reads nothing unless ``taking``."""

    chunks: list[bytes] = field(default_factory=list)
    taking: asyncio.Event = field(default_factory=asyncio.Event)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    ended: bool = False
    headers: dict[bytes, bytes] = field(default_factory=dict)

    async def receive(self) -> dict[str, Any]:
        await self.hung_up.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.taking.wait()
        if message["type"] == "http.response.start":
            self.headers = dict(message["headers"])
            return
        self.chunks.append(message["body"])
        self.ended = not message["more_body"]

    @property
    def text(self) -> str:
        return b"".join(self.chunks).decode()

    @property
    def events(self) -> list[Event]:
        found = []
        for block in self.text.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
            if "event" in fields:
                found.append(Event(fields["id"], fields["event"], json.loads(fields["data"])))
        return found


@dataclass
class Line:
    """A broadcast over snapshots of the test, and its readers."""

    broadcast: Broadcast
    snapshots: SnapshotPublisher
    context: Context
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def subscribe(self, last_id: str = "") -> Subscriber:
        subscriber = Subscriber()
        subscriber.taking.set()
        answer = EventStream(self.broadcast, last_id)
        self.tasks.append(asyncio.create_task(answer({}, subscriber.receive, subscriber.send)))
        await run_other_tasks()
        return subscriber

    async def publish(self, *, steps: int = 0, generation: int = 1) -> None:
        """A snapshot that differs from the last by how far it is."""
        self.snapshots.publish(self.snapshot(steps, generation))
        await run_other_tasks()

    def snapshot(self, steps: int, generation: int = 1) -> Any:
        progress = Progress(
            generation=generation, total=100, done=steps, steps=(a_step("kafka"),) * (steps % 3)
        )
        return a_snapshot(desired(generation, kafka=True), running("kafka"), progress=progress)


@asynccontextmanager
async def a_line(limits: Limits = Limits(pause=0, rest=0), **settings: Any) -> AsyncIterator[Line]:  # noqa: B008
    snapshots = SnapshotPublisher()
    context = Context(
        writer=FakeWriter(snapshots, desired()),
        snapshots=snapshots,
        settings=Settings(clock=lambda: WALL, **settings),
    )
    line = Line(Broadcast(context, StatusCache(), limits), snapshots, context)
    await line.publish()
    try:
        yield line
    finally:
        context.closing.set()
        await line.broadcast.aclose()
        await asyncio.gather(*line.tasks)


async def test_a_stream_begins_with_a_full_status_and_an_id() -> None:
    async with a_line() as line:
        subscriber = await line.subscribe()
        (event,) = subscriber.events
    assert event.name == "status"
    assert event.data["groups"]["kafka"]["services"][1]["status"] == "running"
    assert event.id.endswith("-0")
    assert subscriber.headers[b"content-type"].startswith(b"text/event-stream")
    assert b"content-length" not in subscriber.headers


async def test_every_change_sends_status_and_progress() -> None:
    async with a_line() as line:
        subscriber = await line.subscribe()
        await line.publish(steps=1)
        await line.publish(steps=2)
        await line.publish(steps=2)  # the same again is no change
        names = [event.name for event in subscriber.events]
        ids = [event.id.rpartition("-")[2] for event in subscriber.events]
    assert names == ["status", "status", "progress", "status", "progress"]
    assert ids == ["0", "1", "2", "3", "4"]
    assert subscriber.events[-1].data["done"] == 2


async def test_a_change_without_progress_sends_only_a_status() -> None:
    async with a_line() as line:
        subscriber = await line.subscribe()
        line.snapshots.publish(a_snapshot(desired(kafka=True), progress=line.snapshots.current.progress))
        await run_other_tasks()
        names = [event.name for event in subscriber.events]
    assert names == ["status", "status"]


async def test_a_superseded_generation_sends_its_last_progress() -> None:
    async with a_line() as line:
        subscriber = await line.subscribe()
        await line.publish(generation=2)
        sent = [(e.data["generation"], e.data["state"]) for e in subscriber.events if e.name == "progress"]
    assert sent == [(1, "superseded"), (2, "progressing")]


async def test_a_resumed_stream_sends_the_missed_events_only() -> None:
    async with a_line() as line:
        first = await line.subscribe()
        await line.publish(steps=1)
        first.hung_up.set()
        await run_other_tasks()
        await line.publish(steps=2)
        second = await line.subscribe(first.events[-1].id)
        await line.publish(steps=3)
        both = [event.id for event in (*first.events, *second.events)]
    assert [event.data.get("done") for event in second.events if event.name == "progress"] == [2, 3]
    assert [id_.rpartition("-")[2] for id_ in both] == ["0", "1", "2", "3", "4", "5", "6"]


@pytest.mark.parametrize("last_id", ["", "5", "nonsense", "deadbeef-1", "-", "{run}-99", "{run}-x", "{run}-"])
async def test_an_unknown_id_begins_with_a_full_status(last_id: str) -> None:
    async with a_line() as line:
        first = await line.subscribe()
        await line.publish(steps=1)
        run = first.events[0].id.partition("-")[0]
        (event,) = (await line.subscribe(last_id.format(run=run))).events
    assert event.name == "status"
    assert event.id == f"{run}-2"


@pytest.mark.parametrize("limits", [Limits(events=4, pause=0, rest=0), Limits(size=9_000, pause=0, rest=0)])
async def test_an_id_older_than_the_buffer_begins_with_a_full_status(limits: Limits) -> None:
    async with a_line(limits) as line:
        first = await line.subscribe()
        for steps in range(1, 6):
            await line.publish(steps=steps)
        assert len(line.broadcast._ring) <= 4
        (event,) = (await line.subscribe(first.events[1].id)).events
        resumed = await line.subscribe(first.events[-2].id)
    assert event.data["progress"]["done"] == 5
    assert [e.name for e in resumed.events] == ["progress"]


async def test_ids_are_invalid_after_a_time_without_readers() -> None:
    async with a_line(Limits(pause=0, rest=0, linger=0)) as line:
        first = await line.subscribe()
        await line.publish(steps=1)
        first.hung_up.set()
        await run_other_tasks()
        await line.publish(steps=2)  # without readers no event is kept from here on
        await line.publish(steps=3)
        assert line.broadcast._task is None
        (event,) = (await line.subscribe(first.events[-1].id)).events
    assert (event.name, event.data["progress"]["done"]) == ("status", 3)


async def test_a_reader_behind_the_buffer_is_dropped() -> None:
    async with a_line(Limits(events=4, pause=0, rest=0)) as line:
        slow, quick = await line.subscribe(), await line.subscribe()
        slow.taking.clear()
        for steps in range(1, 6):
            await line.publish(steps=steps)
        slow.taking.set()
        await run_other_tasks()
        assert slow.ended
        assert [event.name for event in slow.events] == ["status", "status"]
        assert len(quick.events) == 11
        assert not quick.ended


async def test_a_stalled_reader_is_disconnected() -> None:
    async with a_line(patience=0.01) as line:
        stuck = await line.subscribe()
        stuck.taking.clear()
        await line.publish(steps=1)
        await asyncio.gather(*line.tasks)
        assert not line.broadcast._readers
        assert not stuck.ended  # so that the server closes the connection


async def test_an_idle_stream_sends_heartbeats() -> None:
    async with a_line(heartbeat=0.001) as line:
        subscriber = await line.subscribe()
        while subscriber.text.count(": alive\n\n") < 3:
            await asyncio.sleep(0)
    assert len(subscriber.events) == 1


async def test_a_closed_connection_leaves_no_reader_behind() -> None:
    async with a_line() as line:
        subscriber = await line.subscribe()
        subscriber.hung_up.set()
        await asyncio.gather(*line.tasks)
        assert not line.broadcast._readers


async def test_five_hundred_readers_do_not_slow_publishing_or_other_tasks() -> None:
    turns = 0

    async def loop() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with a_line() as line:
        readers = [Subscriber() for _ in range(500)]
        for reader in readers:
            reader.taking.set()
            answer = EventStream(line.broadcast, "")
            line.tasks.append(asyncio.create_task(answer({}, reader.receive, reader.send)))
        await run_other_tasks()
        other = asyncio.create_task(loop())
        # Publishing only sets a flag; no reader runs in it.
        line.snapshots.publish(line.snapshot(1))
        assert all(len(reader.chunks) == 1 for reader in readers)
        before = turns
        while not all(len(reader.chunks) == 3 for reader in readers):
            await asyncio.sleep(0)
        assert turns - before >= 500 / Limits().batch
        other.cancel()
        # Encoded once for all readers.
        assert len({id(reader.chunks[1]) for reader in readers}) == 1


async def test_a_burst_of_changes_is_sent_as_its_last_state() -> None:
    async with a_line() as line:
        subscriber = await line.subscribe()
        for steps in range(1, 50):
            line.snapshots.publish(line.snapshot(steps))
        await run_other_tasks()
        assert len(subscriber.events) == 3
        assert subscriber.events[-1].data["done"] == 49


@pytest.mark.pitfall(41)
async def test_streams_end_at_shutdown_and_new_ones_are_refused() -> None:
    async with a_world(settings=Settings(clock=lambda: WALL)) as world:
        # This transport returns a response when it has ended, so the test is that it returns.
        open_ = asyncio.create_task(world.client.get("/services/events"))
        await run_other_tasks()
        close_streams(world.app)
        ended = await open_
        refused = await world.client.get("/services/events")
    assert ended.status_code == 200
    assert ended.text.count("event: status") == 1
    assert ended.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert ended.headers["x-content-type-options"] == "nosniff"
    assert (refused.status_code, refused.json()["reason"]) == (503, "going_down")


async def test_an_error_while_encoding_events_ends_the_streams() -> None:
    async with a_line() as line:
        subscriber = await line.subscribe()
        line.broadcast._cache = None  # type: ignore[assignment]
        task = line.broadcast._task
        await line.publish(steps=1)
        assert subscriber.ended
        assert task is not None
        assert isinstance(task.exception(), AttributeError)
