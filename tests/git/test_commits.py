"""REST writes become commits of their authors; edits by hand are reported."""

from __future__ import annotations

import hashlib
import itertools
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.hosts.git_host import FILES, GROUPS, WEB_ON, GitHost, until, write


@pytest.fixture
def plain(host: GitHost) -> GitHost:
    """A host whose work tree was created with plain git commands."""
    host.fill()
    host.me.git("init", "-q")
    host.me.git("add", "-A")
    host.me.git("commit", "-qm", "first")
    return host


def test_a_write_is_a_commit_of_its_author_within_a_second(plain: GitHost) -> None:
    plain.up()
    answer = plain.daemon.post("/services/start/web")
    began = time.monotonic()
    until(lambda: len(plain.log()) == 2)
    took = time.monotonic() - began
    assert plain.log()[0] == ("anonymous", "Start web")
    body = plain.me.git("log", "-1", "--format=%b")
    assert "web: off → on" in body
    assert f"Generation: {answer['generation']}" in body
    assert plain.me.git("show", "--format=", "--name-only") == "groups.yaml"
    assert plain.clean()
    assert took < 1.0
    until(lambda: plain.daemon.get("/services/history")["entries"][-1]["commit"] == plain.head())
    assert not plain.daemon.get("/services/status")["warnings"]


def test_each_write_is_a_commit_in_order(plain: GitHost) -> None:
    plain.up()
    for action, group in (("start", "web"), ("start", "extra"), ("stop", "web"), ("restart", "extra")):
        plain.daemon.post(f"/services/{action}/{group}")
    until(plain.clean)
    subjects = [subject for _, subject in plain.log()]
    assert subjects == ["Restart extra", "Stop web", "Start extra", "Start web", "first"]


def test_writes_before_a_crash_are_committed_after_it(plain: GitHost) -> None:
    lock = plain.desired / ".git" / "index.lock"
    plain.up()
    lock.touch()
    plain.daemon.post("/services/start/extra")
    plain.daemon.post("/services/stop/extra")
    plain.daemon.kill()
    assert len(plain.log()) == 1
    lock.unlink()
    plain.up()
    # Clean is no sign of the commits: after on and off, the file has its first content.
    until(lambda: len(plain.log()) == 3)
    assert plain.clean()
    assert [subject for _, subject in plain.log()] == ["Stop extra", "Start extra", "first"]


def test_a_stale_lock_is_reported_and_the_commit_follows_its_removal(plain: GitHost) -> None:
    plain.up()
    lock = plain.desired / ".git" / "index.lock"
    lock.touch()
    plain.daemon.post("/services/start/extra")
    status = plain.daemon.until(lambda s: any("not committed" in w for w in s["warnings"]))
    assert any("index.lock" in warning for warning in status["warnings"])
    lock.unlink()
    until(lambda: plain.clean() and len(plain.log()) == 2)
    plain.daemon.until(lambda s: not any("not committed" in w for w in s["warnings"]))


@contextmanager
def shell_prompt(repository: Path) -> Iterator[None]:
    """Lock the index again and again, like a shell that shows the git status in its prompt."""
    stop = threading.Event()

    def lock_repeatedly() -> None:
        lock = repository / "index.lock"
        while not stop.wait(0.015):
            with suppress(FileExistsError):
                lock.touch(exist_ok=False)
                stop.wait(0.03)
                lock.unlink()

    thread = threading.Thread(target=lock_repeatedly)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_prompt_that_locks_the_index_delays_no_commit(plain: GitHost) -> None:
    plain.up()
    with shell_prompt(plain.desired / ".git"):
        for action in ("start", "stop", "start", "stop", "start"):
            count = len(plain.log())
            plain.daemon.post(f"/services/{action}/web")
            until(lambda count=count: len(plain.log()) == count + 1)  # type: ignore[misc]
    until(plain.clean)
    assert "changes are not committed" not in plain.daemon.log()


def test_an_edit_by_hand_is_reported_and_committed_by_command(plain: GitHost) -> None:
    plain.up()
    write(plain.desired, {"groups.yaml": WEB_ON})
    status = plain.daemon.until(lambda s: any("edited by hand" in w for w in s["warnings"]))
    assert "groups.yaml" in str(status["warnings"])
    done = plain.cli("git", "commit", str(plain.desired), "--message", "Web is wanted")
    assert done.returncode == 0, done.output
    plain.daemon.until(lambda s: not s["warnings"])
    assert plain.log()[0][1] == "Web is wanted"
    assert plain.clean()


def test_a_broken_edit_is_not_committed(plain: GitHost) -> None:
    write(plain.desired, {"groups.yaml": GROUPS.replace("off", "onn")})
    done = plain.cli("git", "commit", str(plain.desired))
    assert done.returncode == 1
    assert "groups.yaml:5:" in done.stderr
    assert len(plain.log()) == 1


