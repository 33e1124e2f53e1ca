"""File watch: every way to save, replace or link an input is reported, also if its event is lost."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from reconciler.desired_state import file_watch
from reconciler.desired_state.file_watch import ProblemListener, changes
from tests.support.fixtures.desired_state import GROUPS, a_directory, a_store

Change = Callable[[Path], object]

LOST_EVENT_LIMIT = 5.0
"""Seconds within which a change is reported although its event is lost."""


class Reports:
    """What a watch yields."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[frozenset[Path]] = asyncio.Queue()

    async def next(self, seconds: float = 5.0) -> set[str]:
        return {path.name for path in await asyncio.wait_for(self.queue.get(), seconds)}

    async def next_after(self, marker: Path) -> set[str]:
        """Change ``marker`` and return the next report: ``marker`` alone if there was none before."""
        marker.write_text(str(time.perf_counter_ns()))
        return await self.next()

    def drop_all(self) -> None:
        while not self.queue.empty():
            self.queue.get_nowait()


@asynccontextmanager
async def watching(
    *inputs: Path, poll: float = 1.0, report: ProblemListener = lambda _: None
) -> AsyncIterator[Reports]:
    reports = Reports()

    async def listen() -> None:
        async with aclosing(changes(lambda: inputs, poll=poll, report=report)) as source:
            async for found in source:
                reports.queue.put_nowait(found)

    task = asyncio.create_task(listen())
    await reports.next()
    yield reports
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def save_by_rename(file: Path) -> None:
    (file.parent / "4913").write_text("vim tests for write permission")
    (file.parent / "4913").unlink()
    file.rename(file.with_name(file.name + "~"))
    file.write_text("new")
    file.with_name(file.name + "~").unlink()


def replace(file: Path) -> None:
    file.with_name(".tmp").write_text("new")
    file.with_name(".tmp").replace(file)


def append(file: Path) -> None:
    with file.open("a") as open_file:
        open_file.write("more")


def by_symbolic_link(file: Path) -> None:
    file.unlink()
    file.symlink_to("/etc/hostname")


def by_hard_link(file: Path) -> None:
    file.with_name("two").write_text("x")
    file.unlink()
    file.hardlink_to(file.with_name("two"))


SAVES: list[Change] = [
    save_by_rename,
    replace,
    append,
    lambda file: file.write_text("new"),
    lambda file: file.unlink(),
    lambda file: subprocess.run(["sed", "-i", "s/o/x/", str(file)], check=True),
    lambda file: subprocess.run(["cp", "/etc/hostname", str(file)], check=True),
    by_symbolic_link,
    by_hard_link,
]


@pytest.mark.pitfall(28)
@pytest.mark.parametrize("save", SAVES)
async def test_every_way_to_save_is_reported(tmp_path: Path, save: Change) -> None:
    file = tmp_path / "f"
    file.write_text("old")
    async with watching(file) as reports:
        save(file)
        assert await reports.next() == {"f"}


async def test_changes_of_other_files_are_not_reported(tmp_path: Path) -> None:
    file, other = tmp_path / "f", tmp_path / "g"
    (tmp_path / "logs").mkdir()
    async with watching(file, other) as reports:
        for number in range(100):
            (tmp_path / f"noise-{number}").write_text("x")
            (tmp_path / "logs/log").write_text("x")
        assert await reports.next_after(other) == {"g"}
        assert reports.queue.empty()


async def test_file_held_open_is_reported_when_closed(tmp_path: Path) -> None:
    file, other = tmp_path / "f", tmp_path / "g"
    file.write_text("old")
    async with watching(file, other) as reports:
        with file.open("a") as open_file:
            open_file.write("x")
            open_file.flush()
            assert await reports.next_after(other) == {"g"}
        assert await reports.next() == {"f"}


async def test_missing_folder_is_watched_when_it_appears(tmp_path: Path) -> None:
    file = tmp_path / "a/b/f"
    async with watching(file) as reports:
        file.parent.mkdir(parents=True)
        await reports.next()
        file.write_text("x")
        assert await reports.next() == {"f"}


@pytest.mark.pitfall(28)
async def test_directory_removed_and_created_again(tmp_path: Path) -> None:
    file = tmp_path / "d/f"
    file.parent.mkdir()
    file.write_text("x")
    async with watching(file) as reports:
        for _ in range(3):
            shutil.rmtree(file.parent)
            assert await reports.next() == {"f"}
            file.parent.mkdir()
            file.write_text("x")
            assert await reports.next() == {"f"}
        reports.drop_all()
        replace(file)
        assert await reports.next() == {"f"}


