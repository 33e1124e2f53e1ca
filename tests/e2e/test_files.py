"""Containers keep running whatever happens to the files; valid files are applied once they can be read."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.harness.daemon import Json
from tests.support.harness.sandbox import COMPOSE, GROUPS, PROJECT, STACK, Sandbox, groups_yaml

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
CYCLE = STACK.replace("    memory: 10MB\n  app:", "    memory: 10MB\n    depends_on: {front: on}\n  app:")
TWICE = STACK.replace("[cache]", "[cache, web]")
IMAGINED = COMPOSE.replace("    container_name: small-db\n", "    container_name: small-db\n    imagine: 1\n")
TYPO = STACK.replace("  extra:\n    services", "  extra:\n    servces")

BROKEN: dict[str, tuple[str, bytes | None, str, int]] = {
    "cut in the middle of a word": ("groups.yaml", GROUPS[: GROUPS.index("front") + 3].encode(), "colon", 4),
    "cut at the end of a line": ("groups.yaml", GROUPS[: GROUPS.index("  front")].encode(), "front", 1),
    "empty": ("groups.yaml", b"", "empty", 0),
    "deleted": ("groups.yaml", None, "no such file", 0),
    "not UTF-8": ("groups.yaml", GROUPS.encode().replace(b"comment", b"comm\xe9nt"), "UTF-8", 2),
    "an alias bomb": ("groups.yaml", (BOMB + GROUPS).encode(), "alias", 0),
    "50 MB": ("groups.yaml", b"#" * 50_000_000, "", 0),
    "an unknown key": ("groups.yaml", GROUPS.replace("app: on", "app: {stat: on}").encode(), "stat", 3),
    "an unknown group": ("groups.yaml", (GROUPS + "  attic: on\n").encode(), "attic", 6),
    "neither on nor off": ("groups.yaml", GROUPS.replace("app: on", "app: onn").encode(), "onn", 3),
    "the stack cut short": ("stack.yaml", STACK[: len(STACK) // 2].encode(), "", 0),
    "the stack deleted": ("stack.yaml", None, "no such file", 0),
    "a cycle": ("stack.yaml", CYCLE.encode(), "app → base → front → app", 12),
    "a service in two groups": ("stack.yaml", TWICE.encode(), "web", 17),
    "a misspelt key": ("stack.yaml", TYPO.encode(), "servces", 17),
    "a service not in Compose": ("stack.yaml", STACK.replace("cache", "cash").encode(), "cash", 17),
    "Compose broken": (
        "compose.yaml",
        COMPOSE.replace("services:\n  db:", "services:\n  db: [").encode(),
        "",
        0,
    ),
    "Compose with a mistake": ("compose.yaml", IMAGINED.encode(), "imagine", 0),
    "Compose absent": ("compose.yaml", None, "compose.yaml", 0),
    "the env file absent": ("env/api.env", None, "api.env", 0),
}


@pytest.mark.pitfall(33)
@pytest.mark.parametrize("what", BROKEN)
def test_broken_file_stops_nothing_is_reported_with_its_position_and_accepted_once_corrected(
    sandbox: Sandbox, what: str
) -> None:
    name, content, word, line = BROKEN[what]
    before = sandbox.daemon.get("/services/status")
    mark = sandbox.recorder.mark()
    path = sandbox.desired / name
    good = path.read_bytes()
    if content is None:
        path.unlink()
    else:
        sandbox.save(name, content)
    status = sandbox.daemon.until(lambda s: s["errors"])
    place = [e for e in status["errors"] if Path(name).name in e["path"] + e["message"]]
    assert place, status["errors"]
    assert any(word in e["message"] or word in e["path"] for e in status["errors"]), status["errors"]
    if line:
        assert line in {e["line"] for e in place}, place
    assert status["generation"] == before["generation"]
    # The last valid state is still converged.
    sandbox.docker.rename("small-cache", "small-odd")
    sandbox.recorder.until(lambda _: sandbox.recorder.count(mark, "rename", "cache") == 2, since=mark)
    assert len(sandbox.recorder.touched(mark, PROJECT)) == 2
    sandbox.save(name, good)
    status = sandbox.daemon.until(lambda s: not s["errors"])
    assert status["generation"] == before["generation"]
    sandbox.daemon.converged()


def test_all_mistakes_are_reported_together(sandbox: Sandbox) -> None:
    sandbox.save("groups.yaml", GROUPS.replace("app: on", "app: onn") + "  attic: on\n")
    sandbox.save("stack.yaml", TWICE.replace("memory: 1MB", "memory: much"))
    status = sandbox.daemon.until(lambda s: len(s["errors"]) >= 4)
    assert {Path(e["path"]).name for e in status["errors"]} == {"groups.yaml", "stack.yaml"}
    assert all(e["line"] and e["column"] for e in status["errors"])


def test_daemon_started_on_a_broken_directory_converges_the_last_valid_state(sandbox: Sandbox) -> None:
    generation = sandbox.daemon.get("/services/status")["generation"]
    sandbox.daemon.end()
    for name in ("stack.yaml", "groups.yaml", "compose.yaml"):
        sandbox.save(name, "no: [good")
    shutil.rmtree(sandbox.desired / "env")
    sandbox.docker.stop("small-edge")
    sandbox.docker.remove_container("small-worker", force=True)
    sandbox.daemon.start()
    status = sandbox.daemon.until(lambda s: s["errors"])
    assert status["generation"] == generation
    sandbox.is_true()
    # Broken files are never overwritten.
    with pytest.raises(AssertionError, match="409"):
        sandbox.daemon.post("/services/stop/extra")
    sandbox.settle()
    assert sandbox.daemon.get("/services/status")["generation"] == generation


def test_daemon_started_without_any_state_waits_for_valid_files(sandbox: Sandbox) -> None:
    sandbox.daemon.end()
    shutil.rmtree(sandbox.folder / "state")
    aside = sandbox.folder / "aside"
    sandbox.desired.rename(aside)
    mark = sandbox.recorder.mark()
    sandbox.daemon.start()
    status = sandbox.daemon.until(lambda s: s["errors"])
    assert status["generation"] == 0
    assert sandbox.daemon.get("/healthz")["status"] == "ok"
    assert not sandbox.recorder.touched(mark, PROJECT)
    aside.rename(sandbox.desired)
    sandbox.daemon.converged(1)
    # Its state directory is gone, and still no container is recreated.
    assert not sandbox.recorder.touched(mark, PROJECT)


def copied(sandbox: Sandbox, name: str, **states: object) -> Path:
    """A second directory with other groups switched on."""
    other = sandbox.folder / name
    shutil.rmtree(other, ignore_errors=True)
    shutil.copytree(sandbox.desired, other, symlinks=True)
    (other / "groups.yaml").write_text(groups_yaml(**states))
    return other


def exchange(sandbox: Sandbox, new: Path) -> None:
    """Replace the directory in use."""
    old = sandbox.folder / "old"
    shutil.rmtree(old, ignore_errors=True)
    sandbox.desired.rename(old)
    new.rename(sandbox.desired)


@pytest.mark.pitfall(28)
def test_replaced_directory_is_followed(sandbox: Sandbox) -> None:
    before = sandbox.daemon.get("/services/status")["generation"]
    exchange(sandbox, copied(sandbox, "new", extra=False))
    sandbox.daemon.converged(sandbox.next_generation(before))
    sandbox.is_true({"base", "app", "front"})
    # The new directory is watched too.
    sandbox.daemon.converged(sandbox.switch(extra=True, front=False))
    sandbox.is_true({"base", "app", "extra"})
    # The old directory is no longer read.
    (sandbox.folder / "old" / "groups.yaml").write_text("nonsense")
    sandbox.docker.stop("small-cache")
    sandbox.is_true({"base", "app", "extra"})
    assert not sandbox.daemon.status["errors"]


@pytest.mark.pitfall(28)
def test_swapped_symlink_above_the_files_is_one_change(sandbox: Sandbox) -> None:
    """As Kubernetes and deployment scripts do: the files are links into a folder behind a link."""
    one, two = copied(sandbox, "one"), copied(sandbox, "two", extra=False)
    (two / "compose.yaml").write_text(COMPOSE.replace("COLOUR: blue", "COLOUR: yellow"))
    linked = sandbox.folder / "linked"
    shutil.rmtree(linked, ignore_errors=True)
    linked.mkdir()
    (linked / "..data").symlink_to(one)
    for name in os.listdir(one):
        (linked / name).symlink_to(f"..data/{name}")
    mark = sandbox.recorder.mark()
    exchange(sandbox, linked)
    sandbox.daemon.converged(sandbox.on_disk())
    assert not sandbox.recorder.touched(mark, PROJECT)
    before = sandbox.daemon.get("/services/status")["generation"]
    (sandbox.desired / "..new").symlink_to(two)
    (sandbox.desired / "..new").replace(sandbox.desired / "..data")
    generation = sandbox.next_generation(before)
    assert generation == before + 1, "both files change in one step"
    sandbox.daemon.converged(generation)
    sandbox.is_true({"base", "app", "front"})
    assert "COLOUR=yellow" in sandbox.one("worker")["Config"]["Env"]
    shutil.rmtree(sandbox.desired)
    shutil.copytree(one, sandbox.desired)
    sandbox.save("groups.yaml", GROUPS)


def git(sandbox: Sandbox, *arguments: str) -> None:
    environ = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    author = ["-c", "user.name=A", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(
        ["git", *author, *arguments],
        cwd=sandbox.desired,
        check=True,
        capture_output=True,
        env=environ,
        timeout=30,
    )


@pytest.mark.pitfall(30)
def test_checkouts_back_and_forth_never_mix_two_states(sandbox: Sandbox) -> None:
    git(sandbox, "init", "-q", "-b", "A")
    git(sandbox, "add", "-A")
    git(sandbox, "commit", "-qm", "A")
    git(sandbox, "checkout", "-qb", "B")
    # Neither edit is valid without the other.
    sandbox.save("stack.yaml", STACK.replace("extra:", "spare:").replace("[cache]", "[cache, stray]"))
    sandbox.save("groups.yaml", GROUPS.replace("extra: on", "spare: off"))
    sandbox.save("compose.yaml", COMPOSE.replace("COLOUR: blue", "COLOUR: violet"))
    git(sandbox, "commit", "-qam", "B")
    sandbox.daemon.until(lambda s: "spare" in s["groups"])
    log_start = len(sandbox.daemon.log())
    before = sandbox.daemon.get("/services/status")["generation"]
    seen: list[Json] = []
    for _ in range(15):
        git(sandbox, "checkout", "-q", "A")
        seen.append(sandbox.daemon.get("/services/status"))
        git(sandbox, "checkout", "-q", "B")
        seen.append(sandbox.daemon.get("/services/status"))
    git(sandbox, "checkout", "-q", "A")
    sandbox.daemon.until(lambda s: "extra" in s["groups"])
    status = sandbox.daemon.converged()
    sandbox.is_true()
    assert status["generation"] <= before + 31
    assert not [e for s in seen for e in s["errors"]]
    assert {tuple(sorted(s["groups"])) for s in seen} <= {
        ("app", "base", "extra", "front"),
        ("app", "base", "front", "spare"),
    }
    history = [line for line in sandbox.daemon.log()[log_start:].splitlines() if "not valid" in line]
    assert not [line for line in history if "spare" in line]
    sandbox.docker.start("small-stray")
    sandbox.strangers = sandbox.others()


def test_burst_of_edits_ends_in_the_last_one(sandbox: Sandbox) -> None:
    choice = random.Random(7)
    before = sandbox.daemon.get("/services/status")["generation"]
    for _ in range(99):
        sandbox.save("groups.yaml", groups_yaml(front=choice.random() < 0.5, extra=choice.random() < 0.5))
    sandbox.save("groups.yaml", groups_yaml(front=False, extra=False))
    sandbox.daemon.until(
        lambda s: (
            {n for n, g in s["groups"].items() if g["desired"] == "on"} == {"base", "app"}
            and s["generation"] > before
        )
    )
    sandbox.daemon.converged()
    sandbox.is_true({"base", "app"})


@pytest.mark.pitfall(29)
def test_change_whose_event_was_lost_is_read_before_the_next_resync(sandbox: Sandbox) -> None:
    """A stopped daemon takes no events, and the kernel drops those beyond its limit."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    before = sandbox.daemon.get("/services/status")["generation"]
    # Two names in turn, because the kernel merges equal events in a row.
    noise = [sandbox.desired / ".noise-0", sandbox.desired / ".noise-1"]
    with sandbox.daemon.stopped():
        for number in range(limit // 2 + 1):
            noise[number % 2].touch()
            noise[number % 2].unlink()
        sandbox.save("groups.yaml", groups_yaml(extra=False))
    sandbox.daemon.until(lambda s: s["generation"] > before)
    assert "files changed without an event" in sandbox.daemon.log()
    sandbox.daemon.converged()
    sandbox.is_true({"base", "app", "front"})


def test_file_that_is_open_for_writing_is_read_when_closed(sandbox: Sandbox) -> None:
    before = sandbox.daemon.get("/services/status")["generation"]
    text = groups_yaml(extra=False)
    with (sandbox.desired / "groups.yaml").open("w") as half:
        half.write(text[:20])
        half.flush()
        mark = sandbox.recorder.mark()
        sandbox.docker.rename("small-cache", "small-odd")
        sandbox.recorder.until(lambda _: sandbox.recorder.count(mark, "rename", "cache") == 2, since=mark)
        assert sandbox.daemon.get("/services/status")["generation"] == before
        half.write(text[20:])
    sandbox.daemon.converged(sandbox.next_generation(before))
    sandbox.is_true({"base", "app", "front"})
