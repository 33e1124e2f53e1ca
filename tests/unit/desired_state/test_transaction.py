"""Writes of the store: based on the files on disk, all or nothing."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from reconciler.desired_state import atomic_replace as exchange
from reconciler.desired_state import transaction
from reconciler.errors import InvalidDesiredState, WriteRefused
from tests.support.fixtures.desired_state import COMPOSE, GROUPS, STACK, a_directory, a_store, switch

UNRELATED = STACK.replace("    depends_on: {base: on}\n", "")
"""The stack without a dependency between its groups."""


async def test_write_changes_one_word(tmp_path: Path) -> None:
    store = a_store(a_directory(tmp_path))
    before = set(os.listdir(tmp_path))
    written = await store.write(switch("web"))
    assert written.changed
    assert (tmp_path / "groups.yaml").read_text() == GROUPS.replace("web: off", "web: on")
    loaded = await store.load()
    assert loaded.desired == written.after.desired
    assert loaded.sources == written.after.sources
    assert set(os.listdir(tmp_path)) == before


async def test_write_without_a_change_writes_nothing(tmp_path: Path) -> None:
    store = a_store(a_directory(tmp_path))
    inode = (tmp_path / "groups.yaml").stat().st_ino
    written = await store.write(switch("web", on=False))
    assert not written.changed
    assert written.before is written.after
    assert (tmp_path / "groups.yaml").stat().st_ino == inode


async def test_unread_edit_of_the_file_is_loaded_first(tmp_path: Path) -> None:
    store = a_store(a_directory(tmp_path, stack=UNRELATED))
    await store.load()
    (tmp_path / "groups.yaml").write_text(GROUPS.replace("base: on", "base: off"))
    written = await store.write(switch("web"))
    assert not written.before.desired.groups["base"].on
    assert {n: s.on for n, s in written.after.desired.groups.items()} == {"base": False, "web": True}


async def test_concurrent_edit_is_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, file = a_store(a_directory(tmp_path, stack=UNRELATED)), tmp_path / "groups.yaml"
    real = exchange._exchange
    edits = iter([GROUPS.replace("base: on", "base: off")])

    def racing(one: Path, other: Path) -> bool:
        for content in edits:
            (tmp_path / "editor").write_text(content)
            (tmp_path / "editor").replace(file)
        return real(one, other)

    monkeypatch.setattr(exchange, "_exchange", racing)
    written = await store.write(switch("web"))
    assert not written.before.desired.groups["base"].on
    assert file.read_text() == GROUPS.replace("base: on", "base: off").replace("web: off", "web: on")


async def test_concurrent_writes_take_turns(tmp_path: Path) -> None:
    store = a_store(a_directory(tmp_path))
    writes = [store.write(switch(name, on=on)) for name in ("base", "web") for on in (True, False, True)]
    await asyncio.gather(*writes)
    assert {n: s.on for n, s in (await store.load()).desired.groups.items()} == {"base": True, "web": True}


@pytest.mark.parametrize("content", ["", "groups: {", "groups: {base: on}\n", "groups: {base: on, web: no}"])
async def test_broken_file_is_not_overwritten(tmp_path: Path, content: str) -> None:
    store = a_store(a_directory(tmp_path))
    await store.load()
    (tmp_path / "groups.yaml").write_text(content)
    with pytest.raises(WriteRefused) as caught:
        await store.write(switch("web"))
    assert caught.value.reason == "desired_state_invalid"
    assert isinstance(caught.value.__cause__, InvalidDesiredState)
    assert (tmp_path / "groups.yaml").read_text() == content


async def test_edit_is_resolved_against_the_files_on_disk(tmp_path: Path) -> None:
    store = a_store(a_directory(tmp_path))
    await store.load()
    off = GROUPS.replace("base: on", "base: off")
    (tmp_path / "groups.yaml").write_text(off)
    with pytest.raises(WriteRefused, match="web needs base, which is off") as caught:
        await store.write(switch("web"))
    assert (caught.value.reason, caught.value.remedy) == (
        "dependency_off",
        "add with_dependencies=true to start base as well, or force=true to start web without",
    )
    assert (tmp_path / "groups.yaml").read_text() == off


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EBUSY])
async def test_failing_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def failing(*_: object) -> bool:
        raise OSError(number, os.strerror(number), "groups.yaml")

    monkeypatch.setattr(transaction, "atomic_replace", failing)
    with pytest.raises(WriteRefused, match=os.strerror(number)) as caught:
        await a_store(a_directory(tmp_path)).write(switch("web"))
    assert caught.value.reason == "not_writable"
    assert (tmp_path / "groups.yaml").read_text() == GROUPS


async def test_restore_is_exact(tmp_path: Path) -> None:
    store = a_store(a_directory(tmp_path))
    then = (await store.load()).sources
    a_directory(
        tmp_path,
        compose=COMPOSE.replace("db:1", "db:2"),
        stack=STACK + "prune: true\n",
        groups=GROUPS + "# x\n",
    )
    (tmp_path / "db.env").write_text("A=2")
    written = await store.restore(then)
    assert written.changed
    assert written.before.stack.prune
    assert written.after.sources == then
    assert {name: (tmp_path / name).read_bytes() for name in then} == then
    assert not (await store.restore(then)).changed


async def test_invalid_restore_is_rolled_back(tmp_path: Path) -> None:
    store = a_store(a_directory(tmp_path))
    then = {**(await store.load()).sources, "stack.yaml": STACK.replace("[app]", "[gone]").encode()}
    (tmp_path / "groups.yaml").write_text(GROUPS.replace("web: off", "web: on"))
    now = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(WriteRefused) as caught:
        await store.restore(then)
    assert caught.value.reason == "not_restorable"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == now


async def test_restore_creates_a_deleted_file(tmp_path: Path) -> None:
    store = a_store(a_directory(tmp_path))
    then = (await store.load()).sources
    (tmp_path / "compose.yaml").write_text(COMPOSE.replace(", env_file: [db.env]", ""))
    (tmp_path / "db.env").unlink()
    assert (await store.restore(then)).after.sources == then


async def test_recovery_after_a_crash_restores_a_concurrent_edit(tmp_path: Path) -> None:
    store, file = a_store(a_directory(tmp_path)), tmp_path / "groups.yaml"
    edit = GROUPS.replace("base: on", "base: off")
    exchange._temporary_path(file, b"old", GROUPS.encode()).write_text(edit)
    assert store.recover_interrupted()
    assert file.read_text() == edit


async def test_late_edit_of_the_replaced_file_is_recovered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The editor looks up the name before the exchange and opens the file after it."""
    store = a_store(a_directory(tmp_path))
    file = tmp_path / "groups.yaml"
    with file.open("r+") as editor:
        with monkeypatch.context() as patched:
            patched.setattr(exchange, "is_open_for_writing", lambda _: False)
            patched.setattr("reconciler.desired_state.stable_reader._has_no_writer", lambda _: True)
            assert (await store.write(switch("web"))).changed
        edit = GROUPS.replace("base: on", "base: off")
        editor.write(edit)
        editor.truncate()
        # Not recovered while it is open for writing.
        assert (await store.load()).desired.groups["web"].on
    loaded = await store.load()
    assert file.read_text() == edit
    assert not loaded.desired.groups["base"].on


async def test_replaced_file_is_closed_after_a_while(tmp_path: Path) -> None:
    now = [0.0]
    store = a_store(a_directory(tmp_path), now=lambda: now[0])
    await store.load()
    before = len(os.listdir("/proc/self/fd"))
    await store.write(switch("web"))
    await store.load()
    assert len(os.listdir("/proc/self/fd")) == before + 1
    now[0] += 3
    await store.load()
    assert len(os.listdir("/proc/self/fd")) == before