async def test_directory_moved_away_and_replaced(tmp_path: Path) -> None:
    file = tmp_path / "d/f"
    for name in ("d", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text(name)
    async with watching(file) as reports:
        (tmp_path / "d").rename(tmp_path / "old")
        (tmp_path / "new").rename(tmp_path / "d")
        assert await reports.next() == {"f"}
        replace(file)
        assert await reports.next() == {"f"}


@pytest.mark.pitfall(28)
async def test_links_swapped_in_any_parent_folder(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep/f").write_text(name)
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "d").symlink_to(tmp_path / "..data/deep")
    file = tmp_path / "d/f"
    async with watching(file) as reports:
        (tmp_path / "..next").symlink_to("two")
        (tmp_path / "..next").replace(tmp_path / "..data")
        assert await reports.next() == {"f"}
        (tmp_path / "two/deep/f").write_text("x")
        assert await reports.next() == {"f"}


async def test_burst_of_saves_takes_few_loads(tmp_path: Path) -> None:
    wake = threading.Event()
    store = a_store(a_directory(tmp_path), inputs_changed=wake.set)
    await store.load()
    file, loads = tmp_path / "groups.yaml", 0
    async with aclosing(changes(store.inputs, wake=wake)) as source:
        await anext(source)
        for number in range(100):
            file.with_name(".tmp").write_text(
                GROUPS.replace("web: off", f"web: {'on' if number % 2 else 'off'}")
            )
            file.with_name(".tmp").replace(file)
        last = file.read_bytes()
        async for _ in source:
            loads += 1
            if (await store.load()).sources["groups.yaml"] == last:
                break
    assert loads <= 5


async def test_inputs_added_by_a_load_are_watched(tmp_path: Path) -> None:
    wake = threading.Event()
    store = a_store(a_directory(tmp_path / "d"), inputs_changed=wake.set)
    (tmp_path / "more.env").write_text("A=1")
    await store.load()
    async with aclosing(changes(store.inputs, wake=wake)) as source:
        await anext(source)
        compose = tmp_path / "d/compose.yaml"
        compose.write_text(compose.read_text().replace("[db.env]", "[../more.env]"))
        assert compose in await anext(source)
        await store.load()
        assert any(path.name == "more.env" for path in await anext(source))
        (tmp_path / "more.env").write_text("A=2")
        assert any(path.name == "more.env" for path in await anext(source))


async def test_waiting_costs_little_cpu(tmp_path: Path) -> None:
    async with watching(tmp_path / "f") as reports:
        spent = []
        for _ in range(3):
            began = time.process_time()
            with pytest.raises(TimeoutError):
                await reports.next(1.0)
            spent.append(time.process_time() - began)
        # CPU time of the whole process; other work does not fall into all three seconds.
        assert min(spent) < 0.02


async def test_watch_stops_at_once(tmp_path: Path) -> None:
    """The thread ends too, so that the process can exit."""
    others = set(threading.enumerate())
    async with watching(tmp_path / "f"):
        (thread,) = (t for t in threading.enumerate() if t not in others and t.name.startswith("file-watch"))
    await asyncio.to_thread(thread.join, 2.0)
    assert not thread.is_alive()


async def test_name_that_is_not_utf8_beside_the_inputs(tmp_path: Path) -> None:
    """watchfiles fails on every event after such a name."""
    file, other = tmp_path / "f", tmp_path / "g"
    async with watching(file, other) as reports:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).write_text("x")
        assert await reports.next_after(file) == {"f"}
        assert await reports.next_after(other) == {"g"}


# --- lost events ---


WATCHER = """
import asyncio, logging, pathlib, sys
from reconciler.desired_state.file_watch import changes
logging.basicConfig(level="INFO", stream=sys.stdout, format="log: %(message)s")
async def main():
    async for found in changes(lambda: [pathlib.Path(sys.argv[1])]):
        print(*sorted(path.name for path in found), flush=True)
asyncio.run(main())
"""


