"""Pushes are validated, then accepted or refused; no change of any user is lost."""

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
    WEB_ON,
    GitHost,
    GitUser,
    refused,
    until,
    write,
)


def test_a_good_push_prints_its_plan_and_is_deployed(push_host: GitHost, ann: GitUser) -> None:
    commit = ann.save("Web is wanted", {"groups.yaml": WEB_ON, "README.md": "hello\n"})
    done = ann.push()
    assert done.returncode == 0, done.output
    assert "web: off → on" in done.output
    status = push_host.daemon.converged(2)
    assert status["groups"]["web"]["status"] == "running"
    assert push_host.head() == commit
    assert push_host.clean()
    assert (push_host.desired / "README.md").exists()
    entry = push_host.daemon.get("/services/history")["entries"][-1]
    assert (entry["author"], entry["commit"]) == ("ann", commit)
    assert not status["warnings"]


def test_a_bad_push_is_refused_with_the_place_of_every_mistake(push_host: GitHost, ann: GitUser) -> None:
    ann.save(
        "bad",
        {
            "groups.yaml": GROUPS.replace("web: off", "web: onn"),
            "stack.yaml": STACK.replace("[cache]", "[cash]"),
        },
    )
    output = refused(push_host, ann)
    assert re.search(r"stack\.yaml:10:16: .*cash", output), output
    assert re.search(r"groups\.yaml:5:8: .*onn", output), output
    ann.save("good", {"groups.yaml": WEB_ON, "stack.yaml": STACK})
    assert ann.push().returncode == 0


def test_a_push_is_validated_with_the_untracked_files_of_the_host(push_host: GitHost, ann: GitUser) -> None:
    # Only the host has .env; without it the Compose file is invalid.
    assert not (ann.directory / ".env").exists()
    ann.save("a", {"compose.yaml": COMPOSE.replace("app:1", "app:2")})
    assert ann.push().returncode == 0
    push_host.daemon.converged(2)
    ann.save("b", {"compose.yaml": COMPOSE.replace("DB_PASSWORD", "OTHER_PASSWORD")})
    output = refused(push_host, ann)
    assert "OTHER_PASSWORD" in output
    assert "compose.yaml" in output
    assert "secret" not in output
    assert str(push_host.desired / ".git") not in output


def test_a_pushed_lfs_pointer_that_is_mounted_is_a_warning(push_host: GitHost, ann: GitUser) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 48213004\n"
    override = "services:\n  cache: {volumes: ['./plates.onnx:/models/plates.onnx:ro']}\n"
    stack = STACK.replace("[compose.yaml]", "[compose.yaml, models.yaml]")
    ann.save("a model", {"plates.onnx": pointer, "models.yaml": override, "stack.yaml": stack})
    done = ann.push()
    assert done.returncode == 0, done.output
    assert f"warning: cache: {push_host.desired}/plates.onnx is a Git LFS pointer" in done.output


def test_relative_paths_are_resolved_on_the_host(push_host: GitHost, ann: GitUser) -> None:
    """Only the changed service is recreated: the validated model has the hashes of the running one."""
    ann.save("a", {"compose.yaml": COMPOSE.replace("cache:1", "cache:2")})
    assert "cache: image changed" in ann.push().output
    ann.save("b", {"README.md": "no change of desired state\n"})
    assert "changes nothing that affects containers" in ann.push().output


def test_pwd_in_a_push_is_the_folder_on_the_box(push_host: GitHost, ann: GitUser) -> None:
    """A commit is validated in a temporary folder; ``${PWD}`` is the folder on the host even there."""
    app = "{image: 'app:1', env_file: ['${PWD}/app.env'], labels: {at: '${PWD}'}}"
    text = COMPOSE.replace('{image: "app:1", depends_on: [db]}', app)
    ann.save("env file", {"compose.yaml": text, "app.env": "A=1\n"})
    done = ann.push()
    assert done.returncode == 0, done.output
    assert "app: " in done.output
    push_host.daemon.until(lambda s: s["generation"] == 2)
    (pushed, *_) = sorted((push_host.folder / "state/generations").glob("*.json"), reverse=True)
    record = json.loads(pushed.read_text())
    model = json.loads((push_host.folder / "state/resolved" / f"{record['resolved']}.json").read_bytes())
    assert model["services"]["app"]["labels"] == {"at": str(push_host.desired)}
    assert "app.env" in record["sources"]
    ann.save("no change of desired state", {"README.md": "hello\n"})
    assert "changes nothing that affects containers" in ann.push().output


