"""Pull mode: commits are fetched, validated and merged; local writes are pushed or refused, never lost."""

from __future__ import annotations

import base64
import hashlib
import hmac
import subprocess
import time

import pytest

from tests.support.harness.daemon import RequestRefused
from tests.support.hosts import git_remotes
from tests.support.hosts.git_host import COMPOSE, FILES, GROUPS, WEB_ON, GitHost, until, write
from tests.support.hosts.git_upstream import (
    SECRET,
    Upstream,
    configure_pull,
    fetch_now,
    post_webhook,
    sign_commits,
    signature,
    wait_until_synced,
)


def test_the_first_commit_and_later_ones_are_pulled(pull_host: GitHost, upstream: Upstream) -> None:
    assert pull_host.groups() == GROUPS
    commit = upstream.publish("web", {"groups.yaml": WEB_ON})
    pull_host.daemon.converged(2)
    entry = pull_host.daemon.get("/services/history")["entries"][-1]
    assert (entry["author"], entry["commit"], entry["changes"]) == ("ann", commit, ["web: off → on"])
    assert pull_host.head() == commit
    assert pull_host.clean()
    assert (pull_host.desired / ".env").exists()


def test_a_bad_commit_is_reported_and_the_last_good_one_stays(pull_host: GitHost, upstream: Upstream) -> None:
    good = pull_host.head()
    bad = upstream.publish("bad", {"groups.yaml": GROUPS.replace("web: off", "web: onn")})
    status = pull_host.daemon.until(lambda s: s["errors"])
    (error,) = status["errors"]
    assert (error["path"], error["line"], error["column"]) == ("groups.yaml", 5, 8)
    assert bad[:10] in error["message"]
    assert (pull_host.head(), pull_host.groups()) == (good, GROUPS)
    assert status["generation"] == 1
    # Reconciling and REST writes go on.
    pull_host.daemon.post("/services/start/extra")
    upstream.publish("good", {"groups.yaml": WEB_ON})
    status = pull_host.daemon.until(lambda s: not s["errors"] and s["groups"]["web"]["desired"] == "on")
    assert status["groups"]["extra"]["desired"] == "on"


def test_a_write_is_pushed_upstream(pull_host: GitHost, upstream: Upstream) -> None:
    pull_host.daemon.post("/services/start/extra")
    wait_until_synced(pull_host, upstream, 2)
    assert pull_host.log()[0] == ("anonymous", "Start extra")
    assert "extra: on" in upstream.read_file("groups.yaml")


def test_local_writes_and_upstream_commits_at_once_are_both_kept(host: GitHost, upstream: Upstream) -> None:
    configure_pull(host, interval="600")
    host.up()
    upstream.hide()
    host.daemon.post("/services/start/extra")
    status = host.daemon.until(lambda s: any("can't fetch" in w for w in s["warnings"]))
    assert "last valid state stays in force" in str(status["warnings"])
    until(host.clean)
    upstream.unhide()
    upstream.publish("web", {"groups.yaml": WEB_ON})
    fetch_now(host)
    host.daemon.until(
        lambda s: s["groups"]["web"]["desired"] == "on" and s["groups"]["extra"]["desired"] == "on"
    )
    until(lambda: upstream.head() == host.head())
    assert upstream.read_file("groups.yaml") == host.groups() == WEB_ON.replace("extra: off", "extra: on")
    assert [subject for _, subject in host.log()] == ["Start extra", "web", "first"]
    host.daemon.until(lambda s: not s["warnings"])


def test_a_conflict_is_reported_and_nothing_is_lost(host: GitHost, upstream: Upstream) -> None:
    configure_pull(host, interval="600")
    host.up()
    upstream.publish("web", {"groups.yaml": GROUPS.replace("extra: off", "extra: on   # theirs")})
    host.daemon.post("/services/start/extra")
    status = host.daemon.until(lambda s: any("conflict with commit" in w for w in s["warnings"]))
    assert "git pull --rebase" in str(status["warnings"])
    assert "extra: on" in host.groups()
    assert host.log()[0] == ("anonymous", "Start extra")
    assert host.clean()
    assert "theirs" in upstream.read_file("groups.yaml")


