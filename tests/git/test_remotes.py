"""Pushes over ssh and http, their latency, and pushes while the loop reconciles."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.support.hosts import git_remotes
from tests.support.hosts.git_host import COMPOSE, GROUPS, WEB_ON, GitHost


def test_a_push_over_ssh(host: GitHost, tmp_path: Path) -> None:
    host.init()
    host.up()
    with git_remotes.ssh(tmp_path / "ssh") as (url, command):
        host.environ["GIT_SSH_COMMAND"] = command
        ann = host.clone("ann", f"{url}{host.desired}")
        ann.save("bad", {"groups.yaml": GROUPS.replace("web: off", "web: onn")})
        done = ann.push()
        assert done.returncode != 0
        assert "remote:   groups.yaml:5:8: groups.web.state: expected on or off" in done.stderr
        ann.save("good", {"groups.yaml": WEB_ON})
        done = ann.push()
        assert done.returncode == 0, done.output
        assert "remote:   web: off → on" in done.stderr
    host.daemon.converged(2)


def test_a_push_over_http(host: GitHost) -> None:
    host.init()
    host.up()
    with git_remotes.http(host.folder, host.environ) as url:
        ann = host.clone("ann", f"{url}/stack/.git")
        ann.save("bad", {"compose.yaml": COMPOSE.replace("services:", "servces:")})
        done = ann.push()
        assert done.returncode != 0
        assert "compose.yaml" in done.output
        ann.save("good", {"compose.yaml": COMPOSE.replace("db:1", "db:2")})
        done = ann.push()
        assert done.returncode == 0, done.output
        assert "db: image changed" in done.output
    host.daemon.converged(2)


def test_latency_from_the_end_of_a_push_to_the_first_engine_call(
    host: GitHost, record_property: object
) -> None:
    """Records the latency; the limit is generous for busy machines, the goal is below 300 ms."""
    host.init()
    host.up()
    ann = host.clone("ann")
    delays = []
    for number in range(2, 7):
        on = number % 2 == 0
        ann.save(f"{number}", {"groups.yaml": WEB_ON if on else GROUPS})
        assert ann.push().returncode == 0
        ended = time.time()
        host.daemon.converged(number)
        progress = host.daemon.get(f"/services/progress/{number}")
        began = min(datetime.fromisoformat(step["started_at"]).timestamp() for step in progress["steps"])
        delays.append(round(1000 * (began - ended)))
    assert callable(record_property)
    record_property("push_to_first_call_ms", json.dumps(delays))
    print(f"from the end of the push to the first engine call, in ms: {delays}")
    assert sorted(delays)[2] < 2000


def test_pushes_while_the_loop_reconciles(host: GitHost) -> None:
    host.init()
    host.up()
    ann = host.clone("ann")
    wanted = GROUPS
    for number in range(4):
        wanted = wanted.replace("extra: off", "extra: on") if number % 2 == 0 else GROUPS
        ann.save(
            f"{number}", {"groups.yaml": wanted, "compose.yaml": COMPOSE.replace("db:1", f"db:{number + 2}")}
        )
        done = ann.push()
        assert done.returncode == 0, done.output
    status = host.daemon.converged(5)
    assert status["groups"]["extra"]["desired"] == "off"
    assert not status["warnings"]
    entries = host.daemon.get("/services/history")["entries"]
    assert [e["author"] for e in entries[1:]] == ["ann"] * 4
    # No generation from half a checkout: each has both edits of its commit.
    for entry in entries[1:]:
        assert len(entry["changes"]) == 2, entry


@pytest.mark.pitfall(30)
def test_checkouts_back_and_forth_are_never_read_halfway(host: GitHost) -> None:
    """The commits differ in two files; every accepted generation is one of the commits (row 30)."""
    host.init()
    host.up()
    host.me.git("switch", "-qc", "other")
    host.me.save("other", {"groups.yaml": WEB_ON, "compose.yaml": COMPOSE.replace("app:1", "app:2")})
    for _ in range(60):
        host.me.git("switch", "-q", "main")
        host.me.git("switch", "-q", "other")
    host.daemon.until(lambda s: s["groups"]["web"]["desired"] == "on" and s["converged"])
    for entry in host.daemon.get("/services/history?limit=200")["entries"][1:]:
        assert len(entry["changes"]) == 2, entry
