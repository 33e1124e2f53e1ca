"""Five hundred who listen at once, and some who have stopped reading: the loop must not notice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.rest.conftest import Start
from tests.support.fixtures.http_client import ask
from tests.support.harness.daemon import Daemon

MANY = 500
DEAF = 20
"""Of them take nothing once they are connected."""


class Listener:
    """One open stream; ``heard`` is the last generation that it was told has converged."""

    def __init__(self) -> None:
        self.heard = 0
        self.events = 0
        self.ended = False

    async def listen(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            self.events += line.startswith(b"event: ")
            if line.startswith(b"data: ") and b'"converged":true' in line:
                _, _, rest = line.partition(b'"generation":')
                self.heard = max(self.heard, int(rest.partition(b",")[0]))
        self.ended = True


@asynccontextmanager
async def listening(daemon: Daemon, count: int, *, deaf: bool = False) -> AsyncIterator[list[Listener]]:
    port = int(daemon.url.rpartition(":")[2])
    listeners, tasks, writers = [], [], []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
        writer.write(b"GET /services/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        listener = Listener()
        listeners.append(listener)
        writers.append(writer)
        if not deaf:
            tasks.append(asyncio.create_task(listener.listen(reader)))
        elif not writers[1:]:
            await reader.readline()
    try:
        yield listeners
    finally:
        for task in tasks:
            task.cancel()
        for writer in writers:
            writer.close()
        await asyncio.gather(*tasks, return_exceptions=True)


async def flip(daemon: Daemon, *, on: bool) -> tuple[int, float, float]:
    """The generation, and the seconds until the reply and until it converged."""
    began = time.monotonic()
    word = "start" if on else "stop"
    answer = await asyncio.to_thread(ask, daemon, "POST", f"/services/{word}/monitoring")
    replied = time.monotonic() - began
    generation = answer.value["generation"]
    path = f"/services/progress/{generation}?wait=60"
    ended = await asyncio.to_thread(ask, daemon, "GET", path, timeout=70.0)
    assert ended.value["state"] == "converged"
    return generation, replied, time.monotonic() - began


def resident(daemon: Daemon) -> int:
    """Bytes of memory that the daemon holds."""
    pages = Path(f"/proc/{daemon.pid}/statm").read_text().split()[1]
    return int(pages) * 4096


@pytest.mark.timeout(240)
async def test_five_hundred_listeners_slow_nothing_and_all_hear_the_end(a_daemon: Start) -> None:
    daemon = await asyncio.to_thread(a_daemon)
    await asyncio.to_thread(daemon.converged, 1)
    alone = [await flip(daemon, on=on) for on in (True, False, True, False)]
    before = resident(daemon)
    async with listening(daemon, MANY - DEAF) as listeners, listening(daemon, DEAF, deaf=True):
        crowded = [await flip(daemon, on=on) for on in (True, False, True, False)]
        last = crowded[-1][0]
        async with asyncio.timeout(60):
            while not all(listener.heard >= last for listener in listeners):
                await asyncio.sleep(0.05)
        assert not any(listener.ended for listener in listeners)
        assert resident(daemon) - before < 200 * 2**20
    quiet, busy = min(each[2] for each in alone), min(each[2] for each in crowded)
    # This process is the five hundred, and shares the machine's cores with the daemon.
    assert busy < 4 * quiet + 1.5, (alone, crowded)
    assert daemon.running
