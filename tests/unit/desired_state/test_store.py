"""Loads of the store: consistent, complete, and cached."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from reconciler.desired_state import stable_reader
from reconciler.desired_state.compose_selection import OVERRIDE_FILES
from reconciler.desired_state.store import LoadedState, Store
from reconciler.engine.compose.resolve import resolve
from reconciler.errors import InvalidDesiredState
from reconciler.host.yaml_positions import MAX_BYTES
from reconciler.model.desired import GroupState
from tests.support.fixtures.desired_state import (
    COMPOSE,
    GROUPS,
    STACK,
    FakeResolver,
    a_directory,
    a_store,
    mistakes_of,
)

SHIPPED = Path(__file__).parents[3] / "desired-state"


def on(loaded: LoadedState) -> dict[str, bool]:
    return {name: state.on for name, state in loaded.desired.groups.items()}


async def test_load_combines_all_files(tmp_path: Path) -> None:
    loaded = await a_store(a_directory(tmp_path)).load()
    assert loaded.stack.name == "demo"
    assert loaded.stack.groups["base"].memory == 700_000_000
    assert loaded.stack.directory == str(tmp_path)
    assert loaded.desired.groups == {"base": GroupState(on=True), "web": GroupState(on=False)}
    assert loaded.desired.revision == loaded.revision
    assert set(loaded.sources) == {"stack.yaml", "groups.yaml", "compose.yaml", "db.env"}
    assert loaded.stack.services["db"].fields.keys() >= {"environment.db.env"}


async def test_compose_runs_only_when_its_files_change(tmp_path: Path) -> None:
    resolving = FakeResolver()
    store = Store(a_directory(tmp_path), resolving)
    first = await store.load()
    assert await store.load() is first
    (tmp_path / "groups.yaml").write_text(GROUPS.replace("web: off", "web: on"))
    second = await store.load()
    assert on(second) == {"base": True, "web": True}
    assert second.stack.services == first.stack.services
    assert resolving.calls == 1
    (tmp_path / "db.env").write_text("PASSWORD=other\n")
    third = await store.load()
    assert resolving.calls == 2
    assert third.stack.services["db"].definition != first.stack.services["db"].definition
    (tmp_path / "db.env").write_text("PASSWORD=secret\n")
    await store.load()
    assert resolving.calls == 2


async def test_unchanged_files_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = a_store(a_directory(tmp_path))
    reads: list[Path] = []
    content = stable_reader._content

    def counting(path: Path, *more: Any) -> bytes | None:
        reads.append(path)
        return content(path, *more)

    monkeypatch.setattr(stable_reader, "_content", counting)
    # Otherwise a file that was just written is read once more.
    monkeypatch.setattr(stable_reader, "_TICK", 0)
    first = await store.load()
    reads.clear()
    assert await store.load() is first
    assert reads == []
    (tmp_path / "groups.yaml").write_text(GROUPS.replace("web: off", "web: on"))
    assert on(await store.load()) == {"base": True, "web": True}
    assert reads == [tmp_path / "groups.yaml"]
    (tmp_path / ".env").write_text("A=1\n")
    assert ".env" in (await store.load()).sources


async def test_extra_compose_files_follow_those_of_the_stack(tmp_path: Path) -> None:
    a_directory(tmp_path / "d")
    (tmp_path / "more.yaml").write_text('services: {db: {image: "stand-in:1"}}')
    loaded = await Store(tmp_path / "d", FakeResolver(), extra_compose=[tmp_path / "more.yaml"]).load()
    assert loaded.stack.services["db"].image == "stand-in:1"
    assert str(tmp_path / "more.yaml") in loaded.sources
    with pytest.raises(InvalidDesiredState, match=r"no\.yaml"):
        await Store(tmp_path / "d", FakeResolver(), extra_compose=[tmp_path / "no.yaml"]).load()


@pytest.mark.parametrize("what", ["too large", "a folder"])
async def test_unreadable_file_is_read_again(tmp_path: Path, what: str) -> None:
    store = a_store(a_directory(tmp_path))
    groups = tmp_path / "groups.yaml"
    good = groups.read_bytes()
    groups.unlink()
    if what == "a folder":
        groups.mkdir()
    else:
        groups.write_bytes(b"#" * (MAX_BYTES + 1))
    for _ in range(2):
        with pytest.raises(InvalidDesiredState, match=r"groups\.yaml"):
            await store.load()
    groups.rmdir() if what == "a folder" else groups.unlink()
    groups.write_bytes(good)
    assert await store.load()


async def test_inputs_of_a_missing_directory(tmp_path: Path) -> None:
    store = a_store(tmp_path / "d")
    with pytest.raises(InvalidDesiredState, match="there is no such directory"):
        await store.load()
    a_directory(tmp_path / "d")
    await store.load()
    names = {path.name for path in store.inputs()}
    assert names - set(OVERRIDE_FILES) == {"stack.yaml", "groups.yaml", "compose.yaml", "db.env", ".env"}
    assert names > set(OVERRIDE_FILES)


@pytest.mark.parametrize("name", ["stack.yaml", "groups.yaml", "compose.yaml"])
@pytest.mark.parametrize(
    "content", [None, b"", b"\n", b"a: \xff", b"- x", b"a: [", b"&a [*a]", b"a: 1\x00\x00"]
)
async def test_broken_file_is_never_accepted(tmp_path: Path, name: str, content: bytes | None) -> None:
    a_directory(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    assert await mistakes_of(tmp_path)


async def test_huge_file_is_refused_quickly(tmp_path: Path) -> None:
    a_directory(tmp_path)
    os.truncate(tmp_path / "groups.yaml", 50_000_000)
    began = time.monotonic()
    assert "50000000 bytes" in (await mistakes_of(tmp_path))[0]
    assert time.monotonic() - began < 5


@pytest.mark.pitfall(33)
async def test_truncated_groups_yaml_has_the_same_meaning_or_is_invalid(tmp_path: Path) -> None:
    for name in ("stack.yaml", "groups.yaml"):
        shutil.copy(SHIPPED / name, tmp_path)
    services = [s for line in (SHIPPED / "stack.yaml").read_text().splitlines() if "services: [" in line
                for s in line.partition("[")[2].rstrip("]").split(", ")]  # fmt: skip
    (tmp_path / "compose.yaml").write_text(
        "services:\n" + "".join(f"  {name}: {{image: x}}\n" for name in services)
    )
    store, file = a_store(tmp_path), tmp_path / "groups.yaml"
    content = file.read_bytes()
    complete = (await store.load()).desired.groups
    accepted = 0
    for length in range(len(content)):
        file.write_bytes(content[:length])
        with suppress(InvalidDesiredState):
            assert (await store.load()).desired.groups == complete, content[:length][-30:]
            accepted += 1
    assert accepted <= 1


async def test_file_open_for_writing_is_read_when_closed(tmp_path: Path) -> None:
    store = a_store(a_directory(tmp_path))
    await store.load()
    writer = (tmp_path / "groups.yaml").open("w")
    writer.write(GROUPS.replace("web: off", "web: on"))
    writer.flush()
    loading = asyncio.create_task(store.load())
    await asyncio.sleep(0)
    writer.close()
    assert on(await loading)["web"]


async def test_slow_writer_is_reported(tmp_path: Path) -> None:
    class Clock:
        now = 0.0

    async def sleep(seconds: float) -> None:
        Clock.now += seconds
        await asyncio.sleep(0)

    store = Store(a_directory(tmp_path), FakeResolver(), sleep=sleep, now=lambda: Clock.now)
    with (tmp_path / "groups.yaml").open("a"):
        with pytest.raises(InvalidDesiredState, match=r"groups\.yaml: another program still has it open"):
            await store.load()
        assert 1.0 <= Clock.now < 1.2


async def test_files_that_keep_changing_are_not_loaded(tmp_path: Path) -> None:
    class Clock:
        now = 0.0

    async def changing(files: object, directory: Path, project: str) -> object:
        (tmp_path / "db.env").write_text(f"A={Clock.now}")
        return await FakeResolver()([tmp_path / "compose.yaml"], directory, project)

    async def sleep(seconds: float) -> None:
        Clock.now += 1

    store = Store(a_directory(tmp_path), changing, sleep=sleep, now=lambda: Clock.now)  # type: ignore[arg-type]
    with pytest.raises(InvalidDesiredState, match="keep changing"):
        await store.load()


async def test_a_groups_file_that_is_written_all_the_time_is_loaded(tmp_path: Path) -> None:
    """It changes between each read and the check after it, and Compose runs only once."""
    directory = a_directory(tmp_path)
    resolving = FakeResolver()
    store = Store(directory, resolving)
    writes = itertools.count()
    differs = stable_reader.StableReader.has_changed

    def written(reader: stable_reader.StableReader, but: Path | None = None) -> bool:
        new = directory / "groups.new"
        new.write_text(f"{GROUPS}# {next(writes)}\n")
        new.rename(directory / "groups.yaml")
        return differs(reader, but)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stable_reader.StableReader, "has_changed", written)
        loaded = await store.load()
    assert on(loaded) == {"base": True, "web": False}
    assert resolving.calls == 1
    assert next(writes) > 20


async def test_change_while_compose_runs_is_loaded_again(tmp_path: Path) -> None:
    resolving = FakeResolver()

    async def change_once(files: list[Path], directory: Path, project: str) -> object:
        if not resolving.calls:
            (tmp_path / "compose.yaml").write_text(COMPOSE.replace("db:1", "db:2"))
        return await resolving(files, directory, project)

    store = Store(a_directory(tmp_path), change_once)  # type: ignore[arg-type]
    loaded = await store.load()
    assert resolving.calls == 2
    assert b"db:2" in loaded.sources["compose.yaml"]
    assert loaded.stack.services["db"].image == "db:2"


async def test_load_waits_for_git(tmp_path: Path) -> None:
    lock = tmp_path / ".git/index.lock"
    lock.parent.mkdir()
    lock.touch()
    waits = 0

    async def sleep(seconds: float) -> None:
        nonlocal waits
        waits += 1
        (tmp_path / "groups.yaml").write_text(GROUPS.replace("web: off", "web: on"))
        lock.unlink()

    loaded = await Store(a_directory(tmp_path), FakeResolver(), sleep=sleep).load()
    assert (waits, on(loaded)["web"]) == (1, True)


@pytest.mark.pitfall(31)
async def test_stale_git_lock_does_not_block_loads_for_good(tmp_path: Path) -> None:
    class Clock:
        now = 0.0

    async def sleep(seconds: float) -> None:
        Clock.now += seconds

    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/index.lock").touch()
    store = Store(a_directory(tmp_path), FakeResolver(), sleep=sleep, now=lambda: Clock.now)
    loaded = await store.load()
    assert "index.lock" in loaded.stack.warnings[0]
    before = Clock.now
    await store.load()
    assert Clock.now == before


async def test_swapped_links_are_followed(tmp_path: Path) -> None:
    a_directory(tmp_path / "one")
    a_directory(tmp_path / "two", groups=GROUPS.replace("web: off", "web: on"))
    (tmp_path / "current").symlink_to("one")
    store = a_store(tmp_path / "current")
    assert not on(await store.load())["web"]
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").replace(tmp_path / "current")
    loaded = await store.load()
    assert on(loaded)["web"]
    assert set(loaded.sources) == {"stack.yaml", "groups.yaml", "compose.yaml", "db.env"}


@pytest.mark.pitfall(30)
async def test_load_never_mixes_two_checkouts(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "core.fsync=none"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    a_directory(tmp_path)
    git("init", "-q", "-b", "A")
    git("add", ".")
    git("commit", "-qm", "A")
    git("checkout", "-qb", "B")
    # B differs in every file, so that any mixture of A and B is invalid or visible.
    a_directory(
        tmp_path,
        stack=STACK.replace("base", "ground").replace("700MB", "1MB"),
        groups="groups: {ground: off, web: on}\n",
        compose=COMPOSE.replace(":1", ":2"),
    )
    git("commit", "-qam", "B")

    store = a_store(tmp_path)
    complete = {("ground", "web", False, True, "2"), ("base", "web", True, False, "1")}
    seen = set()

    def back_and_forth() -> None:
        for number in itertools.count():
            git("checkout", "-q", "AB"[number % 2])
            # At least 100 checkouts, and until both were loaded.
            if number >= 100 and seen >= complete:
                return

    def summary(loaded: LoadedState) -> tuple[object, ...]:
        images = {service.image[-1] for service in loaded.stack.services.values()}
        return (*loaded.stack.groups, *on(loaded).values(), *images)

    switching = asyncio.create_task(asyncio.to_thread(back_and_forth))
    while not switching.done():
        seen.add(summary(await store.load()))
    await switching
    seen.add(summary(await store.load()))
    assert seen == complete


async def test_state_with_another_groups_yaml(tmp_path: Path) -> None:
    loaded = await a_store(a_directory(tmp_path)).load()
    states = {"base": GroupState(on=False), "web": GroupState(on=True, force=True)}
    other = loaded.with_groups(b"groups: {base: off, web: {state: on, force: true}}", states)
    assert other.desired.groups == states
    assert other.revision == other.desired.revision != loaded.revision
    assert other.stack is loaded.stack
    (tmp_path / "groups.yaml").write_bytes(other.sources["groups.yaml"])
    assert await a_store(tmp_path).load() == other


async def test_load_leaves_no_files_in_the_directory(tmp_path: Path) -> None:
    store = a_store(a_directory(tmp_path))
    before = set(os.listdir(tmp_path))
    await store.load()
    assert set(os.listdir(tmp_path)) == before


async def test_shipped_stack_loads_with_real_compose(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED, tmp_path / "d")
    environ = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(tmp_path)}
    store = Store(tmp_path / "d", lambda f, d, p: resolve(f, d, p, environ=environ))
    loaded = await store.load()
    assert len(loaded.stack.group_of) == 18
    assert len(loaded.stack.groups) == 7
    assert all(service.config_hash for service in loaded.stack.services.values())
    assert {f"env/{name}.env" for name in ("database", "grafana", "minio")} <= set(loaded.sources)
    text = (tmp_path / "d/compose.yaml").read_text()
    (tmp_path / "d/compose.yaml").write_text(text.replace("image: minio/minio:latest", "imag: x"))
    with pytest.raises(InvalidDesiredState, match=r"compose\.yaml.*imag"):
        await store.load()


async def test_remote_files_are_fetched_only_if_stack_yaml_allows_it(tmp_path: Path) -> None:
    resolver, seen = FakeResolver(), list[bool]()

    async def noting(*arguments: Any, remote: bool = False) -> Any:
        seen.append(remote)
        return await resolver(*arguments)

    directory = a_directory(tmp_path)
    store = Store(directory, noting)
    await store.load()
    stack = directory / "stack.yaml"
    stack.write_text(stack.read_text() + "remote_includes: true\n")
    await store.load()
    assert seen == [False, True]


async def test_a_restore_leaves_files_outside_the_directory(tmp_path: Path) -> None:
    directory, outside = a_directory(tmp_path / "d"), tmp_path / "another.env"
    link = directory / "link.env"
    outside.write_text("NOW=1\n")
    link.symlink_to(outside)
    store = Store(directory, FakeResolver())
    loaded = await store.load()
    old = b"OLD=1\n"
    names = (str(outside), f"../{outside.name}", "link.env")
    await store.restore({**loaded.sources, **dict.fromkeys(names, old)})
    assert outside.read_text() == "NOW=1\n"
    assert not any(store.is_below(name) for name in names)
    assert store.is_below("groups.yaml")
