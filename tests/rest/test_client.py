"""A client that knows the contract and nothing else, against a running daemon with the shipped stack."""

from __future__ import annotations

import json
import signal
import time
from datetime import datetime
from typing import Any

import pytest

from tests.rest.conftest import Start
from tests.support.fixtures.http_client import RawResponse, ask
from tests.support.harness.daemon import Daemon

STATUS = {
    *("timestamp", "total_services", "running_services", "total_memory_mb", "pilot_ready", "groups"),
    *("engine", "generation", "observed_generation", "converged", "progress", "errors", "warnings"),
}
GROUP = {
    *("group", "status", "desired", "phase", "reason", "message", "services", "running_count"),
    *("total_count", "total_memory_mb", "estimated_memory_mb"),
}
SERVICE = {
    *("name", "container", "status", "health", "ready", "memory_mb", "cpu_percent", "uptime", "ports"),
    *("restart_count", "drift", "last_error"),
}
WRITE = {
    *("action", "target", "success", "message", "timestamp", "services_affected", "generation", "progress"),
}
PROGRESS = {"generation", "state", "done", "total", "percent", "steps"}
STEP = {"service", "action", "state", "attempts", "error", "started_at", "finished_at"}
AUDIT = {"id", "timestamp", "action", "target", "result", "user", "reason", "source"}


@pytest.fixture
def daemon(a_daemon: Start) -> Daemon:
    daemon = a_daemon()
    daemon.converged(1)
    return daemon


def get(daemon: Daemon, path: str) -> Any:
    answer = ask(daemon, "GET", path)
    assert answer.status == 200, answer
    return answer.value


def post(daemon: Daemon, path: str) -> RawResponse:
    return ask(daemon, "POST", path)


def put(daemon: Daemon, group: str, body: Any, **headers: str) -> RawResponse:
    fields = {"content-type": "application/json", **{n.replace("_", "-"): v for n, v in headers.items()}}
    return ask(daemon, "PUT", f"/services/groups/{group}", json.dumps(body).encode(), fields)


def is_time(text: str) -> bool:
    return datetime.fromisoformat(text).tzinfo is not None


def test_every_answer_has_the_fields_of_the_contract(daemon: Daemon) -> None:
    status = get(daemon, "/services/status")
    assert status.keys() >= STATUS
    assert (status["total_services"], status["running_services"]) == (18, 3)
    assert is_time(status["timestamp"])
    assert status["pilot_ready"] is True
    kafka = get(daemon, "/services/status/kafka")
    assert kafka.keys() >= GROUP
    assert kafka | {"timestamp": 0} == status["groups"]["kafka"] | {"timestamp": 0} | changing(kafka)
    assert (kafka["status"], kafka["desired"], kafka["phase"]) == ("running", "on", "converged")
    assert (kafka["running_count"], kafka["total_count"], kafka["estimated_memory_mb"]) == (3, 3, 700)
    assert all(service.keys() >= SERVICE for service in kafka["services"])
    groups = get(daemon, "/services/groups")["groups"]
    assert list(groups) == ["kafka", "storage", "search", "alerts", "monitoring", "analytics", "optional"]
    assert groups["storage"] | {} == groups["storage"] | {
        "services": ["timescaledb", "minio", "kafka-consumer", "query-api"],
        "estimated_ram_mb": 200,
        "dependencies": ["kafka"],
        "dependents": ["analytics"],
    }
    (entry, *_) = get(daemon, "/services/audit?limit=1")["entries"]
    assert entry.keys() >= AUDIT
    assert get(daemon, "/services/drift")["drift"] == []
    assert get(daemon, "/services/plan")["steps"] == []


def changing(group: dict[str, Any]) -> dict[str, Any]:
    # They change between two reads.
    return {"services": group["services"]}


