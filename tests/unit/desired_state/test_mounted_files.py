"""Observation of mounted paths: files once they are stable, everything else by its kind."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from reconciler.desired_state import mounted_files as module
from reconciler.desired_state.mounted_files import SETTLE_TIME, MountedFiles
from reconciler.model.observed import HostPath, ObservedState
from reconciler.model.stack import Mount, Stack
from tests.support.fixtures.builders import a_stack, container, service


class Clock:
    """A wall clock and a monotonic clock, set by the test."""

    def __init__(self) -> None:
        self.mono = 100.0
        self.ahead = 1000.0

    def wall(self) -> float:
        # Ahead of every file, so that files written before are settled.
        return 4e9 + self.ahead


def of(*paths: Path, target: str = "/t") -> Stack:
    mounts = tuple(Mount("bind", f"{target}{n}", str(path)) for n, path in enumerate(paths))
    return a_stack({"g": [service("a", mounts=mounts)]})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sources(clock: Clock) -> MountedFiles:
    return MountedFiles(wall=clock.wall, now=lambda: clock.mono, limit=100)


def test_kinds_of_paths(sources: MountedFiles, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("one")
    os.mkfifo(tmp_path / "pipe")
    names = ("file", "gone", "pipe", ".", "file/below")
    seen = sources.observe(of(*(tmp_path / name for name in names))).sources
    kinds = [seen[str(tmp_path / name)].kind for name in names]
    assert kinds == ["file", "missing", "other", "folder", "missing"]


def test_equal_content_has_equal_digests(sources: MountedFiles, tmp_path: Path) -> None:
    for name, text in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / name).write_text(text)
    a, b, c = sources.observe(of(*(tmp_path / n for n in "abc"))).sources.values()
    assert a.digest == b.digest != c.digest
    assert len({a.inode, b.inode, c.inode}) == 3


def test_change_counts_once_the_file_is_stable(sources: MountedFiles, clock: Clock, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one")
    stack = of(file)
    before = sources.observe(stack)
    was, moving = before.sources[str(file)], {str(file): before.sources[str(file)]._replace(moving=True)}
    assert before.again is None
    file.write_text("half")
    seen = sources.observe(stack)
    assert seen.sources == moving
    assert seen.again == clock.mono + SETTLE_TIME
    clock.mono += SETTLE_TIME / 2
    file.write_text("complete")
    assert sources.observe(stack).sources == moving
    clock.mono += SETTLE_TIME / 2
    assert sources.observe(stack).sources == moving
    clock.mono += SETTLE_TIME
    after = sources.observe(stack)
    assert after.again is None
    assert after.sources[str(file)].digest != was.digest
    assert not after.sources[str(file)].moving


def test_change_waits_for_a_read_of_desired_state_up_to_a_limit(clock: Clock, tmp_path: Path) -> None:
    reading = True
    sources = MountedFiles(wall=clock.wall, now=lambda: clock.mono, reading=lambda: reading)
    file = tmp_path / "file"
    file.write_text("one")
    stack = of(file)
    was = sources.observe(stack).sources[str(file)]
    file.write_text("other")
    sources.observe(stack)
    clock.mono += 2 * SETTLE_TIME
    seen = sources.observe(stack)
    assert seen.sources[str(file)] == was._replace(moving=True)
    assert seen.again is not None
    assert clock.mono < seen.again < clock.mono + SETTLE_TIME
    reading = False
    assert sources.observe(stack).sources[str(file)].digest != was.digest
    reading = True
    file.write_text("yet another")
    sources.observe(stack)
    clock.mono += module.UNSTABLE_TIMEOUT
    assert sources.observe(stack).sources[str(file)].digest not in {was.digest, ""}
    assert not sources.observe(stack).sources[str(file)].moving


def test_missing_file_is_reported_at_once_and_a_new_file_once_stable(
    sources: MountedFiles, clock: Clock, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("one")
    stack = of(file)
    before = sources.observe(stack).sources[str(file)]
    file.unlink()
    assert sources.observe(stack).sources[str(file)] == HostPath("missing")
    file.write_text("one")
    assert sources.observe(stack).sources[str(file)] == HostPath("missing", moving=True)
    clock.mono += SETTLE_TIME
    after = sources.observe(stack).sources[str(file)]
    assert (after.kind, after.digest, after.moving) == ("file", before.digest, False)


def test_file_open_for_writing_is_waited_for_up_to_a_limit(
    sources: MountedFiles, clock: Clock, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("one")
    stack = of(file)
    before = sources.observe(stack).sources
    with file.open("w") as writer:
        writer.write("two")
        writer.flush()
        for _ in range(3):
            clock.mono += SETTLE_TIME
            assert sources.observe(stack).sources[str(file)].digest == before[str(file)].digest
        clock.mono += module.OPEN_FILE_TIMEOUT
        assert sources.observe(stack).sources != before


def test_unchanged_file_is_not_read(
    sources: MountedFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("one")
    stack = of(tmp_path / "file")
    before = sources.observe(stack)
    monkeypatch.setattr(module, "_digest", lambda _: pytest.fail("read again"))
    assert sources.observe(stack) == before


def test_large_file_is_not_digested_and_reported(sources: MountedFiles, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 101)
    seen = sources.observe(of(file))
    assert seen.sources[str(file)].digest == ""
    assert seen.sources[str(file)].inode
    assert "not detected" in seen.notes[0]


def test_unreadable_file_is_observed(
    sources: MountedFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: str) -> str:
        raise PermissionError

    (tmp_path / "file").write_text("one")
    monkeypatch.setattr(module, "_digest", refused)
    seen = sources.observe(of(tmp_path / "file"))
    assert [s.kind for s in seen.sources.values()] == ["unreadable"]
    assert seen.notes


def test_mounted_inode_is_read_through_the_process(clock: Clock, tmp_path: Path) -> None:
    file, root = tmp_path / "file", tmp_path / "proc" / "7" / "root"
    file.write_text("one")
    root.mkdir(parents=True)
    os.link(file, root / "t0")
    (root / "link").symlink_to("/etc")
    sources = MountedFiles(wall=clock.wall, proc=tmp_path / "proc")
    stack = of(file)
    runs = container(stack.services["a"], pid=7)
    seen = sources.observe(stack, [runs])
    assert seen.held == {("id-a", "/t0"): seen.sources[str(file)].inode}
    assert sources.observe(stack, [container(stack.services["a"], pid=8)]).held == {}
    # The target of a link inside the container is unknown on the host.
    assert sources.observe(of(file, target="/link/hostname"), [runs]).held == {}


def test_hanging_file_system_delays_no_observation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    let_go = threading.Event()
    monkeypatch.setattr(module, "STAT_TIMEOUT", 0.05)

    async def run() -> None:
        sources = MountedFiles()
        monkeypatch.setattr(sources, "observe", lambda *_: let_go.wait(5))
        observed = await sources.observe_mounts(ObservedState(), of(tmp_path / "file"))
        assert observed.sources == {}
        let_go.set()

    asyncio.run(run())
