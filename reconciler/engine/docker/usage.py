"""Measures memory and CPU: from cgroup files if the engine is on this host, else through the API.

A few file reads per container replace an API call for which the engine samples for a second or two.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from reconciler.model.observed import Container, Usage

_CGROUP = Path("/sys/fs/cgroup")
_PROC = Path("/proc")


class UsageSample(NamedTuple):
    """Memory in bytes, and CPU seconds used since the container started."""

    memory: int
    cpu_seconds: float


class CpuMeter:
    """Turns samples into usage. CPU percent is measured since the previous sample."""

    def __init__(self) -> None:
        self._before: dict[tuple[str, float], tuple[float, float]] = {}

    def usage(self, samples: Mapping[Container, UsageSample]) -> dict[str, Usage]:
        """Return the usage by container id; forgets containers that are not in ``samples``."""
        now = time.monotonic()
        found: dict[str, Usage] = {}
        kept: dict[tuple[str, float], tuple[float, float]] = {}
        for container, sample in samples.items():
            key = (container.id, container.started_at)
            kept[key] = (now, sample.cpu_seconds)
            found[container.id] = Usage(sample.memory, self._percent(key, now, sample, container))
        self._before = kept
        return found

    def _percent(
        self, key: tuple[str, float], now: float, sample: UsageSample, container: Container
    ) -> float:
        before = self._before.get(key)
        if before is None:
            # The first sample can only be compared with the start.
            passed, used = time.time() - container.started_at, sample.cpu_seconds
        else:
            passed, used = now - before[0], sample.cpu_seconds - before[1]
        return round(max(0.0, 100.0 * used / passed), 1) if passed > 0 else 0.0


def read_all(containers: Iterable[Container]) -> dict[Container, UsageSample]:
    """Read samples from cgroup files, without containers that have no readable ones. Blocks briefly."""
    samples = ((container, _read(container)) for container in containers)
    return {container: sample for container, sample in samples if sample is not None}


def from_api(stats: Mapping[str, Any]) -> UsageSample | None:
    """Return a sample from the engine's own statistics; None if it has none."""
    memory = stats.get("memory_stats") or {}
    used = memory.get("usage")
    if used is None:
        return None
    details = memory.get("stats") or {}
    inactive = details.get("total_inactive_file", details.get("inactive_file", 0))
    cpu = ((stats.get("cpu_stats") or {}).get("cpu_usage") or {}).get("total_usage", 0)
    return UsageSample(_working_set(used, inactive), cpu / 1e9)


def _read(container: Container) -> UsageSample | None:
    try:
        groups = _groups(container)
        return _version_1(groups) if "memory" in groups else _version_2(groups)
    except (OSError, ValueError, KeyError):
        return None


def _groups(container: Container) -> dict[str, Path]:
    """Return the container's cgroup folder by controller, "" for version 2.

    Raises:
        KeyError: the process is not of this container: the engine counts its processes elsewhere.
    """
    found: dict[str, Path] = {}
    for line in (_PROC / str(container.pid) / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if container.id in path:
            for controller in controllers.split(","):
                folder = _CGROUP / controller if controller else _CGROUP
                found[controller] = folder / _own_group(path, container.id)
    if not found:
        raise KeyError(container.id)
    return found


def _own_group(path: str, id: str) -> str:
    # crun puts the processes one level deeper, where the controllers may not count.
    parts = path.strip("/").split("/")
    last = max(place for place, part in enumerate(parts) if id in part)
    return "/".join(parts[: last + 1])


def _version_1(groups: Mapping[str, Path]) -> UsageSample:
    memory = groups["memory"]
    used = int((memory / "memory.usage_in_bytes").read_text())
    inactive = _field(memory / "memory.stat", "total_inactive_file")
    nanoseconds = int((groups["cpuacct"] / "cpuacct.usage").read_text())
    return UsageSample(_working_set(used, inactive), nanoseconds / 1e9)


def _version_2(groups: Mapping[str, Path]) -> UsageSample:
    folder = groups[""]
    used = int((folder / "memory.current").read_text())
    inactive = _field(folder / "memory.stat", "inactive_file")
    return UsageSample(_working_set(used, inactive), _field(folder / "cpu.stat", "usage_usec") / 1e6)


def _working_set(used: int, inactive: int) -> int:
    # As `docker stats` counts: the kernel frees file pages that were not used lately when it needs memory.
    return used - inactive if inactive < used else used


def _field(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0
