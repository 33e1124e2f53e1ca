"""Following logs whose streams stall (as Docker's do when it rotates the file), repeat or are invalid."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import pytest

from reconciler.engine.docker import logs
from reconciler.engine.docker.frames import unframed
from reconciler.engine.docker.logs import STAMP, log_lines
from reconciler.errors import EngineError, EngineUnavailable

LINES = [f"2026-11-24T22:00:{n:02d}.000000001Z line {n}\n".encode() for n in range(1, 31)]


class StallingEngine:
    """Each stream sends three lines and then stalls; the log grows by one line per request."""

    def __init__(self) -> None:
        self.written = 4

    async def get(self, _: str) -> dict[str, Any]:
        return {"Config": {"Tty": True}, "State": {"Running": True}}

    @asynccontextmanager
    async def stream(
        self, _: str, __: str, *, follow: bool, since: str = "", **___: Any
    ) -> AsyncIterator[Any]:
        self.written = min(len(LINES), self.written + 1)
        # The engine's `since` includes that moment.
        first = int(since.split(".", maxsplit=1)[0]) % 60 - 1 if since else 0
        yield _Reply(LINES[first : first + 3 if follow else self.written], follow)


class GarbageEngine:
    """A running container whose streams all have the same content; it is gone after ``requests`` requests."""

    def __init__(
        self, content: bytes, *, requests: int, terminal: bool = False, stalls: bool = False
    ) -> None:
        self.requests = requests
        self._content, self._terminal, self._stalls = content, terminal, stalls

    async def get(self, _: str) -> dict[str, Any]:
        return {"Config": {"Tty": self._terminal}, "State": {"Running": self.requests > 0}}

    @asynccontextmanager
    async def stream(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        self.requests -= 1
        yield _Reply([self._content], self._stalls)


class _Reply:
    def __init__(self, lines: list[bytes], follow: bool) -> None:
        self._lines, self._follow = lines, follow

    async def chunks(self) -> AsyncIterator[bytes]:
        for line in self._lines:
            await asyncio.sleep(0)
            yield line
        if self._follow:
            await asyncio.sleep(3600)


async def test_each_line_is_yielded_once_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "SILENT", 0.01)
    monkeypatch.setattr(logs, "_AGAIN", 0.0)
    found: list[str] = []
    http: Any = StallingEngine()
    async with asyncio.timeout(20), aclosing(log_lines(http, "c", 100, follow=True)) as lines:
        async for line in lines:
            found.append(line)
            if line == "line 30":
                break
    assert found == [f"line {n}" for n in range(1, 31)]


def frame(content: bytes, stream: int = 1, size: int | None = None) -> bytes:
    return struct.pack(">BxxxL", stream, len(content) if size is None else size) + content


async def read(engine: GarbageEngine, *, tail: int = 100, follow: bool = True) -> list[str]:
    found: list[str] = []
    http: Any = engine
    with suppress(EngineError):
        async with asyncio.timeout(20), aclosing(log_lines(http, "c", tail, follow=follow)) as lines:
            async for line in lines:
                found.append(line)  # noqa: PERF401 - keeps what came before an error
    return found


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "SILENT", 0.01)
    monkeypatch.setattr(logs, "_AGAIN", 0.001)
    monkeypatch.setattr(logs, "_READ_DEADLINE", 0.05)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("stalls", [False, True])
@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 4096,
        b"garbage without a stamp\n" * 3,
        frame(b"no stamp\n"),
        frame(b"9999-99-99T99:99:99.000000000Z no date\n"),
        frame(b"half", size=2**23),
        frame(b"", size=2**32 - 1),
        frame(b"x", stream=77),
    ],
)
async def test_garbage_ends_with_the_container_and_is_yielded_once(
    content: bytes, terminal: bool, stalls: bool
) -> None:
    engine = GarbageEngine(content, requests=6, terminal=terminal, stalls=stalls)
    if stalls:
        # Without newer lines a silent stream is left open; only its lines matter.
        engine.requests = 1
        http: Any = engine
        found: list[str] = []
        with suppress(TimeoutError, EngineError):
            async with asyncio.timeout(0.3), aclosing(log_lines(http, "c", 100, follow=True)) as lines:
                async for line in lines:
                    found.append(line)  # noqa: PERF401 - keeps what came before an error
    else:
        found = await read(engine)
        assert engine.requests <= 5
    assert len(found) <= 4


@pytest.mark.usefixtures("quick")
async def test_streams_that_end_at_once_are_opened_with_a_growing_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    original = asyncio.sleep

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await original(0)

    monkeypatch.setattr(logs.asyncio, "sleep", sleep)
    await read(GarbageEngine(frame(b""), requests=8))
    waits = [pause for pause in pauses if pause]
    assert waits == sorted(waits)
    assert waits[-1] == logs.SILENT


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("tail", "follow"), [(100, False), (0, True)])
async def test_a_read_that_does_not_follow_has_a_deadline(tail: int, follow: bool) -> None:
    http: Any = GarbageEngine(b"", requests=5, stalls=True)
    with pytest.raises(EngineUnavailable, match="sent nothing"):
        async with asyncio.timeout(20), aclosing(log_lines(http, "c", tail, follow)) as lines:
            async for _ in lines:
                pass


async def test_a_line_in_a_million_frames_costs_no_more_than_its_bytes() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        one = frame(b"x")
        for _ in range(500):
            yield one * 2000

    # Quadratic work would take minutes here.
    found = [line async for line in unframed(chunks(), STAMP)]
    assert b"".join(found) == b"x" * 1_000_000 + b"\n"