@pytest.mark.pitfall(29)
def test_change_is_reported_although_the_event_queue_overflowed(tmp_path: Path) -> None:
    """The kernel drops events beyond ``fs.inotify.max_queued_events``; a stopped process reads none."""
    file = tmp_path / "f"
    file.write_text("old")
    room = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    command = [sys.executable, "-c", WATCHER, str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout is not None
        try:
            assert watcher.stdout.readline() == "f\n"
            watcher.send_signal(signal.SIGSTOP)
            noise = [tmp_path / "noise-0", tmp_path / "noise-1"]
            # Alternate two names, because the kernel merges equal events in a row; each causes several.
            for number in range(room // 2 + 1):
                noise[number % 2].touch()
                noise[number % 2].unlink()
            file.write_text("new")
            watcher.send_signal(signal.SIGCONT)
            began = time.monotonic()
            assert "without an event" in watcher.stdout.readline()
            assert watcher.stdout.readline() == "f\n"
            assert time.monotonic() - began < LOST_EVENT_LIMIT
            replace(file)
            assert watcher.stdout.readline() == "f\n"
        finally:
            watcher.kill()


@pytest.mark.pitfall(29)
async def test_change_is_reported_although_the_watch_was_removed(tmp_path: Path) -> None:
    """An unmounted file system removes its watches."""
    file = tmp_path / "f"
    file.write_text("old")
    async with watching(file) as reports:
        remove_watches()
        file.write_text("longer")
        assert await reports.next(LOST_EVENT_LIMIT) == {"f"}
        # The watch is renewed, so the next report comes with an event.
        assert await reports.next_after(file) == {"f"}


def remove_watches() -> None:
    """Remove all inotify watches of this process."""
    for descriptor in Path("/proc/self/fd").iterdir():
        if descriptor.is_symlink() and os.readlink(descriptor) == "anon_inode:inotify":
            info = Path(f"/proc/self/fdinfo/{descriptor.name}").read_text()
            for watch in re.findall(r"^inotify wd:([0-9a-f]+)", info, re.MULTILINE):
                assert ctypes.CDLL(None).inotify_rm_watch(int(descriptor.name), int(watch, 16)) == 0


# --- limits of the system ---


FULL = {
    "fs.inotify.max_user_watches": OSError('OS file watch limit reached. about ["/d"]'),
    "fs.inotify.max_user_instances": file_watch.WatchfilesRustInternalError(
        "Error creating recommended watcher: Too many open files (os error 24)"
    ),
}


def refuse(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Make watchfiles fail like a system whose limit is used up."""

    def start(_: Iterable[str], **__: object) -> None:
        raise error

    monkeypatch.setattr(file_watch, "RustNotify", start)


@pytest.mark.pitfall(29)
@pytest.mark.parametrize("setting", FULL)
async def test_files_are_polled_if_they_cannot_be_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, setting: str
) -> None:
    refuse(monkeypatch, FULL[setting])
    file = tmp_path / "f"
    file.write_text("old")
    with caplog.at_level(logging.WARNING):
        async with watching(file, poll=0.01) as reports:
            for save in SAVES[:5]:
                save(file)
                assert await reports.next() == {"f"}
                reports.drop_all()
                file.write_text("again")
                await reports.next()
    assert f"{setting} is used up" in caplog.text
    assert len(caplog.records) == 1


async def test_problem_is_reported_when_it_begins_and_when_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, problems = tmp_path / "f", asyncio.Queue[str]()
    file.write_text("old")
    with monkeypatch.context() as limit:
        refuse(limit, FULL["fs.inotify.max_user_watches"])
        async with watching(file, poll=0.01, report=problems.put_nowait) as reports:
            assert "fs.inotify.max_user_watches" in await asyncio.wait_for(problems.get(), 5)
            limit.undo()
            async with asyncio.timeout(5):
                while await problems.get():
                    pass
            reports.drop_all()
            replace(file)
            assert await reports.next() == {"f"}


UNSHARE = ("unshare", "--user", "--map-root-user", "sh", "-c")


@pytest.mark.pitfall(29)
@pytest.mark.parametrize(
    ("limit", "setting"),
    [("max_inotify_watches", "max_user_watches"), ("max_inotify_instances", "max_user_instances")],
)
def test_used_up_limits_of_the_kernel_are_named(tmp_path: Path, limit: str, setting: str) -> None:
    """In a user namespace that allows none."""
    script = (
        "import pathlib, sys; from reconciler.desired_state.file_watch import watch_problem\n"
        "print(watch_problem(pathlib.Path(sys.argv[1])))"
    )
    limited = f'echo 0 >/proc/sys/user/{limit} && exec "$@"'
    done = subprocess.run(
        [*UNSHARE, limited, "sh", sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"fs.inotify.{setting} is used up: raise it with sysctl\n"
