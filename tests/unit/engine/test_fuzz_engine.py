"""No response of an engine raises anything but errors of an engine (issue 13)."""

from __future__ import annotations

import asyncio
import json
import struct
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.engine.docker.address import Address
from reconciler.engine.docker.frames import unframed
from reconciler.engine.docker.http import DockerHttp
from reconciler.engine.docker.logs import STAMP
from reconciler.engine.docker.observe import Observer
from reconciler.engine.docker.streams import Events, pull_image
from reconciler.errors import EngineError, EngineUnavailable
from tests.support.fixtures.nasty import bounded, contents, misshapen
from tests.support.fixtures.plans import ONE

VERSION = {"ApiVersion": "1.45", "MinAPIVersion": "1.24"}
EVENT = {
    "Type": "container",
    "Action": "die",
    "Actor": {"ID": "c1", "Attributes": {"name": "a", "exitCode": "1", "com.docker.compose.project": "demo"}},
    "timeNano": 1_700_000_000_000_000_000,
}


def answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def asked(answers: list[bytes], question: Callable[[DockerHttp], Awaitable[object]]) -> None:
    """Send a request to an engine that responds to each connection with these bytes, in order."""

    async def scenario(path: str) -> None:
        left = list(answers)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError, EOFError, asyncio.LimitOverrunError):
                while left:
                    await reader.readuntil(b"\r\n\r\n")
                    said = left.pop(0)
                    writer.write(said)
                    await writer.drain()
                    if not left or not said.startswith(b"HTTP"):
                        break
            writer.close()

        server = await asyncio.start_unix_server(serve, path)
        wire = DockerHttp(Address(f"unix://{path}"), patience=0.5)
        try:
            with suppress(EngineError):
                await question(wire)
        finally:
            await wire.close()
            server.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(asyncio.wait_for(scenario(str(Path(folder) / "s")), 30))


@bounded
@given(
    version=st.one_of(st.just(json.dumps(VERSION).encode()), contents, misshapen(VERSION)).map(answer)
    | contents,
    reply=contents.map(answer) | contents,
)
def test_a_response_is_parsed_or_the_engine_is_unavailable(version: bytes, reply: bytes) -> None:
    asked([version, reply], lambda wire: wire.get("/containers/json"))
    asked([version, reply], lambda wire: wire.put("/x", b"x"))


@bounded
@given(lines=st.lists(st.one_of(contents, misshapen(EVENT), st.just(json.dumps(EVENT).encode())), max_size=4))
def test_events_of_any_shape_end_in_a_lost_stream(lines: list[bytes]) -> None:
    async def listen(wire: DockerHttp) -> None:
        events = Events(wire, Observer(wire), ONE)
        async with aclosing(events.lines()) as texts:
            async for _ in texts:
                pass

    asked([answer(json.dumps(VERSION).encode()), answer(b"\n".join(lines))], listen)


@bounded
@given(lines=st.lists(contents, max_size=4))
def test_progress_of_a_pull_may_have_any_shape(lines: list[bytes]) -> None:
    version = answer(json.dumps(VERSION).encode())
    asked([version, answer(b"\n".join(lines))], lambda wire: pull_image(wire, "a:1", "", {}, 0.5))


@bounded
@given(content=contents, size=st.integers(0, 2**32 - 1), stream=st.integers(0, 255))
def test_frames_of_a_log_may_have_any_shape(content: bytes, size: int, stream: int) -> None:
    async def read() -> None:
        async def chunks() -> AsyncIterator[bytes]:
            yield content
            yield struct.pack(">BxxxL", stream, size) + content

        with suppress(EngineError):
            async for _ in unframed(chunks(), STAMP):
                pass

    asyncio.run(read())


async def test_a_frame_that_claims_gigabytes_is_not_buffered() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield struct.pack(">BxxxL", 1, 2**32 - 1)
        raise AssertionError("read more")

    with pytest.raises(EngineUnavailable, match="4294967295 bytes"):
        async for _ in unframed(chunks(), STAMP):
            pass