def test_a_clone_that_is_behind_must_pull(push_host: GitHost, ann: GitUser) -> None:
    ben = push_host.clone("ben")
    ann.save("ann's", {"groups.yaml": WEB_ON})
    assert ann.push().returncode == 0
    ben.save("ben's", {"stack.yaml": STACK + "# ben\n"})
    push_host.daemon.converged(2)
    output = refused(push_host, ben)
    assert "fetch first" in output or "non-fast-forward" in output or "pull" in output
    ben.git("pull", "--rebase", "-q")
    assert ben.push().returncode == 0
    assert push_host.groups() == WEB_ON


def test_a_forced_push_can_remove_no_commits(push_host: GitHost, ann: GitUser) -> None:
    push_host.daemon.post("/services/start/extra")
    until(lambda: len(push_host.log()) == 2)
    ann.save("mine alone", {"groups.yaml": WEB_ON})
    output = refused(push_host, ann, "--force", "origin", "HEAD")
    assert "would remove commits" in output
    assert "pull" in output
    assert "is the deployed branch" in refused(push_host, ann, "origin", ":main")


def test_a_push_is_refused_while_edits_by_hand_are_uncommitted(push_host: GitHost, ann: GitUser) -> None:
    mine = GROUPS.replace("extra: off", "extra: on")
    write(push_host.desired, {"groups.yaml": mine})
    push_host.daemon.converged(2)
    ann.save("web", {"groups.yaml": WEB_ON})
    done = ann.push()
    assert done.returncode != 0
    assert "uncommitted edits on the server: groups.yaml" in done.output
    assert f"service-manager git commit {push_host.desired}" in done.output
    assert push_host.groups() == mine
    assert push_host.cli("git", "commit", str(push_host.desired)).returncode == 0
    ann.git("pull", "--rebase", "-q")
    assert ann.push().returncode == 0
    status = push_host.daemon.converged(3)
    assert {name: group["desired"] for name, group in status["groups"].items()}["extra"] == "on"


def test_links_that_leave_the_directory_are_refused(push_host: GitHost, ann: GitUser) -> None:
    for number, target in enumerate(["/etc/passwd", "../../outside", ".git/config", "config/../../x"]):
        link = ann.directory / "link"
        link.symlink_to(target)
        ann.save(f"link {number}", {})
        output = refused(push_host, ann)
        assert f"link: is a link to '{target}', which leads outside" in output
        ann.git("reset", "-q", "--hard", "origin/main")
    # A path that leaves the directory only through another link.
    (ann.directory / "deep/er").mkdir(parents=True)
    (ann.directory / "deep/er/up").symlink_to("../..")
    (ann.directory / "out").symlink_to("deep/er/up/../x")
    ann.save("through another", {})
    assert "out: is a link" in refused(push_host, ann)
    ann.git("reset", "-q", "--hard", "origin/main")
    (ann.directory / "config/again.conf").symlink_to("db.conf")
    ann.save("inside", {})
    assert ann.push().returncode == 0
    assert (push_host.desired / "config/again.conf").read_text() == "one\n"


def test_pushed_hooks_and_filters_never_run(push_host: GitHost, ann: GitUser, tmp_path: Path) -> None:
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
    push_host.me.git("config", "--global", "core.hooksPath", ".githooks")
    done = ann.try_git("-c", "core.hooksPath=/dev/null", "add", "-A")
    ann.git("-c", "core.hooksPath=/dev/null", "commit", "-qm", "hooks")
    assert ann.try_git("-c", "core.hooksPath=/dev/null", "push", "origin", "HEAD").returncode == 0, (
        done.output
    )
    push_host.daemon.post("/services/start/web")
    until(lambda: push_host.log()[0][1] == "Start web")
    assert not marker.exists()
    assert (push_host.desired / ".githooks/post-receive").exists()


def test_huge_files_and_submodules_are_refused(push_host: GitHost, ann: GitUser, tmp_path: Path) -> None:
    write(ann.directory, {"huge.bin": "x" * (11 * 2**20)})
    ann.save("huge", {})
    assert "huge.bin: is 11534336 bytes long" in refused(push_host, ann)
    ann.git("reset", "-q", "--hard", "origin/main")
    head = ann.git("rev-parse", "HEAD")
    ann.git("update-index", "--add", "--cacheinfo", f"160000,{head},module")
    ann.git("commit", "-qm", "module")
    assert "module: is a submodule" in refused(push_host, ann)


def test_an_untracked_file_of_the_host_is_not_overwritten(push_host: GitHost, ann: GitUser) -> None:
    ann.git("config", "core.excludesFile", "/dev/null")
    write(ann.directory, {".gitignore": ""})
    ann.save("secrets", {".env": "DB_PASSWORD=mine\n"})
    output = refused(push_host, ann)
    assert ".env: exists on this machine" in output
    assert (push_host.desired / ".env").read_text() == "DB_PASSWORD=secret\n"


