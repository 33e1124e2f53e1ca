"""Upstream rewrites its history: the host follows or stops, and never pushes withdrawn commits again."""

from __future__ import annotations

import stat

import pytest

from tests.support.harness.daemon import RequestRefused
from tests.support.hosts.git_host import COMPOSE, GROUPS, WEB_ON, GitHost, until, write
from tests.support.hosts.git_upstream import (
    Upstream,
    configure_pull,
    deploy_mistake,
    fetch_now,
    sign_commits,
    wait_until_synced,
    write_unpushed,
)

FETCHED, TAKEN = "refs/service-manager/fetched", "refs/service-manager/taken"


def wait_until_followed(host: GitHost, upstream: Upstream, web: str) -> None:
    """Wait until the host is at upstream's commit, with the group web in the state ``web``."""
    host.daemon.until(lambda s: s["groups"]["web"]["desired"] == web and not s["warnings"])
    until(lambda: host.head() == upstream.head())
    assert host.clean()


def test_a_withdrawn_commit_is_withdrawn_on_the_host(pull_host: GitHost, upstream: Upstream) -> None:
    good = upstream.head()
    upstream.publish("a mistake", {"groups.yaml": WEB_ON, "extra.txt": "x\n"})
    pull_host.daemon.converged(2)
    assert upstream.rewind() == good
    pull_host.daemon.converged(3)
    wait_until_followed(pull_host, upstream, "off")
    assert upstream.head() == good
    assert not (pull_host.desired / "extra.txt").exists()
    entry = pull_host.daemon.get("/services/history")["entries"][-1]
    assert (entry["commit"], entry["changes"]) == (good, ["web: on → off"])
    assert "followed a rewritten upstream" in pull_host.daemon.log()
    # A later write is pushed on top of upstream's new head.
    pull_host.daemon.post("/services/start/extra")
    wait_until_synced(pull_host, upstream, 2)
    # Upstream can withdraw that commit too.
    assert upstream.rewind(good) == good
    pull_host.daemon.until(lambda s: s["groups"]["extra"]["desired"] == "off")
    wait_until_followed(pull_host, upstream, "off")
    assert upstream.head() == good


def test_every_kind_of_rewritten_history_is_followed(pull_host: GitHost, upstream: Upstream) -> None:
    upstream.publish("a password", {"groups.yaml": WEB_ON, "secret.txt": "hunter22\n"})
    upstream.publish("more", {"more.txt": "x\n"})
    pull_host.daemon.converged(2)
    ann = upstream.ann
    # Squashed without the file.
    ann.git("reset", "-q", "--soft", "HEAD~2")
    ann.git("rm", "-q", "--cached", "secret.txt")
    ann.git("commit", "-qm", "squashed")
    upstream.force()
    until(lambda: pull_host.head() == ann.git("rev-parse", "HEAD"))
    assert not (pull_host.desired / "secret.txt").exists()
    # Amended so that it conflicts with the previous commit.
    write(ann.directory, {"groups.yaml": GROUPS.replace("web: off", "web: off   # amended")})
    ann.git("commit", "-qa", "--amend", "-m", "amended")
    upstream.force()
    wait_until_followed(pull_host, upstream, "off")
    # Replaced by an unrelated history.
    ann.git("checkout", "-q", "--orphan", "fresh")
    ann.save("fresh start", {"groups.yaml": WEB_ON})
    ann.git("branch", "-qM", "main")
    upstream.force()
    wait_until_followed(pull_host, upstream, "on")
    assert [subject for _, subject in pull_host.log()] == ["fresh start"]


def test_local_commits_are_rebased_onto_the_rewritten_upstream(host: GitHost, upstream: Upstream) -> None:
    configure_pull(host, interval="600")
    host.up()
    deploy_mistake(host, upstream)
    write_unpushed(host, upstream)
    host.me.save("by hand", {"notes.txt": "mine\n"})
    host.daemon.until(lambda s: any("can't fetch" in w for w in s["warnings"]))
    until(lambda: len(host.log()) == 4)
    # Two rewrites while the host can't fetch.
    upstream.rewind()
    upstream.publish("other", {"compose.yaml": COMPOSE.replace("db:1", "db:2")})
    upstream.rewind()
    upstream.publish("instead", {"compose.yaml": COMPOSE.replace("db:1", "db:3")})
    upstream.unhide()
    fetch_now(host)
    wait_until_synced(host, upstream, 4)
    assert [subject for _, subject in host.log()] == ["by hand", "Start extra", "instead", "first"]
    assert upstream.read_file("groups.yaml") == GROUPS.replace("extra: off", "extra: on")
    host.daemon.until(lambda s: s["groups"]["web"]["desired"] == "off" and not s["warnings"])


