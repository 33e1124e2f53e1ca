"""Five hundred event streams at once, some of clients that stopped reading: the loop must not slow down."""

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
STALLED = 20
"""This many of them read nothing once they are connected."""


class Listener:
    """One open stream; ``converged`` is the last generation that was reported as converged."""

    def __init__(self) -> None:
        self.converged = 0
        self.events = 0
        self.ended = False

    async def listen(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            self.events += line.startswith(b"event: ")
            if line.startswith(b"data: ") and b'"converged":true' in line:
                _, _, rest = line.partition(b'"generation":')
                self.converged = max(self.converged, int(rest.partition(b",")[0]))
        self.ended = True


@asynccontextmanager
async def listening(daemon: Daemon, count: int, *, stalled: bool = False) -> AsyncIterator[list[Listener]]:
    port = int(daemon.url.rpartition(":")[2])
    listeners, tasks, writers = [], [], []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
        writer.write(b"GET /services/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        listener = Listener()
        listeners.append(listener)
        writers.append(writer)
        if not stalled:
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
    """Return the generation, and the seconds until the reply and until it converged."""
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
    """Return the daemon's resident memory in bytes."""
    pages = Path(f"/proc/{daemon.pid}/statm").read_text().split()[1]
    return int(pages) * 4096


@pytest.mark.timeout(240)
async def test_five_hundred_listeners_do_not_slow_the_loop_and_get_every_end(a_daemon: Start) -> None:
    daemon = await asyncio.to_thread(a_daemon)
    await asyncio.to_thread(daemon.converged, 1)
    alone = [await flip(daemon, on=on) for on in (True, False, True, False)]
    before = resident(daemon)
    async with listening(daemon, MANY - STALLED) as listeners, listening(daemon, STALLED, stalled=True):
        crowded = [await flip(daemon, on=on) for on in (True, False, True, False)]
        last = crowded[-1][0]
        async with asyncio.timeout(60):
            while not all(listener.converged >= last for listener in listeners):
                await asyncio.sleep(0.05)
        assert not any(listener.ended for listener in listeners)
        assert resident(daemon) - before < 200 * 2**20
    quiet, busy = min(each[2] for each in alone), min(each[2] for each in crowded)
    # This process runs the 500 clients and shares the machine's cores with the daemon.
    assert busy < 4 * quiet + 1.5, (alone, crowded)
    assert daemon.running