def test_a_push_of_another_branch_deploys_nothing(push_host: GitHost, ann: GitUser) -> None:
    ann.git("switch", "-qc", "idea")
    ann.save("broken idea", {"groups.yaml": "groups: {\n"})
    pushed = ann.push("origin", "idea")
    assert pushed.returncode == 0
    assert "nothing is deployed: only main is, and idea is only stored" in pushed.stderr
    assert "git push REMOTE idea:main" in pushed.stderr
    assert push_host.groups() == GROUPS
    ann.git("tag", "v1")
    tagged = ann.push("origin", "v1")
    assert "nothing is deployed: only main is, and v1 is only stored" in tagged.stderr
    deleted = ann.push("origin", ":idea")
    assert deleted.returncode == 0
    assert "deployed" not in deleted.stderr


def test_a_push_without_a_daemon_is_validated(push_host: GitHost, ann: GitUser) -> None:
    push_host.daemon.end()
    ann.save("bad", {"groups.yaml": "groups: {\n"})
    assert ann.push().returncode != 0
    ann.save("good", {"groups.yaml": WEB_ON})
    assert ann.push().returncode == 0
    push_host.daemon.start()
    push_host.daemon.until(lambda s: s["groups"].get("web", {}).get("status") == "running")
    assert push_host.daemon.get("/services/history")["entries"][-1]["author"] == "ann"


def test_the_first_push_into_an_empty_directory(host: GitHost) -> None:
    host.desired.mkdir()
    assert host.cli("git", "init", str(host.desired)).returncode == 0
    write(host.desired, {".env": "DB_PASSWORD=secret\n"})
    host.daemon.start()
    place = host.folder / "mine"
    place.mkdir()
    ann = GitUser("ann", place, host.environ)
    ann.git("init", "-q")
    ann.git("remote", "add", "origin", str(host.desired))
    ann.save("all", FILES)
    done = ann.push()
    assert done.returncode == 0, done.output
    host.daemon.converged(1)


def test_git_init_keeps_an_existing_repository(host: GitHost) -> None:
    host.fill()
    host.me.git("init", "-q", "-b", "trunk")
    host.me.save("mine", {})
    head = host.head()
    hook = host.desired / ".git/hooks/pre-receive"
    hook.write_text("#!/bin/sh\n")
    done = host.cli("git", "init", str(host.desired))
    assert done.returncode == 1
    assert str(hook) in done.stderr
    hook.unlink()
    for _ in range(2):
        assert host.cli("git", "init", str(host.desired)).returncode == 0
    assert host.head() == head
    assert host.clean()
    ann = host.clone("ann")
    ann.save("web", {"groups.yaml": WEB_ON})
    assert ann.push().returncode == 0
    assert host.groups() == WEB_ON


def test_doctor_reports_a_hook_without_its_program(push_host: GitHost, ann: GitUser) -> None:
    hook = push_host.desired / ".git/hooks/pre-receive"
    hook.write_text(re.sub(r"exec ('[^']*'|\S+)", "exec /gone/python", hook.read_text()))
    ann.save("web", {"groups.yaml": WEB_ON})
    refused(push_host, ann)
    output = push_host.cli("doctor", "--desired-state", str(push_host.desired)).output
    assert "every push is refused: its hook calls /gone/python" in output
    assert push_host.cli("git", "init", str(push_host.desired)).returncode == 0
    assert ann.push().returncode == 0


@pytest.mark.timeout(300)
def test_simultaneous_pushes_and_writes_lose_no_change(push_host: GitHost, ann: GitUser) -> None:
    """Ann pushes edits of the Compose file while REST writes switch groups."""
    stop = threading.Event()
    switched: list[str] = []

    def switch() -> None:
        number = 0
        while not stop.is_set():
            action = ("start", "stop")[number % 2]
            try:
                push_host.daemon.post(f"/services/{action}/extra")
                switched.append(action)
                number += 1
            except RequestRefused as error:
                assert error.value["reason"] in {"being_written", "desired_state_invalid"}, error
            stop.wait((0.3, 3.0, 0.5, 4.0)[number % 4])

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
        stop.set()
        worker.join()
    until(push_host.clean)
    subjects = [subject for _, subject in reversed(push_host.log())]
    assert [s.split()[0].lower() for s in subjects if s.endswith(" extra")] == switched
    assert [s for s in subjects if s.startswith("app")] == [f"app {n}" for n in range(2, 6)]
    assert "app:5" in (push_host.desired / "compose.yaml").read_text()
    wanted = {"start": "on", "stop": "off"}[switched[-1]]
    assert f"extra: {wanted}" in push_host.groups()
    # No generation mixed two commits: the last one has the last image and the last group state.
    push_host.daemon.until(lambda s: s["converged"] and s["groups"]["extra"]["desired"] == wanted)
    assert not push_host.daemon.get("/services/status")["errors"]
