"""Pull mode: fetched, judged, taken in; pushed back or refused; never lost."""

from __future__ import annotations

import base64
import hashlib
import hmac
import subprocess
import time
from pathlib import Path

import pytest

from tests.git.upstream import ON, SECRET, Upstream, deliver, in_step, pulling, signed, signer
from tests.support.harness.daemon import RequestRefused
from tests.support.hosts import git_remotes
from tests.support.hosts.git_host import COMPOSE, FILES, GROUPS, GitHost, until, write


def test_what_is_there_is_fetched_and_what_comes_is_taken_in(pulled: GitHost, upstream: Upstream) -> None:
    assert pulled.groups() == GROUPS
    commit = upstream.give("web", {"groups.yaml": ON})
    pulled.daemon.converged(2)
    entry = pulled.daemon.get("/services/history")["entries"][-1]
    assert (entry["author"], entry["commit"], entry["changes"]) == ("ann", commit, ["web: off → on"])
    assert pulled.head() == commit
    assert pulled.clean()
    assert (pulled.desired / ".env").exists()


def test_invalid_commit_is_reported_and_the_last_valid_state_stays(
    pulled: GitHost, upstream: Upstream
) -> None:
    good = pulled.head()
    bad = upstream.give("bad", {"groups.yaml": GROUPS.replace("web: off", "web: onn")})
    status = pulled.daemon.until(lambda s: s["errors"])
    (error,) = status["errors"]
    assert (error["path"], error["line"], error["column"]) == ("groups.yaml", 5, 8)
    assert bad[:10] in error["message"]
    assert (pulled.head(), pulled.groups()) == (good, GROUPS)
    assert status["generation"] == 1
    # The box is looked after all the same, and written to.
    pulled.daemon.post("/services/start/extra")
    upstream.give("good", {"groups.yaml": ON})
    status = pulled.daemon.until(lambda s: not s["errors"] and s["groups"]["web"]["desired"] == "on")
    assert status["groups"]["extra"]["desired"] == "on"


def test_a_write_is_pushed_back(pulled: GitHost, upstream: Upstream) -> None:
    pulled.daemon.post("/services/start/extra")
    in_step(pulled, upstream, 2)
    assert pulled.log()[0] == ("anonymous", "Start extra")
    assert "extra: on" in upstream.show("groups.yaml")


def test_writes_here_and_commits_there_at_once_are_both_kept(box: GitHost, upstream: Upstream) -> None:
    pulling(box, interval="600")
    box.up()
    away = upstream.bare.with_name("away.git")
    upstream.bare.rename(away)
    box.daemon.post("/services/start/extra")
    status = box.daemon.until(lambda s: any("can't fetch" in w for w in s["warnings"]))
    assert "last valid state stays in force" in str(status["warnings"])
    until(box.clean)
    away.rename(upstream.bare)
    upstream.give("web", {"groups.yaml": ON})
    body = b"{}"
    assert deliver(box, body, {"X-Hub-Signature-256": f"sha256={signed(body)}"}) == 202
    box.daemon.until(
        lambda s: s["groups"]["web"]["desired"] == "on" and s["groups"]["extra"]["desired"] == "on"
    )
    until(lambda: upstream.head() == box.head())
    assert upstream.show("groups.yaml") == box.groups() == ON.replace("extra: off", "extra: on")
    assert [subject for _, subject in box.log()] == ["Start extra", "web", "first"]
    box.daemon.until(lambda s: not s["warnings"])


def test_a_conflict_is_reported_and_nothing_is_lost(box: GitHost, upstream: Upstream) -> None:
    pulling(box, interval="600")
    box.up()
    upstream.give("web", {"groups.yaml": GROUPS.replace("extra: off", "extra: on   # theirs")})
    box.daemon.post("/services/start/extra")
    status = box.daemon.until(lambda s: any("conflict with commit" in w for w in s["warnings"]))
    assert "git pull --rebase" in str(status["warnings"])
    assert "extra: on" in box.groups()
    assert box.log()[0] == ("anonymous", "Start extra")
    assert box.clean()
    assert "theirs" in upstream.show("groups.yaml")