def test_conflicting_local_commits_are_named_and_kept(host: GitHost, upstream: Upstream) -> None:
    configure_pull(host, interval="600")
    host.up()
    deploy_mistake(host, upstream)
    write_unpushed(host, upstream)
    upstream.ann.git("reset", "-q", "--hard", "HEAD~1")
    upstream.ann.save("theirs", {"groups.yaml": GROUPS.replace("extra: off", "extra: on   # theirs")})
    upstream.unhide()
    tip = upstream.force()
    fetch_now(host)
    status = host.daemon.until(lambda s: any("conflict with commit" in w for w in s["warnings"]))
    (warning,) = [w for w in status["warnings"] if "conflict with commit" in w]
    assert "(Start extra) conflicts in groups.yaml" in warning
    assert "a mistake" not in warning
    assert "extra: on" in host.groups()
    assert upstream.head() == tip
    # The remedy works.
    for command in warning.split("`")[1::2]:
        host.me.try_git(*command.split()[1:])
    write(host.desired, {"groups.yaml": WEB_ON})
    host.me.git("commit", "-qam", "by hand")
    fetch_now(host)
    wait_until_synced(host, upstream, 3)


def test_a_commit_withdrawn_between_fetch_and_push_is_not_pushed_again(
    pull_host: GitHost, upstream: Upstream
) -> None:
    """The upload-pack of upstream withdraws the commit right after the host has fetched it."""
    good = upstream.head()
    deploy_mistake(pull_host, upstream)
    pull_host.daemon.end()
    upload = pull_host.folder / "upload-pack"
    upload.write_text(
        f'#!/bin/sh\ngit-upload-pack "$@"; s=$?\n[ -e {upload}.go ] && rm {upload}.go && '
        f"git --git-dir={upstream.bare} update-ref refs/heads/main {good}\nexit $s\n"
    )
    upload.chmod(upload.stat().st_mode | stat.S_IXUSR)
    pull_host.me.git("config", "remote.origin.uploadpack", str(upload))
    pull_host.me.save("mine", {"notes.txt": "mine\n"})
    upload.with_suffix(".go").touch()
    pull_host.up()
    wait_until_synced(pull_host, upstream, 2)
    assert [subject for _, subject in pull_host.log()] == ["mine", "first"]
    wait_until_followed(pull_host, upstream, "off")


def test_it_stops_at_a_rewritten_upstream_by_option(host: GitHost, upstream: Upstream) -> None:
    configure_pull(host, rewritten="stop")
    host.up()
    bad = deploy_mistake(host, upstream)
    good = upstream.rewind()
    status = host.daemon.until(lambda s: any("rewritten" in w for w in s["warnings"]))
    (warning,) = [w for w in status["warnings"] if "rewritten" in w]
    assert f"{bad[:10]} (a mistake)" in warning
    # Local writes wait; neither they nor the withdrawn commit are pushed.
    host.daemon.post("/services/start/extra")
    host.daemon.until(lambda s: any("cherry-pick" in w for w in s["warnings"]))
    assert (upstream.head(), host.head() != good) == (good, True)
    assert f"git reset --hard {good[:10]}" in warning
    host.me.git("reset", "-q", "--hard", good)
    wait_until_followed(host, upstream, "off")


def test_a_rewritten_upstream_is_followed_while_writes_are_refused(host: GitHost, upstream: Upstream) -> None:
    configure_pull(host, writes="refuse")
    host.up()
    deploy_mistake(host, upstream)
    upstream.rewind()
    wait_until_followed(host, upstream, "off")
    mine = host.me.save("mine", {"notes.txt": "mine\n"})
    status = host.daemon.until(lambda s: any("that upstream lacks" in w for w in s["warnings"]))
    assert f"{mine[:10]} (mine)" in str(status["warnings"])
    assert upstream.head() != mine


