"""Upstream takes commits back: the box follows or stops, and never brings them back."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.git.upstream import ON, Upstream, deliver, in_step, pulling, signed, signer
from tests.support.harness.daemon import RequestRefused
from tests.support.hosts.git_host import COMPOSE, GROUPS, GitHost, until, write

FETCHED, TAKEN = "refs/service-manager/fetched", "refs/service-manager/taken"


def rewind(upstream: Upstream, to: str = "HEAD~1") -> str:
    upstream.ann.git("fetch", "-q")
    upstream.ann.git("reset", "-q", "--hard", to)
    return force(upstream)


def force(upstream: Upstream) -> str:
    done = upstream.ann.push("--force", "origin", "main")
    assert done.returncode == 0, done.said
    return upstream.head()


def fetch(box: GitHost) -> None:
    assert deliver(box, b"{}", {"X-Hub-Signature-256": f"sha256={signed(b'{}')}"}) == 202


def offline(upstream: Upstream) -> Path:
    away = upstream.bare.with_name("away.git")
    upstream.bare.rename(away)
    return away


def settled(box: GitHost, upstream: Upstream, web: str) -> None:
    """The box has what upstream holds; nothing comes back within some fetches."""
    box.daemon.until(lambda s: s["groups"]["web"]["desired"] == web and not s["warnings"])
    until(lambda: box.head() == upstream.head())
    assert box.clean()


def test_a_withdrawn_commit_is_followed_backwards(pulled: GitHost, upstream: Upstream) -> None:
    good = upstream.head()
    upstream.give("a mistake", {"groups.yaml": ON, "extra.txt": "x\n"})
    pulled.daemon.converged(2)
    assert rewind(upstream) == good
    pulled.daemon.converged(3)
    settled(pulled, upstream, "off")
    assert upstream.head() == good
    assert not (pulled.desired / "extra.txt").exists()
    entry = pulled.daemon.get("/services/history")["entries"][-1]
    assert (entry["commit"], entry["changes"]) == (good, ["web: on → off"])
    assert "followed a rewritten upstream" in pulled.daemon.log()
    # What is made here afterwards is pushed, on top of what upstream holds now.
    pulled.daemon.post("/services/start/extra")
    in_step(pulled, upstream, 2)
    # And may be withdrawn there like everything else.
    assert rewind(upstream, good) == good
    pulled.daemon.until(lambda s: s["groups"]["extra"]["desired"] == "off")
    settled(pulled, upstream, "off")
    assert upstream.head() == good


def test_history_that_was_rewritten_is_followed_whatever_was_done(
    pulled: GitHost, upstream: Upstream
) -> None:
    upstream.give("a password", {"groups.yaml": ON, "secret.txt": "hunter22\n"})
    upstream.give("more", {"more.txt": "x\n"})
    pulled.daemon.converged(2)
    ann = upstream.ann
    # Squashed without the file.
    ann.git("reset", "-q", "--soft", "HEAD~2")
    ann.git("rm", "-q", "--cached", "secret.txt")
    ann.git("commit", "-qm", "squashed")
    force(upstream)
    until(lambda: pulled.head() == ann.git("rev-parse", "HEAD"))
    assert not (pulled.desired / "secret.txt").exists()
    # Amended so that it conflicts with the previous commit.
    write(ann.directory, {"groups.yaml": GROUPS.replace("web: off", "web: off   # amended")})
    ann.git("commit", "-qa", "--amend", "-m", "amended")
    force(upstream)
    settled(pulled, upstream, "off")
    # Replaced by a history that has nothing in common with it.
    ann.git("checkout", "-q", "--orphan", "fresh")
    ann.save("anew", {"groups.yaml": ON})
    ann.git("branch", "-qM", "main")
    force(upstream)
    settled(pulled, upstream, "on")
    assert [subject for _, subject in pulled.log()] == ["anew"]


def test_own_commits_go_onto_what_upstream_was_rewritten_to(box: GitHost, upstream: Upstream) -> None:
    pulling(box, interval="600")
    box.up()
    upstream.give("a mistake", {"groups.yaml": ON})
    fetch(box)
    box.daemon.converged(2)
    away = offline(upstream)
    box.daemon.post("/services/start/extra")
    until(lambda: box.log()[0][1] == "Start extra")
    box.me.save("by hand", {"notes.txt": "mine\n"})
    box.daemon.until(lambda s: any("can't fetch" in w for w in s["warnings"]))
    until(lambda: len(box.log()) == 4)
    # Two rewrites that the box has not seen.
    upstream.ann.git("remote", "set-url", "origin", str(away))
    rewind(upstream)
    upstream.give("other", {"compose.yaml": COMPOSE.replace("db:1", "db:2")})
    rewind(upstream)
    upstream.give("instead", {"compose.yaml": COMPOSE.replace("db:1", "db:3")})
    away.rename(upstream.bare)
    upstream.ann.git("remote", "set-url", "origin", str(upstream.bare))
    fetch(box)
    in_step(box, upstream, 4)
    assert [subject for _, subject in box.log()] == ["by hand", "Start extra", "instead", "first"]
    assert upstream.show("groups.yaml") == GROUPS.replace("extra: off", "extra: on")
    box.daemon.until(lambda s: s["groups"]["web"]["desired"] == "off" and not s["warnings"])


def test_own_commits_that_conflict_are_named_and_kept(box: GitHost, upstream: Upstream) -> None:
    pulling(box, interval="600")
    box.up()
    upstream.give("a mistake", {"groups.yaml": ON})
    fetch(box)
    box.daemon.converged(2)
    away = offline(upstream)
    box.daemon.post("/services/start/extra")
    until(lambda: box.log()[0][1] == "Start extra")
    upstream.ann.git("reset", "-q", "--hard", "HEAD~1")
    upstream.ann.save("theirs", {"groups.yaml": GROUPS.replace("extra: off", "extra: on   # theirs")})
    away.rename(upstream.bare)
    tip = force(upstream)
    fetch(box)
    status = box.daemon.until(lambda s: any("conflict with commit" in w for w in s["warnings"]))
    (warning,) = [w for w in status["warnings"] if "conflict with commit" in w]
    assert "(Start extra) conflicts in groups.yaml" in warning
    assert "a mistake" not in warning
    assert "extra: on" in box.groups()
    assert upstream.head() == tip
    # The remedy is true.
    for command in warning.split("`")[1::2]:
        box.me.try_git(*command.split()[1:])
    write(box.desired, {"groups.yaml": ON})
    box.me.git("commit", "-qam", "by hand")
    fetch(box)
    in_step(box, upstream, 3)


def test_pushed_while_upstream_is_taken_back(pulled: GitHost, upstream: Upstream) -> None:
    """The box fetched a commit that is withdrawn in the instant before its push."""
    good = upstream.head()
    upstream.give("a mistake", {"groups.yaml": ON})
    pulled.daemon.converged(2)
    pulled.daemon.end()
    upload = pulled.folder / "upload-pack"
    upload.write_text(
        f'#!/bin/sh\ngit-upload-pack "$@"; s=$?\n[ -e {upload}.go ] && rm {upload}.go && '
        f"git --git-dir={upstream.bare} update-ref refs/heads/main {good}\nexit $s\n"
    )
    upload.chmod(upload.stat().st_mode | stat.S_IXUSR)
    pulled.me.git("config", "remote.origin.uploadpack", str(upload))
    pulled.me.save("mine", {"notes.txt": "mine\n"})
    upload.with_suffix(".go").touch()
    pulled.up()
    in_step(pulled, upstream, 2)
    assert [subject for _, subject in pulled.log()] == ["mine", "first"]
    settled(pulled, upstream, "off")


def test_it_stops_where_that_is_asked_for(box: GitHost, upstream: Upstream) -> None:
    pulling(box, rewritten="stop")
    box.up()
    bad = upstream.give("a mistake", {"groups.yaml": ON})
    box.daemon.converged(2)
    good = rewind(upstream)
    status = box.daemon.until(lambda s: any("rewritten" in w for w in s["warnings"]))
    (warning,) = [w for w in status["warnings"] if "rewritten" in w]
    assert f"{bad[:10]} (a mistake)" in warning
    # What is made here waits; neither it nor the mistake is pushed.
    box.daemon.post("/services/start/extra")
    box.daemon.until(lambda s: any("cherry-pick" in w for w in s["warnings"]))
    assert (upstream.head(), box.head() != good) == (good, True)
    assert f"git reset --hard {good[:10]}" in warning
    box.me.git("reset", "-q", "--hard", good)
    settled(box, upstream, "off")


def test_writes_are_refused_and_a_rewritten_branch_is_followed(box: GitHost, upstream: Upstream) -> None:
    pulling(box, writes="refuse")
    box.up()
    upstream.give("a mistake", {"groups.yaml": ON})
    box.daemon.converged(2)
    rewind(upstream)
    settled(box, upstream, "off")
    mine = box.me.save("mine", {"notes.txt": "mine\n"})
    status = box.daemon.until(lambda s: any("that upstream lacks" in w for w in s["warnings"]))
    assert f"{mine[:10]} (mine)" in str(status["warnings"])
    assert upstream.head() != mine


@pytest.mark.parametrize("stuck", [False, True])
def test_a_clone_of_an_earlier_version(box: GitHost, upstream: Upstream, stuck: bool) -> None:
    """It has no memory of what was taken but what was fetched last, and the reflog."""
    good = upstream.head()
    box.up()
    bad = upstream.give("a mistake", {"groups.yaml": ON})
    box.daemon.converged(2)
    box.daemon.end()
    box.me.git("update-ref", "-d", TAKEN)
    for log in (".git/logs/HEAD", ".git/logs/refs/heads/main"):
        text = (box.desired / log).read_text()
        lines = [line.split("\tservice-manager: take in ")[0] for line in text.splitlines()]
        (box.desired / log).write_text("".join(f"{line}\tservice-manager: taken in\n" for line in lines))
    (box.desired / ".git/logs" / FETCHED).unlink()
    rewind(upstream)
    if stuck:
        # It stayed on the withdrawn commit, fetch after fetch (--git-writes refuse).
        box.me.git("fetch", "-q", "origin", f"+main:{FETCHED}")
    box.up()
    settled(box, upstream, "off")
    assert (upstream.head(), box.head()) == (good, good)
    assert bad not in box.me.git("rev-list", "HEAD")


def test_started_after_a_crash_between_fetch_and_merge(box: GitHost, upstream: Upstream) -> None:
    box.up()
    upstream.give("a mistake", {"groups.yaml": ON})
    box.daemon.converged(2)
    box.daemon.kill()
    rewind(upstream)
    middle = upstream.give("other", {"compose.yaml": COMPOSE.replace("db:1", "db:2")})
    box.me.git("fetch", "-q", "origin", f"+main:{FETCHED}")
    # It came as far as the files of a commit that is withdrawn by now, too.
    box.me.git("read-tree", "-u", "-m", "HEAD", middle)
    rewind(upstream)
    box.up()
    settled(box, upstream, "off")
    assert [subject for _, subject in box.log()] == ["first"]
    # And where upstream is back at the very commit that the branch is at.
    box.daemon.kill()
    middle = upstream.give("once more", {"compose.yaml": COMPOSE.replace("db:1", "db:2")})
    box.me.git("fetch", "-q", "origin", f"+main:{FETCHED}")
    box.me.git("read-tree", "-u", "-m", "HEAD", middle)
    rewind(upstream)
    box.up()
    until(box.clean)
    assert (box.desired / "compose.yaml").read_text() == COMPOSE


def test_nothing_unsigned_comes_back(box: GitHost, upstream: Upstream) -> None:
    signers = signer(upstream)
    ann = upstream.ann
    upstream.give("signed", {"README": "x\n"})
    pulling(box, verify=str(signers))
    box.up()
    with pytest.raises(RequestRefused) as caught:
        box.daemon.post("/services/start/extra")
    assert (caught.value.status, caught.value.value["reason"]) == (409, "read_only")
    assert "commit.gpgSign" in caught.value.value["remedy"]
    upstream.give("a mistake", {"groups.yaml": ON})
    box.daemon.converged(2)
    rewind(upstream)
    settled(box, upstream, "off")
    # Made on the box without a signature: kept there.
    tip = upstream.head()
    mine = box.me.save("mine", {"notes.txt": "mine\n"})
    status = box.daemon.until(lambda s: any("not pushed back" in w for w in s["warnings"]))
    assert mine[:10] in str(status["warnings"])
    upstream.give("go on", {"README": "y\n"})
    box.daemon.until(lambda s: any("can't sign" in w for w in s["warnings"]))
    assert (box.head(), ann.git("rev-parse", "HEAD~1")) == (mine, tip)
    assert upstream.head() != mine


def test_a_box_that_can_sign_signs_what_it_pushes(box: GitHost, upstream: Upstream) -> None:
    signers = signer(upstream)
    upstream.give("signed", {"README": "x\n"})
    pulling(box, verify=str(signers))
    for name in ("gpg.format", "user.signingKey", "commit.gpgSign"):
        box.me.directory = box.folder
        box.me.git("config", "--global", name, upstream.ann.git("config", name))
    box.me.directory = box.desired
    box.up()
    until(lambda: TAKEN in box.me.git("for-each-ref"))
    box.daemon.post("/services/start/extra")
    in_step(box, upstream, 3)
    away = offline(upstream)
    box.daemon.post("/services/stop/extra")
    until(lambda: len(box.log()) == 4)
    away.rename(upstream.bare)
    upstream.ann.git("pull", "-q", "--rebase")
    upstream.give("meanwhile", {"README": "y\n"})
    in_step(box, upstream, 5)
    trusted = ("-c", f"gpg.ssh.allowedSignersFile={signers}")
    for commit in box.me.git("rev-list", "--max-count=4", "HEAD").split():
        box.me.git(*trusted, "verify-commit", commit)
