"""The cost of an idle daemon: 18 services run with their health checks."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.daemon import Daemon
from tests.bench.harness import BenchHarness, say

from .figures import Figure

_CALM = 5.0
_TICK = os.sysconf("SC_CLK_TCK")


def scenario(bench: BenchHarness) -> Iterator[Figure]:
    """CPU from /proc/PID/stat, threads and ended children included; memory from smaps_rollup."""
    bench.stand.use_interval(None)
    bench.stand.switch(())
    shares: list[float] = []
    resident: list[float] = []
    proportional: list[float] = []
    with Daemon(bench.stand, bench.state()) as daemon:
        daemon.switch(None)
        time.sleep(_CALM)
        # Three samples, because one resync more or less is a third of the figure.
        for _ in range(3):
            before, began = cpu_seconds(daemon.pid), time.monotonic()
            time.sleep(bench.idle)
            shares.append((cpu_seconds(daemon.pid) - before) / (time.monotonic() - began) * 100)
            resident.append(memory_mb(daemon.pid, "Rss"))
            proportional.append(memory_mb(daemon.pid, "Pss"))
            say(f"  {shares[-1]:.2f} %, {resident[-1]:.1f} MB, PSS {proportional[-1]:.1f} MB")
        daemon.switch(())
    yield Figure(
        what=f"idle daemon, 18 running: CPU over {bench.idle:g} s, of one core",
        values=shares,
        unit="%",
        limit=0.5,
    )
    yield Figure(what="the same: resident memory", values=resident, unit="MB", limit=80)
    yield Figure(what="the same: proportional (PSS)", values=proportional, unit="MB")


def cpu_seconds(pid: int) -> float:
    """Used by all threads of the process so far, and by children that have ended."""
    # The program's name in brackets may contain anything; numbers follow.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / _TICK


def memory_mb(pid: int, kind: str) -> float:
    """``Rss`` or ``Pss`` in MB of 10^6 bytes."""
    found = re.search(rf"^{kind}:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024 / 1e6