def test_writes_are_refused_by_option(host: GitHost, upstream: Upstream) -> None:
    configure_pull(host, writes="refuse")
    host.up()
    with pytest.raises(RequestRefused) as caught:
        host.daemon.post("/services/start/extra")
    assert (caught.value.status, caught.value.value["reason"]) == (409, "read_only")
    assert "--git-writes push" in caught.value.value["remedy"]
    with pytest.raises(RequestRefused):
        host.daemon.post("/services/rollback/1")
    assert host.groups() == GROUPS
    upstream.publish("web", {"groups.yaml": WEB_ON})
    host.daemon.converged(2)


def test_desired_state_in_a_folder_of_the_repository(host: GitHost) -> None:
    upstream = Upstream(host)
    upstream.ann.git("rm", "-rq", ".")
    moved = {f"boxes/one/{name}": content for name, content in FILES.items()}
    upstream.publish("moved", moved | {"README": "x\n"})
    configure_pull(host, url=str(upstream.bare), interval="0.3", path="boxes/one")
    write(host.desired, {"boxes/one/.env": "DB_PASSWORD=secret\n"})
    host.up()
    host.daemon.post("/services/start/extra")
    wait_until_synced(host, upstream, 3)
    assert "extra: on" in upstream.read_file("boxes/one/groups.yaml")
    upstream.ann.git("pull", "-q")
    upstream.publish("web", {"boxes/one/groups.yaml": WEB_ON})
    host.daemon.until(lambda s: s["groups"]["web"]["desired"] == "on")
    assert host.daemon.cli("rollback", "1", "--yes").returncode == 0
    wait_until_synced(host, upstream, 5)
    assert upstream.read_file("boxes/one/groups.yaml") == GROUPS
    assert upstream.read_file("README") == "x\n"


def test_edits_by_hand_block_new_commits_and_are_reported(pull_host: GitHost, upstream: Upstream) -> None:
    write(pull_host.desired, {"stack.yaml": FILES["stack.yaml"] + "# mine\n"})
    upstream.publish("web", {"groups.yaml": WEB_ON})
    pull_host.daemon.until(lambda s: any("new commits wait: stack.yaml" in w for w in s["warnings"]))
    assert pull_host.cli("git", "commit", str(pull_host.desired)).returncode == 0
    pull_host.daemon.until(lambda s: s["groups"]["web"]["desired"] == "on")
    until(lambda: upstream.head() == pull_host.head())
    assert upstream.read_file("stack.yaml").endswith("# mine\n")


def test_a_password_in_an_http_url_is_never_shown(host: GitHost) -> None:
    upstream = Upstream(host)
    with git_remotes.http(host.folder, host.environ) as url:
        address = url.removeprefix("http://")
        configure_pull(host, url=f"http://ann:hunter22@{address}/upstream.git", interval="0.3")
        write(host.desired, {".env": "DB_PASSWORD=secret\n"})
        host.up()
        upstream.publish("web", {"groups.yaml": WEB_ON})
        host.daemon.converged(2)
    status = host.daemon.until(lambda s: any("can't fetch" in w for w in s["warnings"]))
    assert "hunter22" not in str(status)
    assert "hunter22" not in host.daemon.log()


def test_the_webhook_accepts_every_forge_and_only_valid_signatures(host: GitHost, upstream: Upstream) -> None:
    configure_pull(host, interval="600")
    host.daemon.environ["SERVICE_MANAGER_API_KEY"] = "not-needed-for-a-webhook-at-all"
    host.daemon.start(wait=False)
    until(lambda: host.daemon.running and "listening" in host.daemon.log())
    until((host.desired / "groups.yaml").exists)
    body = b'{"ref": "refs/heads/main"}'
    now = str(int(time.time()))
    mac = hmac.new(SECRET.encode(), f"m1.{now}.".encode() + body, hashlib.sha256).digest()
    standard = {
        "webhook-id": "m1",
        "webhook-timestamp": now,
        "webhook-signature": f"v1,{base64.b64encode(mac).decode()}",
    }
    good: list[dict[str, str]] = [
        {"X-Hub-Signature-256": f"sha256={signature(body)}"},
        {"X-Gitea-Signature": signature(body)},
        {"X-Gitlab-Token": SECRET},
        standard,
    ]
    for number, headers in enumerate(good):
        commit = upstream.publish(
            f"{number}", {"compose.yaml": COMPOSE.replace("app:1", f"app:{number + 2}")}
        )
        assert post_webhook(host, body, headers) == 202
        until(lambda commit=commit: host.head() == commit)
    before = host.head()
    upstream.publish("unseen", {"groups.yaml": WEB_ON})
    old = standard | {"webhook-timestamp": str(int(now) - 4000)}
    for headers in (
        {"X-Hub-Signature-256": f"sha256={signature(body, 'another secret')}"},
        {"X-Hub-Signature-256": signature(b"another body")},
        {"X-Gitea-Signature": ""},
        {"X-Gitlab-Token": "wrong"},
        {"X-Gitlab-Token": SECRET[:-1]},
        old,
        {},
    ):
        assert post_webhook(host, body, headers) in {401, 403}, headers
    assert post_webhook(host, b"x" * (2**20 + 1), good[0]) == 413
    assert host.head() == before


