"""Resource usage of the daemon: memory, threads, file descriptors, from the kernel."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

_PAGE = os.sysconf("SC_PAGE_SIZE")


class ResourceUsage(NamedTuple):
    """At the end of a round; ``age`` counts the rounds of this process, ``rss`` is in bytes."""

    pid: int
    age: int
    rss: int
    threads: int
    descriptors: int


def vitals_of(pid: int, age: int) -> ResourceUsage:
    """Measure it now."""
    proc = Path("/proc") / str(pid)
    resident = int((proc / "statm").read_text().split()[1])
    return ResourceUsage(
        pid,
        age,
        resident * _PAGE,
        len(list((proc / "task").iterdir())),
        len(list((proc / "fd").iterdir())),
    )
