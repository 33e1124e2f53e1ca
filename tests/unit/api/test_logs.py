"""Logs over HTTP: read to the end, followed, and ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from api.app import close_streams
from api.context import LogReader, Settings
from api.endpoints import logs
from reconciler.errors import ContainerGone, EngineUnavailable, StepFailed
from tests.support.fixtures.api import (
    ENGINE,
    WALL,
    ApiHarness,
    a_snapshot,
    a_world,
    desired,
    run_other_tasks,
    running,
)

ON = desired(kafka=True)


def of(*lines: str, error: Exception | None = None, calls: list[Any] | None = None) -> LogReader:
    """Return a log reader that yields these lines, then ends or fails."""

    async def source(container: str, tail: int, follow: bool) -> AsyncIterator[str]:
        if calls is not None:
            calls.append((container, tail, follow))
        for line in lines:
            yield line
        if error is not None:
            raise error

    return source


class Tap:
    """An engine that yields the lines of the test; ``closed`` is set when the stream is closed."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[str | Exception | None] = asyncio.Queue()
        self.closed = asyncio.Event()
        self.taken = 0

    async def __call__(self, container: str, tail: int, follow: bool) -> AsyncIterator[str]:
        try:
            while (item := await self.queue.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                self.taken += 1
                yield item
        finally:
            self.closed.set()


class Reader:
    """A client of one ASGI connection that reads only when the test allows it."""

    def __init__(self, world: ApiHarness, path: str) -> None:
        self.taking = asyncio.Event()
        self.taking.set()
        self.left = asyncio.Event()
        self.text = ""
        self.status = 0
        self.ended = False
        self._requested = False
        path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "method": "GET",
            "path": path,
            "query_string": query.encode(),
            "headers": [(b"host", b"localhost:8000")],
            "client": ("127.0.0.1", 1),
        }
        self.task = asyncio.create_task(world.app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        if not self._requested:
            self._requested = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        await self.taking.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.text += message["body"].decode()
            self.ended = not message.get("more_body", False)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def test_lines_are_sent_as_plain_text() -> None:
    calls: list[Any] = []
    async with a_world(ON, running("kafka"), logs=of("one", "two\u2028three", calls=calls)) as world:
        found = await world.client.get("/services/logs/kafka?tail=7")
    assert (found.status_code, found.text) == (200, "one\ntwo\u2028three\n")
    assert found.headers["content-type"] == "text/plain; charset=utf-8"
    assert found.headers["cache-control"] == "no-store"
    assert calls == [("id-kafka", 7, False)]


async def test_an_empty_log_is_an_empty_response() -> None:
    async with a_world(ON, running("kafka"), logs=of()) as world:
        found = await world.client.get("/services/logs/kafka")
    assert (found.status_code, found.text) == (200, "")


async def test_unmanaged_services_have_logs_too() -> None:
    async with a_world(ON, running("tempo"), logs=of("trace")) as world:
        assert (await world.client.get("/services/logs/tempo")).text == "trace\n"


async def test_without_a_log_reader_there_is_no_endpoint() -> None:
    async with a_world(ON, running("kafka")) as world:
        assert (await world.client.get("/services/logs/kafka")).status_code == 404


@pytest.mark.parametrize(
    ("service", "reason", "says"),
    [
        ("kafak", "unknown_service", "the services are: zookeeper, kafka"),
        ("timescaledb", "no_container", "it gets one when storage is on"),
        ("kafka", "no_container", "it gets one when kafka is on"),
    ],
)
async def test_a_service_without_a_log_is_a_404_with_the_reason(service: str, reason: str, says: str) -> None:
    async with a_world(ON, running("kafka"), logs=of(error=ContainerGone("gone"))) as world:
        found = await world.client.get(f"/services/logs/{service}")
    assert (found.status_code, found.json()["reason"]) == (404, reason)
    assert says in found.json()["remedy"]


@pytest.mark.parametrize(
    "query", ["tail=-1", "tail=10001", "tail=x", "follow=maybe", "lines=3", "tail=1&tail=2"]
)
async def test_bad_parameters_are_refused(query: str) -> None:
    async with a_world(ON, running("kafka"), logs=of("one")) as world:
        assert (await world.client.get(f"/services/logs/kafka?{query}")).status_code == 422


async def test_an_unreachable_engine_is_a_503_at_once() -> None:
    gone = replace(ENGINE, reachable=False, error="no such socket")
    snapshot = replace(a_snapshot(ON, running("kafka")), engine=gone)
    async with a_world(snapshot=snapshot, logs=of("one")) as world:
        found = await world.client.get("/services/logs/kafka")
    assert (found.status_code, found.json()["reason"]) == (503, "engine_unreachable")
    assert "no such socket" in found.json()["detail"]


@pytest.mark.parametrize(
    "error", [EngineUnavailable("it hangs"), StepFailed("its driver keeps none", "no_logs")]
)
async def test_an_engine_error_before_the_first_line_is_a_503(error: Exception) -> None:
    async with a_world(ON, running("kafka"), logs=of(error=error)) as world:
        found = await world.client.get("/services/logs/kafka?follow=true")
    assert (found.status_code, found.json()["detail"]) == (503, str(error))


async def test_followed_lines_are_sent_as_they_are_printed() -> None:
    tap = Tap()
    async with a_world(ON, running("kafka"), logs=tap) as world:
        tap.queue.put_nowait("one")
        reader = Reader(world, "/services/logs/kafka?follow=true")
        await until(lambda: reader.text == "one\n")
        tap.queue.put_nowait("two")
        await until(lambda: reader.text == "one\ntwo\n")
        assert not reader.ended
        tap.queue.put_nowait(None)
        await reader.task
    assert (reader.status, reader.ended) == (200, True)


async def test_an_engine_error_in_the_middle_cuts_the_connection() -> None:
    tap = Tap()
    async with a_world(ON, running("kafka"), logs=tap) as world:
        reader = Reader(world, "/services/logs/kafka?follow=true")
        tap.queue.put_nowait("one")
        await until(lambda: reader.text == "one\n")
        tap.queue.put_nowait(EngineUnavailable("the engine went away"))
        await reader.task
    assert (reader.text, reader.ended) == ("one\n", False)


async def test_a_closed_connection_closes_the_engine_stream() -> None:
    tap = Tap()
    async with a_world(ON, running("kafka"), logs=tap) as world:
        reader = Reader(world, "/services/logs/kafka?follow=true")
        tap.queue.put_nowait("one")
        await until(lambda: bool(reader.text))
        reader.left.set()
        await reader.task
        assert tap.closed.is_set()


async def test_a_followed_log_ends_at_shutdown() -> None:
    tap = Tap()
    async with a_world(ON, running("kafka"), logs=tap) as world:
        reader = Reader(world, "/services/logs/kafka?follow=true")
        tap.queue.put_nowait("one")
        await until(lambda: bool(reader.text))
        close_streams(world.app)
        await reader.task
        assert reader.ended
        assert (await world.client.get("/services/logs/kafka")).status_code == 503


async def test_a_stalled_reader_buffers_little_and_is_disconnected() -> None:
    tap = Tap()
    settings = Settings(clock=lambda: WALL, patience=0.05)
    async with a_world(ON, running("kafka"), logs=tap, settings=settings) as world:
        reader = Reader(world, "/services/logs/kafka?follow=true")
        tap.queue.put_nowait("first")
        await until(lambda: bool(reader.text))
        reader.taking.clear()
        for _ in range(200):
            tap.queue.put_nowait("x" * 10_000)
        await reader.task
    assert not reader.ended
    assert tap.taken * 10_000 < 3 * logs.SIZE


async def test_a_revoked_key_ends_a_followed_log() -> None:
    tap = Tap()
    async with a_world(ON, running("kafka"), logs=tap) as world:
        reader = Reader(world, "/services/logs/kafka?follow=true")
        tap.queue.put_nowait("one")
        await until(lambda: bool(reader.text))
        object.__setattr__(world.app.state.context, "may_read", lambda _: False)
        tap.queue.put_nowait("secret")
        await reader.task
    assert reader.text == "one\n"


@pytest.mark.parametrize(
    ("limit", "detail"), [("MOST_READERS", "2 logs are already open"), ("MOST_OF_A_CALLER", "this caller")]
)
async def test_the_number_of_open_logs_is_limited(
    monkeypatch: pytest.MonkeyPatch, limit: str, detail: str
) -> None:
    monkeypatch.setattr(logs, limit, 2)
    tap = Tap()
    async with a_world(ON, running("kafka"), logs=tap) as world:
        readers = [Reader(world, "/services/logs/kafka?follow=true") for _ in range(2)]
        await run_other_tasks()
        refused = await world.client.get("/services/logs/kafka")
        assert (refused.status_code, refused.json()["reason"]) == (503, "too_many_readers")
        assert detail in refused.json()["detail"]
        for reader in readers:
            reader.left.set()
        tap.queue.put_nowait(None)
        tap.queue.put_nowait(None)
        await asyncio.gather(*(reader.task for reader in readers))
        tap.queue.put_nowait(None)
        assert (await world.client.get("/services/logs/kafka")).status_code == 200


async def test_a_captured_log_needs_neither_container_nor_engine() -> None:
    async def kept(service: str) -> list[str] | None:
        return ["one", "two"] if service == "kafka" else None

    async with a_world(desired(), logs=of(error=EngineUnavailable("gone")), captured_logs=kept) as world:
        answer = await world.client.get("/services/logs/kafka?previous=true&tail=1")
        nothing = await world.client.get("/services/logs/zookeeper?previous=true")
        unknown = await world.client.get("/services/logs/kafak?previous=true")
    assert (answer.status_code, answer.text) == (200, "two\n")
    assert (nothing.status_code, nothing.json()["reason"]) == (404, "no_previous")
    assert (unknown.status_code, unknown.json()["reason"]) == (404, "unknown_service")