def test_writes_are_refused_where_that_is_said(box: GitHost, upstream: Upstream) -> None:
    pulling(box, writes="refuse")
    box.up()
    with pytest.raises(RequestRefused) as caught:
        box.daemon.post("/services/start/extra")
    assert (caught.value.status, caught.value.value["reason"]) == (409, "read_only")
    assert "--git-writes push" in caught.value.value["remedy"]
    with pytest.raises(RequestRefused):
        box.daemon.post("/services/rollback/1")
    assert box.groups() == GROUPS
    upstream.give("web", {"groups.yaml": ON})
    box.daemon.converged(2)


def test_a_folder_of_the_repository(box: GitHost) -> None:
    upstream = Upstream(box)
    upstream.ann.git("rm", "-rq", ".")
    moved = {f"boxes/one/{name}": content for name, content in FILES.items()}
    upstream.give("moved", moved | {"README": "x\n"})
    pulling(box, url=str(upstream.bare), interval="0.3", path="boxes/one")
    write(box.desired, {"boxes/one/.env": "DB_PASSWORD=secret\n"})
    box.up()
    box.daemon.post("/services/start/extra")
    in_step(box, upstream, 3)
    assert "extra: on" in upstream.show("boxes/one/groups.yaml")
    upstream.ann.git("pull", "-q")
    upstream.give("web", {"boxes/one/groups.yaml": ON})
    box.daemon.until(lambda s: s["groups"]["web"]["desired"] == "on")
    assert box.daemon.cli("rollback", "1", "--yes").returncode == 0
    in_step(box, upstream, 5)
    assert upstream.show("boxes/one/groups.yaml") == GROUPS
    assert upstream.show("README") == "x\n"


def test_edits_by_hand_hold_back_what_comes_and_are_told(pulled: GitHost, upstream: Upstream) -> None:
    write(pulled.desired, {"stack.yaml": FILES["stack.yaml"] + "# mine\n"})
    upstream.give("web", {"groups.yaml": ON})
    pulled.daemon.until(lambda s: any("new commits wait: stack.yaml" in w for w in s["warnings"]))
    assert pulled.cli("git", "commit", str(pulled.desired)).returncode == 0
    pulled.daemon.until(lambda s: s["groups"]["web"]["desired"] == "on")
    until(lambda: upstream.head() == pulled.head())
    assert upstream.show("stack.yaml").endswith("# mine\n")


def test_over_http_and_with_a_password_that_is_told_nobody(box: GitHost) -> None:
    upstream = Upstream(box)
    with git_remotes.http(box.folder, box.environ) as url:
        host = url.removeprefix("http://")
        pulling(box, url=f"http://ann:hunter22@{host}/upstream.git", interval="0.3")
        write(box.desired, {".env": "DB_PASSWORD=secret\n"})
        box.up()
        upstream.give("web", {"groups.yaml": ON})
        box.daemon.converged(2)
    status = box.daemon.until(lambda s: any("can't fetch" in w for w in s["warnings"]))
    assert "hunter22" not in str(status)
    assert "hunter22" not in box.daemon.log()


def test_the_webhook_of_every_host_and_of_nobody_else(box: GitHost, upstream: Upstream) -> None:
    pulling(box, interval="600")
    box.daemon.environ["SERVICE_MANAGER_API_KEY"] = "not-needed-for-a-webhook-at-all"
    box.daemon.start(wait=False)
    until(lambda: box.daemon.running and "listening" in box.daemon.log())
    until((box.desired / "groups.yaml").exists)
    body = b'{"ref": "refs/heads/main"}'
    now = str(int(time.time()))
    mac = hmac.new(SECRET.encode(), f"m1.{now}.".encode() + body, hashlib.sha256).digest()
    standard = {
        "webhook-id": "m1",
        "webhook-timestamp": now,
        "webhook-signature": f"v1,{base64.b64encode(mac).decode()}",
    }
    good: list[dict[str, str]] = [
        {"X-Hub-Signature-256": f"sha256={signed(body)}"},
        {"X-Gitea-Signature": signed(body)},
        {"X-Gitlab-Token": SECRET},
        standard,
    ]
    for number, headers in enumerate(good):
        commit = upstream.give(f"{number}", {"compose.yaml": COMPOSE.replace("app:1", f"app:{number + 2}")})
        assert deliver(box, body, headers) == 202
        until(lambda commit=commit: box.head() == commit)
    before = box.head()
    upstream.give("unseen", {"groups.yaml": ON})
    old = standard | {"webhook-timestamp": str(int(now) - 4000)}
    for headers in (
        {"X-Hub-Signature-256": f"sha256={signed(body, 'another secret')}"},
        {"X-Hub-Signature-256": signed(b"another body")},
        {"X-Gitea-Signature": ""},
        {"X-Gitlab-Token": "wrong"},
        {"X-Gitlab-Token": SECRET[:-1]},
        old,
        {},
    ):
        assert deliver(box, body, headers) in {401, 403}, headers
    assert deliver(box, b"x" * (2**20 + 1), good[0]) == 413
    assert box.head() == before


