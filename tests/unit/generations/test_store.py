from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.desired_state.store import LoadedState
from reconciler.errors import WriteRefused
from reconciler.generations.store import Generations, Recorded
from reconciler.model.accepted_state import AcceptedState
from reconciler.model.change_reason import ChangeReason
from tests.support.fixtures.desired_state import COMPOSE, GROUPS, STACK, a_directory, a_store

ON = GROUPS.replace("web: off", "web: on")


async def load(path: Path, **files: str) -> LoadedState:
    return await a_store(a_directory(path / "files", **files)).load()


def record(generations: Generations, loaded: LoadedState, at: float = 1.0) -> Recorded:
    return generations.record(loaded, author="ann", reason=ChangeReason("because"), at=at)


def accept(generations: Generations, loaded: LoadedState, at: float = 1.0) -> AcceptedState:
    return record(generations, loaded, at).accepted


async def test_a_generation_is_a_change_of_meaning(tmp_path: Path) -> None:
    generations = Generations(tmp_path / "state")
    assert generations.latest() is None
    first, fresh = record(generations, await load(tmp_path))
    assert (first.desired.generation, fresh, first.changes) == (1, True, ("first desired state",))
    comment, fresh = record(generations, await load(tmp_path, groups=GROUPS + "# more\n"))
    assert (comment.desired.generation, fresh) == (1, False)
    assert comment.desired.revision != first.desired.revision
    assert generations.sources(1)["groups.yaml"].endswith(b"# more\n")
    second, fresh = record(generations, await load(tmp_path, groups=ON))
    assert (second.desired.generation, fresh, second.changes) == (2, True, ("web: off → on",))
    assert [(r.generation, r.author, r.reason, r.at) for r in generations.history()] == [
        (1, "ann", "because", 1.0),
        (2, "ann", "because", 1.0),
    ]


@pytest.mark.parametrize(
    ("files", "change"),
    [
        ({"stack": STACK + "prune: true\n"}, "stack: prune false → true"),
        ({"stack": STACK.replace("200MB", "300MB")}, "web: memory changed in stack.yaml"),
        ({"stack": STACK.replace("{base: on}", "[base]")}, "web: depends_on changed in stack.yaml"),
        ({"compose": COMPOSE.replace("app:1", "app:2")}, "app: image changed"),
        ({"compose": COMPOSE.replace(", depends_on: [db]", "")}, "app: depends_on changed"),
        ({"compose": COMPOSE + '  extra: {image: "x"}\n'}, "extra: new service"),
        (
            {
                "groups": GROUPS.replace(
                    "off", "{state: off, suspend: {until: 2026-11-24T06:00:00Z, reason: x}}"
                )
            },
            "web: suspended until 2026-11-24T06:00:00Z (x)",
        ),
        (
            {"groups": GROUPS.replace("off", "{state: off, restarted_at: 2026-11-24T06:00:00Z}")},
            "web: restarted at 2026-11-24T06:00:00Z",
        ),
    ],
)
async def test_changes_are_described_in_words(tmp_path: Path, files: dict[str, str], change: str) -> None:
    generations = Generations(tmp_path / "state")
    accept(generations, await load(tmp_path))
    accepted = accept(generations, await load(tmp_path, **files))
    assert accepted.desired.generation == 2
    assert accepted.changes == (change,)


async def test_another_compose_version_is_no_change(tmp_path: Path) -> None:
    generations = Generations(tmp_path / "state")
    loaded = await load(tmp_path)
    accept(generations, loaded)
    hashes = dict.fromkeys(loaded.resolved.hashes, "other")
    newer = loaded._replace(resolved=loaded.resolved._replace(version="3.0", hashes=hashes), revision="other")
    assert not record(generations, newer).fresh


async def test_daemon_started_on_a_broken_directory_has_the_last_valid_state(tmp_path: Path) -> None:
    accepted = accept(Generations(tmp_path / "state"), await load(tmp_path, groups=ON))
    (tmp_path / "files/groups.yaml").write_text("")
    again = Generations(tmp_path / "state").latest()
    assert again
    assert again.desired == accepted.desired
    assert again.stack == accepted.stack
    model = json.loads(Path(again.stack.model).read_bytes())
    assert set(model["services"]) == {"db", "cache", "app"}
    assert again.stack.directory == str(tmp_path / "files")


async def test_state_directory_is_private(tmp_path: Path) -> None:
    accept(Generations(tmp_path / "state"), await load(tmp_path))
    for path in (tmp_path / "state").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


async def test_numbers_continue_after_a_damaged_newest_record(tmp_path: Path) -> None:
    state = tmp_path / "state"
    generations = Generations(state)
    for files in ({}, {"groups": ON}, {"stack": STACK + "prune: true\n"}):
        accept(generations, await load(tmp_path, **files))
    record = state / "generations/00000003.json"
    whole = record.read_bytes()
    odd = [json.dumps(json.loads(whole) | {name: None}).encode() for name in ("sources", "hashes")]
    for damage in (b"", b"{", b"[]", b'{"schema": 99}', b'{"schema": 1, "generation": 3}', b"\xff", *odd):
        record.write_bytes(damage)
        generations = Generations(state)
        latest = generations.latest()
        assert latest
        assert latest.desired.generation == 2
        assert "was renamed to" in generations.warnings()[0]
        record.write_bytes(whole)
    record.write_bytes(b"")
    assert accept(Generations(state), await load(tmp_path, groups=GROUPS + "# new")).desired.generation == 4
    assert (state / "generations/00000003.json.damaged").exists()