def test_an_edit_before_a_write_gets_its_own_commit(plain: GitHost) -> None:
    plain.up()
    write(plain.desired, {"groups.yaml": GROUPS.replace("extra: off", "extra: on")})
    plain.daemon.post("/services/start/web")
    until(plain.clean)
    assert plain.log()[:2] == [("anonymous", "Start web"), ("hand edit", "Edit groups.yaml by hand")]
    assert "extra: on" in plain.me.git("show", "HEAD~1:groups.yaml")
    assert "web: off" in plain.me.git("show", "HEAD~1:groups.yaml")


def test_other_edits_by_hand_stay_uncommitted(plain: GitHost) -> None:
    plain.up()
    write(plain.desired, {"stack.yaml": FILES["stack.yaml"] + "# mine\n"})
    plain.daemon.post("/services/start/extra")
    until(lambda: len(plain.log()) == 2)
    assert plain.me.git("status", "--porcelain") == "M stack.yaml"
    plain.daemon.until(lambda s: any("stack.yaml" in w for w in s["warnings"]))


def test_staged_changes_of_a_user_stay_staged(plain: GitHost) -> None:
    plain.up()
    write(plain.desired, {"config/db.conf": "two\n"})
    plain.me.git("add", "config/db.conf")
    plain.daemon.post("/services/start/extra")
    until(lambda: len(plain.log()) == 2)
    assert plain.me.git("status", "--porcelain") == "M  config/db.conf"
    assert plain.me.git("show", "--format=", "--name-only") == "groups.yaml"


def test_edits_by_hand_are_committed_by_option(plain: GitHost) -> None:
    plain.daemon.environ["SERVICE_MANAGER_GIT_COMMIT_EDITS"] = "1"
    plain.me.git("config", "user.name", "Ann")
    plain.up()
    write(plain.desired, {"groups.yaml": WEB_ON})
    until(plain.clean)
    assert plain.log()[0] == ("Ann", "Edit groups.yaml by hand")


def test_nothing_is_committed_in_a_folder_of_a_larger_clone(host: GitHost) -> None:
    host.fill()
    subprocess.run(["git", "init", "-q", str(host.folder)], check=True, env=host.environ)
    host.me.git("add", "-A")
    host.me.git("commit", "-qm", "first")
    host.up()
    host.daemon.post("/services/start/extra")
    host.daemon.converged(2)
    assert len(host.log()) == 1
    assert not host.clean()
    assert host.daemon.get("/services/history")["entries"][-1]["commit"] is None


def test_a_commit_on_the_host_is_a_generation_of_its_author(plain: GitHost) -> None:
    plain.up()
    commit = plain.me.save("web", {"groups.yaml": WEB_ON})
    until(lambda: plain.daemon.get("/services/history")["entries"][-1]["commit"] == commit)
    entry = plain.daemon.get("/services/history")["entries"][-1]
    assert entry["changes"] == ["web: off → on"]