def test_a_start_is_accepted_and_followed_and_survives_a_restart(daemon: Daemon) -> None:
    answer = post(daemon, "/services/start/optional")
    assert answer.status == 202
    assert answer.value.keys() >= WRITE
    generation = answer.value["generation"]
    assert (answer.value["action"], answer.value["target"], answer.value["success"]) == (
        "start",
        "optional",
        True,
    )
    assert answer.value["services_affected"] == ["kafka-ui"]
    assert answer.headers["location"] == f"/services/progress/{generation}"
    # After the reply every read shows that generation or a later one.
    assert get(daemon, "/services/status")["generation"] >= generation
    progress = get(daemon, f"{answer.headers['location']}?wait=30")
    assert progress.keys() >= PROGRESS
    assert (progress["state"], progress["percent"]) == ("converged", 100)
    assert [(step["service"], step["action"], step["state"]) for step in progress["steps"]] == [
        ("kafka-ui", "create", "done"),
        ("kafka-ui", "start", "done"),
    ]
    assert all(step.keys() >= STEP and is_time(step["finished_at"]) for step in progress["steps"])
    again = post(daemon, "/services/start/optional")
    assert (again.status, again.value["generation"]) == (200, generation)
    assert post(daemon, "/services/stop/optional?wait=30").value["progress"]["state"] == "converged"
    before = [get(daemon, f"/services/progress/{number}") for number in range(1, generation + 2)]
    daemon.end()
    daemon.start()
    daemon.converged()
    after = [get(daemon, f"/services/progress/{number}") for number in range(1, generation + 2)]
    # The engine in memory forgets its containers, so steps to create them again follow the earlier ones.
    assert after[:-1] == before[:-1]
    assert after[-1]["steps"][: len(before[-1]["steps"])] == before[-1]["steps"]


def test_an_unfinished_generation_is_superseded_after_a_crash(daemon: Daemon) -> None:
    (first, second) = (post(daemon, f"/services/start/{name}") for name in ("optional", "monitoring"))
    daemon.signal(signal.SIGKILL)
    daemon.wait_for_exit()
    daemon.start()
    daemon.converged()
    assert get(daemon, f"/services/progress/{first.value['generation']}")["state"] in {
        "superseded",
        "converged",
    }
    last = get(daemon, f"/services/progress/{second.value['generation']}?wait=30")
    assert last["state"] == "converged"


def test_refusals_name_the_group_the_dependency_and_the_option(daemon: Daemon) -> None:
    unknown = post(daemon, "/services/start/kafak")
    assert unknown.status == 404
    post(daemon, "/services/stop/kafka")
    off = post(daemon, "/services/start/storage")
    assert (off.status, off.headers["content-type"]) == (409, "application/problem+json")
    assert {"title", "status", "detail"} <= off.value.keys()
    assert "kafka" in off.value["detail"]
    assert "force=true" in off.value["remedy"]
    both = post(daemon, "/services/start/storage?with_dependencies=true&wait=30")
    assert both.value["progress"]["state"] == "converged"
    needed = post(daemon, "/services/stop/kafka")
    assert (needed.status, "storage" in needed.value["detail"]) == (409, True)
    assert "with_dependents=true" in needed.value["remedy"]
    forced = post(daemon, "/services/stop/kafka?force=true&wait=30")
    # Storage stays on and is blocked, so this generation ends degraded.
    assert forced.value["progress"]["state"] == "degraded"
    assert get(daemon, "/services/status/storage")["phase"] == "blocked"
    assert post(daemon, "/services/stop/storage?wait=30").value["progress"]["state"] == "converged"
    assert post(daemon, "/services/restart/storage").status == 409
    assert ask(daemon, "POST", "/services/start/kafka?forse=true").status == 422


def test_a_forced_start_is_stored_and_a_plain_one_removes_it(daemon: Daemon) -> None:
    post(daemon, "/services/stop/kafka?wait=30")
    assert (
        post(daemon, "/services/start/storage?force=true&wait=30").value["progress"]["state"] == "converged"
    )
    assert "storage: {state: on, force: true}" in (daemon.desired / "groups.yaml").read_text()
    post(daemon, "/services/start/kafka?wait=30")
    assert post(daemon, "/services/start/storage").status == 202
    assert get(daemon, "/services/status/storage")["force"] is False


def test_put_is_idempotent_and_validates_its_body(daemon: Daemon) -> None:
    first, second = put(daemon, "optional", {"state": "on"}), put(daemon, "optional", {"state": True})
    assert (first.status, second.status) == (202, 200)
    assert first.value["generation"] == second.value["generation"]
    for bad in (
        {},
        {"state": "maybe"},
        {"state": 1},
        {"state": "on", "forced": True},
        {"state": "on", "force": "yes"},
    ):
        assert put(daemon, "optional", bad).status == 422, bad
    assert put(daemon, "kafak", {"state": "on"}).status == 404