def test_only_signed_commits(box: GitHost, upstream: Upstream) -> None:
    ann, signers = upstream.ann, signer(upstream)
    good = upstream.give("signed", {"groups.yaml": ON})
    pulling(box, verify=str(signers))
    box.up()
    assert box.head() == good
    ann.git("config", "commit.gpgSign", "false")
    unsigned = upstream.give("unsigned", {"groups.yaml": GROUPS})
    status = box.daemon.until(lambda s: any("not signed" in w for w in s["warnings"]))
    assert unsigned[:10] in str(status["warnings"])
    assert (box.head(), box.groups()) == (good, ON)
    ann.git("config", "commit.gpgSign", "true")
    upstream.give("signed again", {"README": "x\n"})
    box.daemon.until(lambda s: not s["warnings"] and s["groups"]["web"]["desired"] == "off")


def test_commits_signed_with_pgp(box: GitHost, upstream: Upstream) -> None:
    home = box.folder / "gnupg"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--batch", "--quiet", "--homedir", str(home)]
    who = "ann <ann@example.org>"
    try:
        subprocess.run([*gpg, "--passphrase", "", "--quick-gen-key", who, "ed25519"], check=True)
        keys = box.folder / "keys.asc"
        exported = subprocess.run([*gpg, "--armor", "--export", who], check=True, capture_output=True)
        keys.write_bytes(exported.stdout)
        upstream.ann.environ["GNUPGHOME"] = str(home)
        upstream.ann.git("config", "user.signingKey", who)
        pulling(box, verify=str(keys))
        box.daemon.start()
        box.daemon.until(lambda s: any("not signed" in w for w in s["warnings"]))
        assert not (box.desired / "groups.yaml").exists()
        upstream.ann.git("config", "commit.gpgSign", "true")
        upstream.give("signed", {"groups.yaml": ON})
        box.daemon.converged(1)
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True)


def test_links_modules_and_encodings_are_not_taken_from_elsewhere(
    pulled: GitHost, upstream: Upstream
) -> None:
    good = pulled.head()
    (upstream.ann.directory / "out").symlink_to("../../etc")
    upstream.give("link", {})
    status = pulled.daemon.until(lambda s: s["errors"])
    assert "leads outside" in status["errors"][0]["message"]
    assert pulled.head() == good
    assert not (pulled.desired / "out").is_symlink()
    upstream.ann.git("rm", "-q", "out")
    write(upstream.ann.directory, {".gitattributes": "groups.yaml working-tree-encoding=UTF-16LE\n"})
    upstream.ann.git("add", ".gitattributes")
    upstream.ann.git("commit", "-qm", "encoding")
    assert upstream.ann.push("origin", "main").returncode == 0
    status = pulled.daemon.until(lambda s: any(".gitattributes" in e["path"] for e in s["errors"]))
    assert (status["errors"][0]["line"], pulled.head()) == (1, good)


def test_a_crash_in_the_middle_of_a_checkout(box: GitHost, upstream: Upstream) -> None:
    box.up()
    box.daemon.kill()
    new = upstream.give("web", {"groups.yaml": ON})
    box.me.git("fetch", "-q", "origin", "main")
    box.me.git("read-tree", "-u", "-m", "HEAD", new)
    box.up()
    until(lambda: box.head() == new and box.clean())


def test_started_while_the_repository_is_away(box: GitHost, upstream: Upstream) -> None:
    box.up()
    box.daemon.kill()
    Path(upstream.bare).rename(box.folder / "away")
    box.up()
    box.daemon.until(lambda s: s["converged"] and any("can't fetch" in w for w in s["warnings"]))
