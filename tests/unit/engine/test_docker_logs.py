"""A follower of a log that the engine forgets again and again, as Docker does when it rotates the file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from reconciler.engine.docker import logs
from reconciler.engine.docker.logs import log_lines

LINES = [f"2026-11-24T22:00:{n:02d}.000000001Z line {n}\n".encode() for n in range(1, 31)]


class Forgetful:
    """An engine whose streams say three lines and then nothing more; one line is new at each request."""

    def __init__(self) -> None:
        self.written = 4

    async def get(self, _: str) -> dict[str, Any]:
        return {"Config": {"Tty": True}, "State": {"Running": True}}

    @asynccontextmanager
    async def stream(
        self, _: str, __: str, *, follow: bool, since: str = "", **___: Any
    ) -> AsyncIterator[Any]:
        self.written = min(len(LINES), self.written + 1)
        # The engine's `since` means "from then on", that moment included.
        first = int(since.split(".", maxsplit=1)[0]) % 60 - 1 if since else 0
        yield _Reply(LINES[first : first + 3 if follow else self.written], follow)


class _Reply:
    def __init__(self, lines: list[bytes], follow: bool) -> None:
        self._lines, self._follow = lines, follow

    async def chunks(self) -> AsyncIterator[bytes]:
        for line in self._lines:
            await asyncio.sleep(0)
            yield line
        if self._follow:
            await asyncio.sleep(3600)


async def test_each_line_is_heard_once_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "SILENT", 0.01)
    monkeypatch.setattr(logs, "_AGAIN", 0.0)
    found: list[str] = []
    wire: Any = Forgetful()
    async with asyncio.timeout(20), aclosing(log_lines(wire, "c", 100, follow=True)) as lines:
        async for line in lines:
            found.append(line)
            if line == "line 30":
                break
    assert found == [f"line {n}" for n in range(1, 31)]