@pytest.mark.parametrize("folder", ["contents", "resolved"])
async def test_damaged_content_makes_an_older_state_current(tmp_path: Path, folder: str) -> None:
    state = tmp_path / "state"
    generations = Generations(state)
    accept(generations, await load(tmp_path))
    older = set((state / folder).iterdir())
    accept(generations, await load(tmp_path, groups=ON, compose=COMPOSE.replace("app:1", "app:2")))
    for path in set((state / folder).iterdir()) - older:
        path.write_bytes(b"{}")
    again = Generations(state)
    latest = again.latest()
    assert latest
    assert latest.desired.generation == 1
    assert "generation 2 can't be read" in again.warnings()[0]
    # The damaged content is written again, with a new generation number.
    assert record(again, await load(tmp_path, groups=ON, compose=COMPOSE.replace("app:1", "app:2"))).fresh
    newest = Generations(state).latest()
    assert newest
    assert newest.desired.generation == 3


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"{}")], ids=["gone", "other"])
async def test_content_damaged_at_run_time_is_stored_again(
    tmp_path: Path, harm: Callable[[Path], object]
) -> None:
    state = tmp_path / "state"
    generations = Generations(state)
    accept(generations, await load(tmp_path))
    for path in [*(state / "contents").iterdir(), *(state / "resolved").iterdir()]:
        harm(path)
    accept(generations, await load(tmp_path, groups=ON))
    latest = Generations(state).latest()
    assert latest
    assert latest.desired.generation == 2


@pytest.mark.pitfall(33)
async def test_crash_at_any_write_leaves_the_old_or_the_new_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    one, two = (
        await load(tmp_path),
        await load(tmp_path, groups=ON, compose=COMPOSE.replace("app:1", "app:2")),
    )
    real, left = os.fsync, 0

    def dying(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed
        real(descriptor)

    for step in range(1, 40):
        state = tmp_path / f"state-{step}"
        accept(Generations(state), one)
        left = step
        monkeypatch.setattr(os, "fsync", dying)
        try:
            accept(Generations(state), two)
        except Killed:
            monkeypatch.undo()
        else:
            monkeypatch.undo()
            break
        reopened = Generations(state)
        latest = reopened.latest()
        assert latest
        assert latest.desired.generation in {1, 2}
        assert latest.desired.groups["web"].on == (latest.desired.generation == 2)
        assert reopened.warnings() == ()
        assert accept(reopened, two).desired.generation == 2
    assert step > 4


async def test_outcome_of_a_generation_is_stored(tmp_path: Path) -> None:
    generations = Generations(tmp_path / "state")
    accept(generations, await load(tmp_path))
    generations.record_outcome(1, "degraded", "db: image_unavailable", 9.0)
    generations.set_commit(1, "abc123")
    generations.record_outcome(77, "converged", "", 9.0)
    (record,) = Generations(tmp_path / "state").history()
    assert (record.outcome, record.outcome_reason, record.finished_at) == (
        "degraded",
        "db: image_unavailable",
        9.0,
    )
    latest = generations.latest()
    assert latest
    assert (record.commit, latest.desired.commit) == ("abc123", "abc123")


async def test_only_the_last_generations_and_their_contents_are_kept(tmp_path: Path) -> None:
    state = tmp_path / "state"
    generations = Generations(state, kept=3)
    for number in range(8):
        accept(generations, await load(tmp_path, compose=COMPOSE.replace("app:1", f"app:{number}")))
    assert [record.generation for record in generations.history()] == [6, 7, 8]
    assert len(list((state / "resolved").iterdir())) == 3
    for record in generations.history():
        assert set(generations.sources(record.generation)) == {
            "stack.yaml",
            "groups.yaml",
            "compose.yaml",
            "db.env",
        }
    with pytest.raises(WriteRefused, match="no generation 1") as caught:
        generations.sources(1)
    assert caught.value.remedy == "generations 6 to 8 are kept"


async def test_number_used_elsewhere_is_not_reused(tmp_path: Path) -> None:
    generations = Generations(tmp_path / "state", floor=41)
    assert accept(generations, await load(tmp_path)).desired.generation == 42


async def test_foreign_files_in_the_directory_are_untouched(tmp_path: Path) -> None:
    other = tmp_path / "state/generations/notes.txt"
    other.parent.mkdir(parents=True)
    other.write_text("x")
    accept(Generations(tmp_path / "state"), await load(tmp_path))
    assert other.exists()


async def test_a_new_warning_about_unchanged_files_is_taken_over(tmp_path: Path) -> None:
    generations = Generations(tmp_path / "state")
    loaded = await load(tmp_path / "d")
    first = accept(generations, loaded)
    warned = loaded._replace(stack=replace(loaded.stack, warnings=("an override file is not used",)))
    result = record(generations, warned)
    assert (result.fresh, result.accepted.stack.warnings) == (False, ("an override file is not used",))
    assert result.accepted.desired == first.desired
    assert record(generations, loaded).accepted.stack.warnings == loaded.stack.warnings
