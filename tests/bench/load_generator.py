"""Readers of the status: how many the daemon serves on one core, also while its engine hangs.

Runs as a program of its own (``python -m tests.bench.load_generator PORT SECONDS CORE``), so that the
clients have one core and the daemon the other.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.daemon import Daemon
from tests.bench.figures import Figure
from tests.bench.fixture_stack import ROOT
from tests.bench.harness import BenchHarness, say

CLIENTS = 10
_SECONDS = 4.0
_HUNG_FOR = 3.0


def scenario(bench: BenchHarness) -> Iterator[Figure]:
    """``GET /services/status`` from 10 clients that repeat as soon as they get a response."""
    bench.stand.use_interval(None)
    bench.stand.switch(())
    cores = sorted(os.sched_getaffinity(0))
    with Daemon(bench.stand, bench.state()) as daemon:
        daemon.switch(None)
        time.sleep(2.0)
        _pin(daemon.pid, cores[0])
        well = [_ask(daemon.port, cores[-1]) for _ in range(max(3, bench.runs))]
        with bench.engine.frozen():
            time.sleep(_HUNG_FOR)
            hung = [_ask(daemon.port, cores[-1]) for _ in range(max(3, bench.runs))]
        daemon.settled(0)
        daemon.switch(())
    for what, results in (("", well), (", engine hung (SIGSTOP)", hung)):
        yield Figure(
            what=f"GET /services/status, {CLIENTS} clients, daemon on one core{what}",
            values=[t["rate"] for t in results],
            unit="requests/s",
            limit=1500,
            least=True,
        )
        yield Figure(what="the same, p50", values=[t["p50"] for t in results], unit="ms")
        yield Figure(what="the same, p99", values=[t["p99"] for t in results], unit="ms", limit=25)


def _pin(pid: int, core: int) -> None:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


def _ask(port: int, core: int) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.load_generator", str(port), str(_SECONDS), str(core)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)
    result: dict[str, float] = json.loads(done.stdout)
    say(f"  {result}")
    return result


async def _client(port: int, until: float, times: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = f"GET /services/status HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    while time.perf_counter() < until:
        began = time.perf_counter()
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(head.decode())
        await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        times.append(time.perf_counter() - began)
    writer.close()


async def _measure(port: int, seconds: float) -> dict[str, float]:
    times: list[float] = []
    until = time.perf_counter() + seconds
    await asyncio.gather(*(_client(port, until, times) for _ in range(CLIENTS)))
    times.sort()
    return {
        "rate": round(len(times) / seconds),
        "p50": round(times[len(times) // 2] * 1000, 2),
        "p99": round(times[int(len(times) * 0.99)] * 1000, 2),
    }


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(sys.argv[3])})
    print(json.dumps(asyncio.run(_measure(int(sys.argv[1]), float(sys.argv[2])))))
