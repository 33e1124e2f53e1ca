"""Memory exhaustion inside a private cgroup, without effect on the machine."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_IS_V2 = (_ROOT / "cgroup.controllers").exists()
_MB = 2**20
_MOST = 512
"""Megabytes that a hog takes at the most, whatever the limit."""

# Fills memory page by page; argv: the group's file, its oom_score_adj, most megabytes.
_HOG = """
import sys, time
for path, text in ((sys.argv[1], "0"), ("/proc/self/oom_score_adj", sys.argv[2])):
    with open(path, "w") as file:
        file.write(text)
held = []
for _ in range(int(sys.argv[3])):
    held.append(b"x" * 2**20)
time.sleep(60)
"""


class MemoryGroup:
    """One memory cgroup, of either version, with the added processes and their children.

    Raises:
        OSError: the machine does not allow one.
    """

    def __init__(self, name: str) -> None:
        self._path = (_ROOT if _IS_V2 else _ROOT / "memory") / name
        self._path.mkdir()
        if not self._limit_file.exists():
            self._path.rmdir()
            raise OSError("no memory controller for cgroups here")

    @property
    def members(self) -> Path:
        """The file that a process writes 0 into to join."""
        return self._path / "cgroup.procs"

    @property
    def _limit_file(self) -> Path:
        return self._path / ("memory.max" if _IS_V2 else "memory.limit_in_bytes")

    def add(self, pid: int) -> None:
        """Add a process; memory it already uses stays accounted to its old cgroup."""
        self.members.write_text(f"{pid}")

    def leave(self, megabytes: int) -> None:
        """Limit the group to what it uses now and this much more."""
        used = self._path / ("memory.current" if _IS_V2 else "memory.usage_in_bytes")
        self._limit_file.write_text(f"{int(used.read_text()) + megabytes * _MB}")

    def free(self) -> None:
        """No limit."""
        self._limit_file.write_text("max" if _IS_V2 else "-1")

    def close(self) -> None:
        """Remove it after its processes have ended."""
        deadline = time.monotonic() + 5.0
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                self._path.rmdir()
                return
            time.sleep(0.02)

    def hog(self, adjust: int) -> subprocess.Popen[bytes]:
        """Start a process in the group that uses all memory. The caller kills it and waits for it.

        ``adjust``: its OOM score adjustment, 0 to 1000.
        """
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _HOG, str(self.members), f"{adjust}", f"{_MOST}"],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
