"""People push; the box checks, refuses or takes it, and nobody's change is lost."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import pytest

from tests.support.harness.daemon import RequestRefused
from tests.support.hosts.git_host import (
    COMPOSE,
    FILES,
    GROUPS,
    STACK,
    GitHost,
    GitUser,
    refused,
    until,
    write,
)

ON = GROUPS.replace("web: off", "web: on")


def test_a_good_push_is_told_its_plan_and_carried_out(ready: GitHost, ann: GitUser) -> None:
    commit = ann.save("Web is wanted", {"groups.yaml": ON, "README.md": "hello\n"})
    done = ann.push()
    assert done.returncode == 0, done.said
    assert "web: off → on" in done.said
    status = ready.daemon.converged(2)
    assert status["groups"]["web"]["status"] == "running"
    assert ready.head() == commit
    assert ready.clean()
    assert (ready.desired / "README.md").exists()
    entry = ready.daemon.get("/services/history")["entries"][-1]
    assert (entry["author"], entry["commit"]) == ("ann", commit)
    assert not status["warnings"]


def test_a_bad_push_is_refused_with_every_mistake_at_its_place(ready: GitHost, ann: GitUser) -> None:
    ann.save(
        "bad",
        {
            "groups.yaml": GROUPS.replace("web: off", "web: onn"),
            "stack.yaml": STACK.replace("[cache]", "[cash]"),
        },
    )
    said = refused(ready, ann)
    assert re.search(r"stack\.yaml:10:16: .*cash", said), said
    assert re.search(r"groups\.yaml:5:8: .*onn", said), said
    ann.save("good", {"groups.yaml": ON, "stack.yaml": STACK})
    assert ann.push().returncode == 0


def test_it_is_judged_with_the_files_that_lie_on_the_box(ready: GitHost, ann: GitUser) -> None:
    # .env is on the box alone; in the clone the Compose file could not even be read.
    assert not (ann.directory / ".env").exists()
    ann.save("a", {"compose.yaml": COMPOSE.replace("app:1", "app:2")})
    assert ann.push().returncode == 0
    ready.daemon.converged(2)
    ann.save("b", {"compose.yaml": COMPOSE.replace("DB_PASSWORD", "OTHER_PASSWORD")})
    said = refused(ready, ann)
    assert "OTHER_PASSWORD" in said
    assert "compose.yaml" in said
    assert "secret" not in said
    assert str(ready.desired / ".git") not in said


def test_paths_are_those_of_the_box(ready: GitHost, ann: GitUser) -> None:
    """A pushed change of one service remakes that one, so what is judged hashes as what is run."""
    ann.save("a", {"compose.yaml": COMPOSE.replace("cache:1", "cache:2")})
    assert "cache: image changed" in ann.push().said
    ann.save("b", {"README.md": "no change of desired state\n"})
    assert "changes nothing that affects containers" in ann.push().said


def test_pwd_in_a_push_is_the_folder_on_the_box(ready: GitHost, ann: GitUser) -> None:
    """A commit is judged in a folder of its own; ``${PWD}`` means what it means once it lies in its place."""
    app = "{image: 'app:1', env_file: ['${PWD}/app.env'], labels: {at: '${PWD}'}}"
    text = COMPOSE.replace('{image: "app:1", depends_on: [db]}', app)
    ann.save("env file", {"compose.yaml": text, "app.env": "A=1\n"})
    done = ann.push()
    assert done.returncode == 0, done.said
    assert "app: " in done.said
    ready.daemon.until(lambda s: s["generation"] == 2)
    (pushed, *_) = sorted((ready.folder / "state/generations").glob("*.json"), reverse=True)
    record = json.loads(pushed.read_text())
    model = json.loads((ready.folder / "state/resolved" / f"{record['resolved']}.json").read_bytes())
    assert model["services"]["app"]["labels"] == {"at": str(ready.desired)}
    assert "app.env" in record["sources"]
    ann.save("no change of desired state", {"README.md": "hello\n"})
    assert "changes nothing that affects containers" in ann.push().said


def test_who_is_behind_is_told_to_pull(ready: GitHost, ann: GitUser) -> None:
    ben = ready.clone("ben")
    ann.save("ann's", {"groups.yaml": ON})
    assert ann.push().returncode == 0
    ben.save("ben's", {"stack.yaml": STACK + "# ben\n"})
    said = refused_after(ready, ben)
    assert "fetch first" in said or "non-fast-forward" in said or "pull" in said
    ben.git("pull", "--rebase", "-q")
    assert ben.push().returncode == 0
    assert ready.groups() == ON


def refused_after(box: GitHost, person: GitUser, *arguments: str) -> str:
    box.daemon.converged(2)
    return refused(box, person, *arguments)


def test_a_forced_push_takes_nobodys_commits_away(ready: GitHost, ann: GitUser) -> None:
    ready.daemon.post("/services/start/extra")
    until(lambda: len(ready.log()) == 2)
    ann.save("mine alone", {"groups.yaml": ON})
    said = refused(ready, ann, "--force", "origin", "HEAD")
    assert "would remove commits" in said
    assert "pull" in said
    assert "is the deployed branch" in refused(ready, ann, "origin", ":main")


def test_a_push_onto_edits_by_hand_is_refused_with_the_remedy(ready: GitHost, ann: GitUser) -> None:
    mine = GROUPS.replace("extra: off", "extra: on")
    write(ready.desired, {"groups.yaml": mine})
    ready.daemon.converged(2)
    ann.save("web", {"groups.yaml": ON})
    done = ann.push()
    assert done.returncode != 0
    assert "uncommitted edits on the server: groups.yaml" in done.said
    assert f"service-manager git commit {ready.desired}" in done.said
    assert ready.groups() == mine
    assert ready.cli("git", "commit", str(ready.desired)).returncode == 0
    ann.git("pull", "--rebase", "-q")
    assert ann.push().returncode == 0
    status = ready.daemon.converged(3)
    assert {name: group["desired"] for name, group in status["groups"].items()}["extra"] == "on"


def test_links_that_lead_outside_are_refused(ready: GitHost, ann: GitUser) -> None:
    for number, target in enumerate(["/etc/passwd", "../../outside", ".git/config", "config/../../x"]):
        link = ann.directory / "link"
        link.symlink_to(target)
        ann.save(f"link {number}", {})
        said = refused(ready, ann)
        assert f"link: is a link to '{target}', which leads outside" in said
        ann.git("reset", "-q", "--hard", "origin/main")
    # A way out that is only seen by following another link.
    (ann.directory / "deep/er").mkdir(parents=True)
    (ann.directory / "deep/er/up").symlink_to("../..")
    (ann.directory / "out").symlink_to("deep/er/up/../x")
    ann.save("through another", {})
    assert "out: is a link" in refused(ready, ann)
    ann.git("reset", "-q", "--hard", "origin/main")
    (ann.directory / "config/again.conf").symlink_to("db.conf")
    ann.save("inside", {})
    assert ann.push().returncode == 0
    assert (ready.desired / "config/again.conf").read_text() == "one\n"


def test_what_is_pushed_is_never_run(ready: GitHost, ann: GitUser, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    hook = f"#!/bin/sh\ntouch {marker}\n"
    names = (
        "post-checkout",
        "post-receive",
        "pre-receive",
        "post-commit",
        "push-to-checkout",
        "post-index-change",
    )
    files = {f"{folder}/{name}": hook for folder in ("hooks", ".githooks", "_git/hooks") for name in names}
    write(ann.directory, files | {".gitattributes": "*.yaml filter=evil\n"})
    for name in files:
        (ann.directory / name).chmod(0o755)
    ready.me.git("config", "--global", "core.hooksPath", ".githooks")
    done = ann.try_git("-c", "core.hooksPath=/dev/null", "add", "-A")
    ann.git("-c", "core.hooksPath=/dev/null", "commit", "-qm", "hooks")
    assert ann.try_git("-c", "core.hooksPath=/dev/null", "push", "origin", "HEAD").returncode == 0, done.said
    ready.daemon.post("/services/start/web")
    until(lambda: ready.log()[0][1] == "Start web")
    assert not marker.exists()
    assert (ready.desired / ".githooks/post-receive").exists()


def test_huge_files_and_submodules_are_refused(ready: GitHost, ann: GitUser, tmp_path: Path) -> None:
    write(ann.directory, {"huge.bin": "x" * (11 * 2**20)})
    ann.save("huge", {})
    assert "huge.bin: is 11534336 bytes long" in refused(ready, ann)
    ann.git("reset", "-q", "--hard", "origin/main")
    head = ann.git("rev-parse", "HEAD")
    ann.git("update-index", "--add", "--cacheinfo", f"160000,{head},module")
    ann.git("commit", "-qm", "module")
    assert "module: is a submodule" in refused(ready, ann)


def test_a_file_that_only_the_box_has_is_not_written_over(ready: GitHost, ann: GitUser) -> None:
    ann.git("config", "core.excludesFile", "/dev/null")
    write(ann.directory, {".gitignore": ""})
    ann.save("secrets", {".env": "DB_PASSWORD=mine\n"})
    said = refused(ready, ann)
    assert ".env: exists on this machine" in said
    assert (ready.desired / ".env").read_text() == "DB_PASSWORD=secret\n"


def test_a_push_of_another_branch_deploys_nothing(ready: GitHost, ann: GitUser) -> None:
    ann.git("switch", "-qc", "idea")
    ann.save("broken idea", {"groups.yaml": "groups: {\n"})
    assert ann.push("origin", "idea").returncode == 0
    assert ready.groups() == GROUPS


def test_a_push_with_no_daemon_is_checked_all_the_same(ready: GitHost, ann: GitUser) -> None:
    ready.daemon.end()
    ann.save("bad", {"groups.yaml": "groups: {\n"})
    assert ann.push().returncode != 0
    ann.save("good", {"groups.yaml": ON})
    assert ann.push().returncode == 0
    ready.daemon.start()
    ready.daemon.until(lambda s: s["groups"].get("web", {}).get("status") == "running")
    assert ready.daemon.get("/services/history")["entries"][-1]["author"] == "ann"


def test_a_first_push_into_an_empty_directory(box: GitHost) -> None:
    box.desired.mkdir()
    assert box.cli("git", "init", str(box.desired)).returncode == 0
    write(box.desired, {".env": "DB_PASSWORD=secret\n"})
    box.daemon.start()
    place = box.folder / "mine"
    place.mkdir()
    ann = GitUser("ann", place, box.environ)
    ann.git("init", "-q")
    ann.git("remote", "add", "origin", str(box.desired))
    ann.save("all", FILES)
    done = ann.push()
    assert done.returncode == 0, done.said
    box.daemon.converged(1)


def test_an_adopted_repository_stays_as_it_is(box: GitHost) -> None:
    box.fill()
    box.me.git("init", "-q", "-b", "trunk")
    box.me.save("mine", {})
    head = box.head()
    hook = box.desired / ".git/hooks/pre-receive"
    hook.write_text("#!/bin/sh\n")
    done = box.cli("git", "init", str(box.desired))
    assert done.returncode == 1
    assert str(hook) in done.stderr
    hook.unlink()
    for _ in range(2):
        assert box.cli("git", "init", str(box.desired)).returncode == 0
    assert box.head() == head
    assert box.clean()
    ann = box.clone("ann")
    ann.save("web", {"groups.yaml": ON})
    assert ann.push().returncode == 0
    assert box.groups() == ON


def test_a_hook_whose_program_is_gone_refuses_and_doctor_says_so(ready: GitHost, ann: GitUser) -> None:
    hook = ready.desired / ".git/hooks/pre-receive"
    hook.write_text(re.sub(r"exec \S+", "exec /gone/python", hook.read_text()))
    ann.save("web", {"groups.yaml": ON})
    refused(ready, ann)
    said = ready.cli("doctor", "--desired-state", str(ready.desired)).said
    assert "every push is refused: its hook calls /gone/python" in said
    assert ready.cli("git", "init", str(ready.desired)).returncode == 0
    assert ann.push().returncode == 0


@pytest.mark.timeout(300)
def test_pushes_and_writes_at_once_lose_nobodys_change(ready: GitHost, ann: GitUser) -> None:
    """Ann pushes edits of the Compose file while groups are switched over REST, all the time."""
    over = threading.Event()
    switched: list[str] = []

    def switch() -> None:
        number = 0
        while not over.is_set():
            action = ("start", "stop")[number % 2]
            try:
                ready.daemon.post(f"/services/{action}/extra")
                switched.append(action)
                number += 1
            except RequestRefused as error:
                assert error.value["reason"] in {"being_written", "desired_state_invalid"}, error
            over.wait((0.3, 3.0, 0.5, 4.0)[number % 4])

    worker = threading.Thread(target=switch)
    worker.start()
    try:
        for number in range(2, 6):
            ann.save(f"app {number}", {"compose.yaml": COMPOSE.replace("app:1", f"app:{number}")})
            for _ in range(30):
                if ann.push().returncode == 0:
                    break
                ann.git("pull", "--rebase", "-q")
            else:
                raise AssertionError("never accepted")
    finally:
        over.set()
        worker.join()
    until(ready.clean)
    subjects = [subject for _, subject in reversed(ready.log())]
    assert [s.split()[0].lower() for s in subjects if s.endswith(" extra")] == switched
    assert [s for s in subjects if s.startswith("app")] == [f"app {n}" for n in range(2, 6)]
    assert "app:5" in (ready.desired / "compose.yaml").read_text()
    wanted = {"start": "on", "stop": "off"}[switched[-1]]
    assert f"extra: {wanted}" in ready.groups()
    # Each generation was whole: the image it has is one that was pushed, with the groups of its moment.
    ready.daemon.until(lambda s: s["converged"] and s["groups"]["extra"]["desired"] == wanted)
    assert not ready.daemon.get("/services/status")["errors"]