def test_only_signed_commits_are_pulled(host: GitHost, upstream: Upstream) -> None:
    ann, signers = upstream.ann, sign_commits(upstream)
    good = upstream.publish("signed", {"groups.yaml": WEB_ON})
    configure_pull(host, verify=str(signers))
    host.up()
    assert host.head() == good
    ann.git("config", "commit.gpgSign", "false")
    unsigned = upstream.publish("unsigned", {"groups.yaml": GROUPS})
    status = host.daemon.until(lambda s: any("not signed" in w for w in s["warnings"]))
    assert unsigned[:10] in str(status["warnings"])
    assert (host.head(), host.groups()) == (good, WEB_ON)
    ann.git("config", "commit.gpgSign", "true")
    upstream.publish("signed again", {"README": "x\n"})
    host.daemon.until(lambda s: not s["warnings"] and s["groups"]["web"]["desired"] == "off")


def test_commits_signed_with_pgp_are_pulled(host: GitHost, upstream: Upstream) -> None:
    home = host.folder / "gnupg"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--batch", "--quiet", "--homedir", str(home)]
    who = "ann <ann@example.org>"
    try:
        subprocess.run([*gpg, "--passphrase", "", "--quick-gen-key", who, "ed25519"], check=True)
        keys = host.folder / "keys.asc"
        exported = subprocess.run([*gpg, "--armor", "--export", who], check=True, capture_output=True)
        keys.write_bytes(exported.stdout)
        upstream.ann.environ["GNUPGHOME"] = str(home)
        upstream.ann.git("config", "user.signingKey", who)
        configure_pull(host, verify=str(keys))
        host.daemon.start()
        host.daemon.until(lambda s: any("not signed" in w for w in s["warnings"]))
        assert not (host.desired / "groups.yaml").exists()
        upstream.ann.git("config", "commit.gpgSign", "true")
        upstream.publish("signed", {"groups.yaml": WEB_ON})
        host.daemon.converged(1)
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True)


def test_links_submodules_and_encodings_are_refused(pull_host: GitHost, upstream: Upstream) -> None:
    good = pull_host.head()
    (upstream.ann.directory / "out").symlink_to("../../etc")
    upstream.publish("link", {})
    status = pull_host.daemon.until(lambda s: s["errors"])
    assert "leads outside" in status["errors"][0]["message"]
    assert pull_host.head() == good
    assert not (pull_host.desired / "out").is_symlink()
    upstream.ann.git("rm", "-q", "out")
    write(upstream.ann.directory, {".gitattributes": "groups.yaml working-tree-encoding=UTF-16LE\n"})
    upstream.ann.git("add", ".gitattributes")
    upstream.ann.git("commit", "-qm", "encoding")
    assert upstream.ann.push("origin", "main").returncode == 0
    status = pull_host.daemon.until(lambda s: any(".gitattributes" in e["path"] for e in s["errors"]))
    assert (status["errors"][0]["line"], pull_host.head()) == (1, good)


def test_a_checkout_continues_after_a_crash(host: GitHost, upstream: Upstream) -> None:
    host.up()
    host.daemon.kill()
    new = upstream.publish("web", {"groups.yaml": WEB_ON})
    host.me.git("fetch", "-q", "origin", "main")
    host.me.git("read-tree", "-u", "-m", "HEAD", new)
    host.up()
    until(lambda: host.head() == new and host.clean())


def test_a_start_without_a_reachable_upstream_keeps_the_last_state(host: GitHost, upstream: Upstream) -> None:
    host.up()
    host.daemon.kill()
    upstream.hide()
    host.up()
    host.daemon.until(lambda s: s["converged"] and any("can't fetch" in w for w in s["warnings"]))
