"""Every way in which a file can be replaced is noticed; nothing else is."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from reconciler.desired_state.file_watch import Listener, changes
from reconciler.host import inotify
from tests.support.fixtures.desired_state import GROUPS, a_directory, a_store

Change = Callable[[Path], object]


class Heard:
    """What a watcher yielded, as it comes."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[frozenset[str]] = asyncio.Queue()

    async def next(self, seconds: float = 5.0) -> set[str]:
        return {Path(path).name for path in await asyncio.wait_for(self.queue.get(), seconds)}

    async def silent(self, marker: Path) -> set[str]:
        """What is heard up to and with a change of ``marker``: that alone, if all before was no news."""
        marker.write_text(str(time.perf_counter_ns()))
        return await self.next()


@asynccontextmanager
async def watching(
    *inputs: Path, directory: Path | None = None, poll: float = 1.0, told: Listener = lambda _: None
) -> AsyncIterator[Heard]:
    heard = Heard()

    async def listen() -> None:
        async with aclosing(changes(lambda: inputs, directory=directory, poll=poll, told=told)) as source:
            async for found in source:
                heard.queue.put_nowait(found)

    task = asyncio.create_task(listen())
    await heard.next()
    yield heard
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def save_by_rename(file: Path) -> None:
    (file.parent / "4913").write_text("vim tries whether it may")
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
async def test_every_way_to_save_is_heard(tmp_path: Path, save: Change) -> None:
    file = tmp_path / "f"
    file.write_text("old")
    async with watching(file) as heard:
        save(file)
        assert await heard.next() == {"f"}


async def test_noise_beside_the_inputs_is_not_heard(tmp_path: Path) -> None:
    file, other = tmp_path / "f", tmp_path / "g"
    (tmp_path / "logs").mkdir()
    async with watching(file, other) as heard:
        for number in range(100):
            (tmp_path / f"noise-{number}").write_text("x")
            (tmp_path / "logs/log").write_text("x")
        assert await heard.silent(other) == {"g"}
        assert heard.queue.empty()


async def test_a_file_held_open_is_heard_when_closed(tmp_path: Path) -> None:
    file, other = tmp_path / "f", tmp_path / "g"
    file.write_text("old")
    async with watching(file, other) as heard:
        with file.open("a") as open_file:
            open_file.write("x")
            open_file.flush()
            assert await heard.silent(other) == {"g"}
        assert await heard.next() == {"f"}


async def test_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    file = tmp_path / "a/b/f"
    async with watching(file) as heard:
        file.parent.mkdir(parents=True)
        await heard.next()
        file.write_text("x")
        assert await heard.next() == {"f"}


@pytest.mark.pitfall(28)
async def test_a_directory_removed_and_made_again(tmp_path: Path) -> None:
    file = tmp_path / "d/f"
    file.parent.mkdir()
    file.write_text("x")
    async with watching(file, directory=file.parent) as heard:
        for _ in range(3):
            shutil.rmtree(file.parent)
            assert await heard.next() == {"f"}
            file.parent.mkdir()
            file.write_text("x")
            assert await heard.next() == {"f"}
        while not heard.queue.empty():
            heard.queue.get_nowait()
        replace(file)
        assert await heard.next() == {"f"}


async def test_a_directory_moved_away_and_another_put_there(tmp_path: Path) -> None:
    file = tmp_path / "d/f"
    for name in ("d", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text(name)
    async with watching(file, directory=file.parent) as heard:
        (tmp_path / "d").rename(tmp_path / "old")
        (tmp_path / "new").rename(tmp_path / "d")
        assert await heard.next() == {"f"}
        replace(file)
        assert await heard.next() == {"f"}


@pytest.mark.pitfall(28)
async def test_links_swapped_anywhere_above(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep/f").write_text(name)
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "d").symlink_to(tmp_path / "..data/deep")
    file = tmp_path / "d/f"
    async with watching(file, directory=file.parent) as heard:
        (tmp_path / "..next").symlink_to("two")
        (tmp_path / "..next").replace(tmp_path / "..data")
        assert await heard.next() == {"f"}
        (tmp_path / "two/deep/f").write_text("x")
        assert await heard.next() == {"f"}


async def test_a_burst_ends_in_one_consistent_state(tmp_path: Path) -> None:
    store = a_store(a_directory(tmp_path))
    await store.load()
    file, loads = tmp_path / "groups.yaml", 0
    async with aclosing(store.changes()) as source:
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


async def test_inputs_that_a_load_adds_are_watched(tmp_path: Path) -> None:
    store = a_store(a_directory(tmp_path / "d"))
    (tmp_path / "more.env").write_text("A=1")
    await store.load()
    async with aclosing(store.changes()) as source:
        await anext(source)
        compose = tmp_path / "d/compose.yaml"
        compose.write_text(compose.read_text().replace("[db.env]", "[../more.env]"))
        assert str(compose) in await anext(source)
        await store.load()
        assert any(path.endswith("more.env") for path in await anext(source))
        (tmp_path / "more.env").write_text("A=2")
        assert any(path.endswith("more.env") for path in await anext(source))


async def test_waiting_costs_no_cpu(tmp_path: Path) -> None:
    async with watching(tmp_path / "f") as heard:
        spent = []
        for _ in range(3):
            began = time.process_time()
            with pytest.raises(TimeoutError):
                await heard.next(1.0)
            spent.append(time.process_time() - began)
        # Of the whole process: whatever else it does in one of these seconds, it does not do in all.
        assert min(spent) < 0.02


@pytest.mark.pitfall(29)
async def test_lost_notices_are_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "f"
    file.write_text("old")
    read = inotify.Inotify.read

    def overflowing(self: inotify.Inotify) -> object:
        list(read(self))
        yield inotify.Event(-1, inotify.OVERFLOW, "")

    async with watching(file) as heard:
        monkeypatch.setattr(inotify.Inotify, "read", overflowing)
        (tmp_path / "other").write_text("x")
        assert await heard.next() == {"f"}


@pytest.mark.pitfall(29)
async def test_without_notification_files_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(inotify.Inotify, "watch", _refusing(errno.ENOSPC))
    file = tmp_path / "f"
    file.write_text("old")
    with caplog.at_level(logging.WARNING):
        async with watching(file, poll=0.01) as heard:
            for save in SAVES[:5]:
                save(file)
                assert await heard.next() == {"f"}
                while not heard.queue.empty():
                    heard.queue.get_nowait()
                file.write_text("again")
                await heard.next()
    assert "fs.inotify.max_user_watches is used up" in caplog.text
    assert len(caplog.records) == 1


async def test_what_keeps_files_from_being_watched_is_told_and_so_is_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, told = tmp_path / "f", asyncio.Queue[str]()
    file.write_text("old")
    with monkeypatch.context() as limit:
        limit.setattr(inotify.Inotify, "watch", _refusing(errno.ENOSPC))
        async with watching(file, poll=0.01, told=told.put_nowait) as heard:
            assert "fs.inotify.max_user_watches" in await asyncio.wait_for(told.get(), 5)
            limit.undo()
            assert not await asyncio.wait_for(told.get(), 5)
            while not heard.queue.empty():
                heard.queue.get_nowait()
            replace(file)
            assert await heard.next() == {"f"}


def _refusing(number: int) -> Callable[..., int]:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    return refuse
