"""``status``, ``groups`` and ``drift`` against a stub of the daemon, with their exact output."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from reconciler.cli.output.status_rows import service_note
from tests.support.fixtures.stub_server import (
    StubDaemon,
    a_daemon,
    a_progress,
    a_status,
    absent,
    group,
    known,
    problem,
    run_cli,
    service,
)


@pytest.fixture
def daemon() -> Iterator[StubDaemon]:
    with a_daemon() as stub:
        yield stub


def out(daemon: StubDaemon, *words: str) -> str:
    ran = run_cli(*words, "--url", daemon.url)
    assert (ran.code, ran.err) == (0, "")
    return ran.out


STACK = a_status(
    kafka=group(service("zookeeper", health="none"), service("kafka", memory_mb=400.4, uptime=7300)),
    storage=group(
        service("timescaledb", phase="progressing", ready=False, reason="starting", health="starting")
        | {"message": "waits for its own health check to succeed"},
        absent(
            "query-api", phase="waiting", message="waits for timescaledb to be healthy", last_error="exited"
        ),
        phase="progressing",
        message="timescaledb: waits for its own health check to succeed",
    ),
    search=group(absent("opensearch"), desired="off", estimated_memory_mb=1500.0),
    analytics=group(
        absent("metabase", phase="blocked"), phase="blocked", message="needs storage, which is off"
    ),
)


def test_status_of_a_converged_stack(daemon: StubDaemon) -> None:
    daemon.get("/services/status", a_status(kafka=group(service("zookeeper"), service("kafka"))))
    assert out(daemon, "status") == (
        "alpr  converged  generation 41  pilot ready  2 of 2 services run  168 MB\n"
        "\n"
        "GROUP        WANTED  STATE            MEMORY\n"
        "kafka        on      2 running  168 / 700 MB\n"
        "  zookeeper          running           84 MB  up 3 min\n"
        "  kafka              running           84 MB  up 3 min\n"
    )


def test_status_of_a_stack_with_problems(daemon: StubDaemon) -> None:
    trouble = {
        "converged": False,
        "generation": 42,
        "pilot_ready": False,
        "progress": a_progress(42, "progressing"),
        "errors": [{"path": "groups.yaml", "line": 4, "column": 3, "message": "unknown group 'x'"}],
        "warnings": ["query-api names opensearch, which is off"],
        "engine": {"reachable": False, "error": "connection refused"},
    }
    daemon.get("/services/status", STACK | trouble)
    assert out(daemon, "status") == (
        "alpr  progressing  generation 42  pilot not ready  3 of 6 services run  569 MB\n"
        "the engine can't be reached: connection refused\n"
        "groups.yaml:4:3: unknown group 'x'\n"
        "warning: query-api names opensearch, which is off\n"
        "\n"
        "GROUP          WANTED  STATE              MEMORY\n"
        "kafka          on      2 running    485 / 700 MB\n"
        "  zookeeper            running             84 MB  up 3 min\n"
        "  kafka                running            400 MB  up 2 h\n"
        "storage        on      progressing   84 / 700 MB  "
        "timescaledb: waits for its own health check to succeed\n"
        "  timescaledb          starting            84 MB  waits for its own health check to succeed\n"
        "  query-api            absent                     "
        "waits for timescaledb to be healthy; last error: exited\n"
        "search         off     stopped         (1500 MB)\n"
        "analytics      on      blocked        0 / 700 MB  needs storage, which is off\n"
        "  metabase             absent\n"
    )


def test_service_scaled_to_zero() -> None:
    told = absent("seed", reason="scaled_to_zero", message="scaled to zero in the Compose file")
    assert service_note(told) == "scaled to zero in the Compose file"


def test_status_of_one_group(daemon: StubDaemon) -> None:
    one = group(
        service("kafka", ports=["9092:9092", "9101:9101"]),
        absent("schema-registry", phase="degraded", message="port is already allocated"),
        phase="degraded",
        message="schema-registry: port is already allocated",
    )
    daemon.get("/services/status/kafka", {"group": "kafka", **one})
    assert out(daemon, "status", "kafka") == (
        "kafka  on  degraded  1 of 2 run  84 MB of about 700 MB\n"
        "schema-registry: port is already allocated\n"
        "\n"
        "SERVICE          STATE    MEMORY  CPU     UP  PORTS                CONTAINER\n"
        "kafka            running   84 MB  2 %  3 min  9092:9092 9101:9101  alpr-kafka\n"
        "schema-registry  absent        –    –      –                       alpr-schema-registry  "
        "port is already allocated\n"
    )


def test_json_is_the_response_of_the_daemon(daemon: StubDaemon) -> None:
    daemon.get("/services/status", STACK)
    assert json.loads(out(daemon, "status", "--output", "json")) == STACK


def test_mistyped_group(daemon: StubDaemon) -> None:
    daemon.get("/services/status/kakfa", problem(404, "there is no group 'kakfa'"))
    daemon.get("/services/groups", known("kafka", "storage"))
    ran = run_cli("status", "kakfa", "--url", daemon.url)
    assert ran.code == 64
    assert "there is no group 'kakfa'\n  → did you mean 'kafka'?" in ran.err


def test_no_daemon() -> None:
    ran = run_cli("status", "--url", "http://127.0.0.1:1")
    assert ran.code == 1
    assert ran.err == (
        "no daemon answers at http://127.0.0.1:1: connection refused\n"
        "  → start it with `service-manager run` (installed: `systemctl start service-manager`), "
        "or give its address with --url\n"
    )


def test_missing_api_key(daemon: StubDaemon) -> None:
    daemon.get("/services/status", problem(401, "an API key is needed", "send it in X-API-Key"))
    ran = run_cli("status", "--url", daemon.url)
    assert (ran.code, ran.err) == (1, "an API key is needed\n  → send it in X-API-Key\n")


def test_groups(daemon: StubDaemon) -> None:
    daemon.get("/services/groups", known("kafka", "storage", storage=["kafka"]))
    assert out(daemon, "groups") == (
        "GROUP    MEMORY  NEEDS  SERVICES\n"
        "kafka    700 MB  –      kafka-1, kafka-2      what kafka does\n"
        "storage  700 MB  kafka  storage-1, storage-2  what storage does\n"
    )


def test_drift(daemon: StubDaemon) -> None:
    drifts = [
        {"service": "kafka", "kind": "stopped", "pending": False, "message": "exited with code 137"},
        {
            "service": "loki",
            "kind": "definition",
            "pending": True,
            "message": "was created from another definition",
            "fields": ["environment.A"],
        },
    ]
    daemon.get("/services/drift", {"drift": drifts, "by_kind": {}})
    assert out(daemon, "drift") == (
        "SERVICE  KIND                 WHAT DIFFERS\n"
        "kafka    stopped     drifted  exited with code 137\n"
        "loki     definition  pending  was created from another definition (environment.A)\n"
    )
    daemon.get("/services/drift", {"drift": []})
    assert out(daemon, "drift") == "no difference between desired and observed\n"


def test_response_with_missing_fields(daemon: StubDaemon) -> None:
    daemon.get("/services/status", {"groups": {"a": {}, "b": {"services": [{"name": "x"}]}}})
    assert "b" in out(daemon, "status")
    daemon.get("/services/status/a", {})
    assert out(daemon, "status", "a").startswith("a")


def test_control_codes_of_a_container_are_removed(daemon: StubDaemon) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J"
    daemon.get(
        "/services/status", a_status(kafka=group(absent("x", phase="degraded", message=evil), message=evil))
    )
    assert "\x1b" not in out(daemon, "status")


def test_suspended_group_shows_end_and_reason(daemon: StubDaemon) -> None:
    held = group(service("kafka"), group="kafka", phase="suspended", message="suspended")
    daemon.get("/services/status/kafka", held)
    assert out(daemon, "status", "kafka").splitlines()[1:3] == [
        "suspended",
        "until `service-manager resume kafka`",
    ]
    daemon.get(
        "/services/status/kafka",
        held | {"suspended_until": "2026-11-24T06:00:00Z", "suspend_reason": "camera work"},
    )
    assert out(daemon, "status", "kafka").splitlines()[2] == "until 2026-11-24T06:00:00Z: camera work"