@pytest.mark.parametrize("stuck", [False, True])
def test_a_clone_of_an_earlier_version_follows(host: GitHost, upstream: Upstream, stuck: bool) -> None:
    """It lacks the record of merged commits; only the last fetch and the reflog are left."""
    good = upstream.head()
    host.up()
    bad = deploy_mistake(host, upstream)
    host.daemon.end()
    host.me.git("update-ref", "-d", TAKEN)
    for log in (".git/logs/HEAD", ".git/logs/refs/heads/main"):
        text = (host.desired / log).read_text()
        lines = [line.split("\tservice-manager: take in ")[0] for line in text.splitlines()]
        (host.desired / log).write_text("".join(f"{line}\tservice-manager: taken in\n" for line in lines))
    (host.desired / ".git/logs" / FETCHED).unlink()
    upstream.rewind()
    if stuck:
        # It stayed at the withdrawn commit over several fetches (--git-writes refuse).
        host.me.git("fetch", "-q", "origin", f"+main:{FETCHED}")
    host.up()
    wait_until_followed(host, upstream, "off")
    assert (upstream.head(), host.head()) == (good, good)
    assert bad not in host.me.git("rev-list", "HEAD")


def test_a_crash_between_fetch_and_merge_is_recovered(host: GitHost, upstream: Upstream) -> None:
    host.up()
    deploy_mistake(host, upstream)
    host.daemon.kill()
    upstream.rewind()
    middle = upstream.publish("other", {"compose.yaml": COMPOSE.replace("db:1", "db:2")})
    host.me.git("fetch", "-q", "origin", f"+main:{FETCHED}")
    # The crash came after the checkout of a commit that was withdrawn as well.
    host.me.git("read-tree", "-u", "-m", "HEAD", middle)
    upstream.rewind()
    host.up()
    wait_until_followed(host, upstream, "off")
    assert [subject for _, subject in host.log()] == ["first"]
    # The same, with upstream back at the commit of the branch.
    host.daemon.kill()
    middle = upstream.publish("once more", {"compose.yaml": COMPOSE.replace("db:1", "db:2")})
    host.me.git("fetch", "-q", "origin", f"+main:{FETCHED}")
    host.me.git("read-tree", "-u", "-m", "HEAD", middle)
    upstream.rewind()
    host.up()
    until(host.clean)
    assert (host.desired / "compose.yaml").read_text() == COMPOSE


def test_no_unsigned_commit_is_pushed(host: GitHost, upstream: Upstream) -> None:
    signers = sign_commits(upstream)
    ann = upstream.ann
    upstream.publish("signed", {"README": "x\n"})
    configure_pull(host, verify=str(signers))
    host.up()
    with pytest.raises(RequestRefused) as caught:
        host.daemon.post("/services/start/extra")
    assert (caught.value.status, caught.value.value["reason"]) == (409, "read_only")
    assert "commit.gpgSign" in caught.value.value["remedy"]
    deploy_mistake(host, upstream)
    upstream.rewind()
    wait_until_followed(host, upstream, "off")
    # A local commit without a signature stays on the host.
    tip = upstream.head()
    mine = host.me.save("mine", {"notes.txt": "mine\n"})
    status = host.daemon.until(lambda s: any("not pushed back" in w for w in s["warnings"]))
    assert mine[:10] in str(status["warnings"])
    upstream.publish("go on", {"README": "y\n"})
    host.daemon.until(lambda s: any("can't sign" in w for w in s["warnings"]))
    assert (host.head(), ann.git("rev-parse", "HEAD~1")) == (mine, tip)
    assert upstream.head() != mine


def test_a_host_with_a_signing_key_signs_its_commits(host: GitHost, upstream: Upstream) -> None:
    signers = sign_commits(upstream)
    upstream.publish("signed", {"README": "x\n"})
    configure_pull(host, verify=str(signers))
    for name in ("gpg.format", "user.signingKey", "commit.gpgSign"):
        host.me.directory = host.folder
        host.me.git("config", "--global", name, upstream.ann.git("config", name))
    host.me.directory = host.desired
    host.up()
    until(lambda: TAKEN in host.me.git("for-each-ref"))
    host.daemon.post("/services/start/extra")
    wait_until_synced(host, upstream, 3)
    upstream.hide()
    host.daemon.post("/services/stop/extra")
    until(lambda: len(host.log()) == 4)
    upstream.unhide()
    upstream.ann.git("pull", "-q", "--rebase")
    upstream.publish("other", {"README": "y\n"})
    wait_until_synced(host, upstream, 5)
    trusted = ("-c", f"gpg.ssh.allowedSignersFile={signers}")
    for commit in host.me.git("rev-list", "--max-count=4", "HEAD").split():
        host.me.git(*trusted, "verify-commit", commit)