@pytest.mark.pitfall(32)
def test_root_commits_as_the_owner_of_the_checkout(plain: GitHost) -> None:
    # Other users can't enter the tests' folders by default.
    for parent in (plain.desired, *plain.desired.parents):
        if parent != Path("/") and parent.stat().st_uid == 0 and parent != Path("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o055)
    subprocess.run(["chown", "-R", "nobody:nogroup", str(plain.desired)], check=True)
    plain.up()
    plain.daemon.post("/services/start/extra")
    log = ["git", "-c", f"safe.directory={plain.desired}", "-C", str(plain.desired), "log", "--format=%s"]

    def subjects() -> list[str]:
        return subprocess.run(log, capture_output=True, text=True, check=True).stdout.split("\n")

    until(lambda: subjects()[0] == "Start extra")
    owners = {path.stat().st_uid for path in (plain.desired / ".git").rglob("*")}
    assert owners == {plain.desired.stat().st_uid}


def test_a_rollback_is_a_commit_and_restores_mounted_files(plain: GitHost) -> None:
    plain.up()
    first = plain.head()
    plain.me.save(
        "two",
        {"config/db.conf": "two\n", "new.txt": "new\n", "groups.yaml": WEB_ON},
    )
    plain.daemon.converged(2)
    done = plain.daemon.cli("rollback", "1")
    assert done.returncode == 0, done.stderr
    until(plain.clean)
    assert plain.log()[0] == ("anonymous", "Roll back to generation 1")
    assert plain.me.git("diff", first, "HEAD") == ""
    assert (plain.desired / "config/db.conf").read_text() == "one\n"
    assert not (plain.desired / "new.txt").exists()
    assert (plain.desired / ".env").exists()


def with_decimal_id(host: GitHost) -> str:
    """Give the last commit an id whose first ten digits are decimal, as one in a hundred has; return it."""
    content = host.me.git("cat-file", "commit", "HEAD") + "\n"
    for number in itertools.count():
        body = f"{content}{number}\n".encode()
        commit = hashlib.sha1(b"commit %d\0" % len(body) + body, usedforsecurity=False).hexdigest()
        if commit[:10].isdecimal():
            break
    (host.folder / "commit").write_bytes(body)
    assert host.me.git("hash-object", "-t", "commit", "-w", str(host.folder / "commit")) == commit
    host.me.git("update-ref", "HEAD", commit)
    return commit


@pytest.mark.parametrize("digits", [False, True])
def test_rollback_to_a_commit_that_was_never_a_generation(plain: GitHost, digits: bool) -> None:
    plain.up()
    plain.me.save("between", {"groups.yaml": GROUPS.replace("extra: off", "extra: on")})
    plain.daemon.converged(2)
    plain.daemon.kill()
    between = with_decimal_id(plain) if digits else plain.head()
    for path in (plain.daemon.state / "generations").iterdir():
        if path.name.endswith("2.json"):
            path.unlink()
    plain.me.save("after", {"groups.yaml": WEB_ON})
    plain.up()
    plain.daemon.until(lambda s: s["groups"]["web"]["desired"] == "on")
    plan = plain.daemon.get(f"/services/history/{between[:8]}")
    assert plan["entry"] is None
    assert plan["changes"] == ["web: on → off", "extra: off → on"]
    assert plain.daemon.cli("rollback", between[:8]).returncode == 0
    until(plain.clean)
    assert plain.me.git("diff", between, "HEAD") == ""
    assert re.match(f"Roll back to commit {between[:10]}[0-9]*[a-f]?$", plain.log()[0][1])


def test_the_author_is_the_name_of_the_key(plain: GitHost) -> None:
    made = plain.cli("key", "add", "ann", "--role", "operator")
    assert made.returncode == 0, made.output
    key = made.stdout.strip().splitlines()[-1]
    plain.daemon.start(wait=False)
    until(lambda: "desired state accepted" in plain.daemon.log())
    plain.daemon.environ["SERVICE_MANAGER_API_KEY"] = key
    done = plain.daemon.cli("start", "extra", "--no-wait")
    assert done.returncode == 0, done.stderr
    until(lambda: plain.log()[0] == ("ann", "Start extra"))


@pytest.mark.pitfall(31)
def test_a_rebase_of_many_commits_while_writes_arrive(plain: GitHost) -> None:
    """Neither breaks the other, and every write is committed in the end (row 31)."""
    plain.me.git("switch", "-qc", "work")
    for number in range(80):
        plain.me.save(f"note {number}", {f"notes/{number}.txt": "x\n"})
    plain.me.git("switch", "-q", "main")
    plain.me.save("base", {"base.txt": "x\n"})
    plain.me.git("switch", "-q", "work")
    plain.up()
    command, written = ["git", "rebase", "-q", "main"], []
    with subprocess.Popen(command, cwd=plain.desired, env=plain.me.environ) as rebase:
        # Wait for its start: git refuses to start on files that were just written.
        until(lambda: (plain.desired / ".git/rebase-merge").exists() or rebase.poll() is not None)
        while rebase.poll() is None:
            action = ("start", "stop")[len(written) % 2]
            plain.daemon.post(f"/services/{action}/extra")
            written.append(f"{action.capitalize()} extra")
    assert (rebase.returncode, written != []) == (0, True)
    until(lambda: plain.clean() and len(plain.log()) == 82 + len(written))
    subjects = [subject for _, subject in plain.log()]
    assert [s for s in reversed(subjects) if s.endswith(" extra")] == written
    assert sum(s.startswith("note ") for s in subjects) == 80


@contextmanager
def damaged_index(host: GitHost) -> Iterator[None]:
    """Damage the index: every git command that reads it fails."""
    index, saved = host.desired / ".git/index", host.folder / "index"
    index.rename(saved)
    index.write_text("garbage")
    yield
    saved.rename(index)


def test_a_write_while_git_fails_is_committed_later_under_its_author(plain: GitHost) -> None:
    plain.up()
    first = plain.head()
    with damaged_index(plain):
        plain.daemon.post("/services/start/web")
        plain.daemon.until(lambda s: any("git: " in w for w in s["warnings"]))
        # Files are read again during the failure.
        write(plain.desired, {"config/db.conf": "one\n", ".env": "DB_PASSWORD=other\n"})
        plain.daemon.converged(3)
        assert [e["commit"] for e in plain.daemon.get("/services/history")["entries"]] == [first, None, None]
    until(lambda: len(plain.log()) == 2 and plain.clean())
    assert plain.log()[0] == ("anonymous", "Start web")
    plain.daemon.until(lambda s: not s["warnings"])
    until(lambda: plain.daemon.get("/services/history")["entries"][1]["commit"] == plain.head())


def test_on_and_off_while_git_fails_is_two_commits(plain: GitHost) -> None:
    """In the end the file equals the branch's, although neither write is committed yet."""
    plain.up()
    lock = plain.desired / ".git" / "index.lock"
    lock.touch()
    plain.daemon.post("/services/start/web")
    plain.daemon.post("/services/stop/web")
    plain.daemon.until(lambda s: any("not committed" in w for w in s["warnings"]))
    write(plain.desired, {"stack.yaml": FILES["stack.yaml"]})
    plain.daemon.converged(3)
    lock.unlink()
    until(lambda: len(plain.log()) == 3)
    assert [subject for _, subject in plain.log()] == ["Stop web", "Start web", "first"]
    commits = [e["commit"] for e in plain.daemon.get("/services/history")["entries"]]
    assert len(set(commits)) == 3