def test_a_suspension_delays_a_start_until_it_ends(daemon: Daemon) -> None:
    until = "2999-01-01T00:00:00Z"
    suspended = put(daemon, "optional", {"state": "on", "suspend": {"until": until, "reason": "camera work"}})
    assert suspended.status == 202
    assert "suspension" in suspended.value["message"]
    assert (
        "suspend: {until: 2999-01-01T00:00:00Z, reason: camera work}"
        in (daemon.desired / "groups.yaml").read_text()
    )
    shown = get(daemon, "/services/status/optional")
    assert (shown["phase"], shown["status"], shown["suspend_reason"]) == (
        "suspended",
        "stopped",
        "camera work",
    )
    daemon.converged(suspended.value["generation"])
    resumed = put(daemon, "optional", {"state": "on", "suspend": False})
    assert get(daemon, f"{resumed.headers['location']}?wait=30")["state"] == "converged"
    assert get(daemon, "/services/status/optional")["status"] == "running"


def test_no_write_replaces_a_broken_file_or_another_revision(daemon: Daemon) -> None:
    path = daemon.desired / "groups.yaml"
    good = path.read_text()
    tag = ask(daemon, "GET", "/services/status").headers["etag"]
    path.write_text(good.replace("optional: off", "optional: on"))
    stale = put(daemon, "monitoring", {"state": "on"}, if_match=tag)
    assert stale.status == 412
    path.write_text("groups: [")
    broken = post(daemon, "/services/start/monitoring")
    assert (broken.status, path.read_text()) == (409, "groups: [")
    path.write_text(good)
    assert put(daemon, "monitoring", {"state": "on"}).status == 202


def test_an_unread_edit_gets_its_own_generation(daemon: Daemon) -> None:
    path = daemon.desired / "groups.yaml"
    path.write_text(path.read_text().replace("optional: off", "optional: on "))
    answer = post(daemon, "/services/start/monitoring?wait=30")
    assert answer.value["generation"] == 3
    entries = get(daemon, "/services/audit")["entries"]
    recorded = {e["generation"]: (e["user"], e["action"]) for e in entries if e["result"] == "accepted"}
    assert (recorded[2], recorded[3]) == (("file", "edit"), ("anonymous", "start"))


def test_logs_are_read_and_followed(daemon: Daemon) -> None:
    log = ask(daemon, "GET", "/services/logs/kafka?tail=5")
    assert (log.status, log.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert log.body == b"kafka: simulated start\n"
    # A followed log ends with the container.
    began = time.monotonic()
    post(daemon, "/services/stop/kafka")
    followed = ask(daemon, "GET", "/services/logs/kafka?follow=true")
    assert followed.body.endswith(b"kafka: simulated die\n")
    assert time.monotonic() - began < 10


def test_a_preview_changes_nothing(daemon: Daemon) -> None:
    before = (daemon.desired / "groups.yaml").read_bytes()
    names = get(daemon, "/services/groups")["groups"]
    body = {
        "groups": dict.fromkeys(names, "off") | {"kafka": "on", "optional": {"state": "on", "force": True}}
    }
    preview = ask(
        daemon, "POST", "/services/plan", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    assert [(step["service"], step["action"]) for step in preview.value["steps"]] == [
        ("kafka-ui", "create"),
        ("kafka-ui", "start"),
    ]
    assert (daemon.desired / "groups.yaml").read_bytes() == before
    assert get(daemon, "/services/status")["generation"] == 1


def test_head_requests_get_the_headers_of_a_get(daemon: Daemon) -> None:
    for path, status in (("/healthz", 200), ("/services/status", 200), ("/services/status/nope", 404)):
        full, head = ask(daemon, "GET", path), ask(daemon, "HEAD", path)
        assert (head.status, head.body) == (status, b"")
        assert head.headers["content-type"] == full.headers["content-type"]
    assert ask(daemon, "HEAD", "/services/start/kafka").status == 405
    text = ask(daemon, "GET", "/metrics").body.decode()
    assert 'http_requests_total{method="HEAD",route="/healthz",status="200"} 1.0' in text
