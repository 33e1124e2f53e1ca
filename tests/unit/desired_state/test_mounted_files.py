"""What is seen of mounted paths: files once they stand still, everything else as cheaply as can be."""

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
    """A wall clock and a monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.mono = 100.0
        self.ahead = 1000.0

    def wall(self) -> float:
        # Ahead of every file: what was written before is settled.
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


def test_each_kind_of_thing_is_told_from_the_others(sources: MountedFiles, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("one")
    os.mkfifo(tmp_path / "pipe")
    names = ("file", "gone", "pipe", ".", "file/below")
    seen = sources.observe(of(*(tmp_path / name for name in names))).sources
    kinds = [seen[str(tmp_path / name)].kind for name in names]
    assert kinds == ["file", "missing", "other", "folder", "missing"]


def test_equal_content_has_equal_digests_whatever_the_file(sources: MountedFiles, tmp_path: Path) -> None:
    for name, text in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / name).write_text(text)
    a, b, c = sources.observe(of(*(tmp_path / n for n in "abc"))).sources.values()
    assert a.digest == b.digest != c.digest
    assert len({a.inode, b.inode, c.inode}) == 3


def test_a_change_counts_once_the_file_stood_still(
    sources: MountedFiles, clock: Clock, tmp_path: Path
) -> None:
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
    file.write_text("whole")
    assert sources.observe(stack).sources == moving
    clock.mono += SETTLE_TIME / 2
    assert sources.observe(stack).sources == moving
    clock.mono += SETTLE_TIME
    after = sources.observe(stack)
    assert after.again is None
    assert after.sources[str(file)].digest != was.digest
    assert not after.sources[str(file)].moving


def test_a_change_waits_for_desired_state_that_is_being_read_but_not_for_ever(
    clock: Clock, tmp_path: Path
) -> None:
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


def test_what_is_gone_is_said_at_once_and_what_comes_back_once_it_stands_still(
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


def test_a_file_held_open_for_writing_is_waited_for_but_not_for_ever(
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


def test_nothing_is_read_that_did_not_move(
    sources: MountedFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("one")
    stack = of(tmp_path / "file")
    before = sources.observe(stack)
    monkeypatch.setattr(module, "_digest", lambda _: pytest.fail("read again"))
    assert sources.observe(stack) == before


def test_a_large_file_is_only_looked_at_and_that_is_said(sources: MountedFiles, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 101)
    seen = sources.observe(of(file))
    assert seen.sources[str(file)].digest == ""
    assert seen.sources[str(file)].inode
    assert "not detected" in seen.notes[0]


def test_what_may_not_be_read_is_there(
    sources: MountedFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: str) -> str:
        raise PermissionError

    (tmp_path / "file").write_text("one")
    monkeypatch.setattr(module, "_digest", refused)
    seen = sources.observe(of(tmp_path / "file"))
    assert [s.kind for s in seen.sources.values()] == ["unreadable"]
    assert seen.notes


def test_which_file_a_container_holds_is_seen_through_its_process(clock: Clock, tmp_path: Path) -> None:
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
    # The target of a link inside the container is unknown outside.
    assert sources.observe(of(file, target="/link/hostname"), [runs]).held == {}


def test_a_file_system_that_hangs_holds_up_no_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
