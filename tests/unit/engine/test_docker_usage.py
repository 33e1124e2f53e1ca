"""Memory and CPU from cgroup files, over the trees that engines leave."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.engine.docker import usage
from reconciler.model.observed import Container, State

ID = "4c1d5e8a0b7f"
CONTAINER = Container(id=ID, name="web", service="web", state=State.RUNNING, pid=42)
VERSION_2 = {
    "memory.current": "5000",
    "memory.stat": "anon 1\ninactive_file 1000\n",
    "cpu.stat": "usage_usec 2500000\n",
}
VERSION_1 = {
    "memory/{}/memory.usage_in_bytes": "5000",
    "memory/{}/memory.stat": "cache 1\ntotal_inactive_file 1000\n",
    "cpuacct/{}/cpuacct.usage": "2500000000",
}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(usage, "_CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(usage, "_PROC", tmp_path / "proc")
    return tmp_path


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize(
    ("path", "below"),
    [
        (f"system.slice/docker-{ID}.scope", ""),
        (f"docker/{ID}", ""),
        (f"machine.slice/libpod-{ID}.scope", "/container"),
        (f"user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope", "/container"),
        (f"libpod_parent/libpod-{ID}", ""),
    ],
)
def test_version_2(tree: Path, path: str, below: str) -> None:
    write(tree / "proc/42/cgroup", f"0::/{path}{below}\n")
    for name, text in VERSION_2.items():
        write(tree / "cgroup" / path / name, text)
    assert usage.read_all([CONTAINER]) == {CONTAINER: usage.UsageSample(4000, 2.5)}


def test_version_1(tree: Path) -> None:
    lines = [f"5:memory:/docker/{ID}", f"4:cpu,cpuacct:/docker/{ID}", "1:name=systemd:/", "0::/"]
    write(tree / "proc/42/cgroup", "\n".join(lines))
    for name, text in VERSION_1.items():
        write(tree / "cgroup" / name.format(f"docker/{ID}"), text)
    assert usage.read_all([CONTAINER]) == {CONTAINER: usage.UsageSample(4000, 2.5)}


def test_without_a_memory_controller_nothing_is_measured(tree: Path) -> None:
    write(tree / "proc/42/cgroup", f"0::/libpod_parent/libpod-{ID}\n")
    write(tree / f"cgroup/libpod_parent/libpod-{ID}/cpu.stat", "usage_usec 1\n")
    assert usage.read_all([CONTAINER]) == {}


def test_another_process_with_the_pid_is_not_measured(tree: Path) -> None:
    write(tree / "proc/42/cgroup", "0::/user.slice\n")
    for name, text in VERSION_2.items():
        write(tree / "cgroup/user.slice" / name, text)
    assert usage.read_all([CONTAINER]) == {}
