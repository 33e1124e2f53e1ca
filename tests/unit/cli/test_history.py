"""``history`` and ``rollback`` against a stub of the daemon."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.fixtures.stub_server import (
    StubDaemon,
    a_daemon,
    a_progress,
    a_status,
    group,
    problem,
    run_cli,
    service,
)


def entry(generation: int, **fields: Any) -> dict[str, Any]:
    return {
        "generation": generation,
        "current": False,
        "accepted_at": "2026-11-24T06:00:00.000Z",
        "author": "ann",
        "reason": "start kafka",
        "changes": ["kafka: off → on"],
        "revision": "0" * 64,
        "commit": None,
        "state": "converged",
        "message": "",
        "ended_at": None,
    } | fields


def plan(**fields: Any) -> dict[str, Any]:
    step = {
        "service": "kafka",
        "group": "kafka",
        "action": "stop",
        "reason": "group_off",
        "message": "is off",
    }
    return {
        "generation": 42,
        "target": "41",
        "entry": entry(41),
        "commit": None,
        "changes": ["kafka: on → off"],
        "files": ["groups.yaml"],
        "engine_seen": True,
        "steps": [step],
        "waiting": [],
    } | fields


@pytest.fixture
def daemon() -> Iterator[StubDaemon]:
    with a_daemon() as stub:
        entries = [entry(41), entry(42, current=True, commit="3f9c2ab" * 5, author="bob\x1b[2J")]
        stub.get("/services/history", {"generation": 42, "entries": entries, "before": 41})
        stub.get("/services/history/41", plan())
        accepted = {"message": "rolled back to generation 41 (generation 43)", "generation": 43}
        stub.post("/services/rollback/41", accepted | {"progress": a_progress(43, "progressing")})
        done = a_status(kafka=group(service("kafka"))) | {"generation": 43}
        stub.get("/services/status", done | {"progress": a_progress(43, "converged")})
        stub.get("/services/progress/43", a_progress(43, "converged"))
        yield stub


def test_history_is_a_table_without_control_characters(daemon: StubDaemon) -> None:
    ran = run_cli("history", "--url", daemon.url, "--limit", "2")
    assert ran.code == 0
    assert daemon.requests[0].query == {"limit": "2"}
    lines = ran.out.splitlines()
    assert lines[1].split() == [
        "41",
        *lines[1].split()[1:3],
        "ann",
        "start",
        "kafka",
        "converged",
        *lines[1].split()[7:],
    ]
    assert "42*" in lines[2]
    assert "(3f9c2ab3f9)" in lines[2]
    assert "\x1b" not in ran.out
    assert "--before 41" in ran.err


def test_rollback_shows_the_plan_first(daemon: StubDaemon) -> None:
    ran = run_cli("rollback", "41", "--url", daemon.url)
    assert (ran.code, ran.err) == (0, "")
    shown, done = ran.out.split("rolled back to generation 41 ")
    assert "kafka: on → off" in shown
    assert "kafka: stop" in shown
    assert "groups.yaml" in shown
    assert "converged, generation 43" in done


def test_default_target_is_the_generation_before(daemon: StubDaemon) -> None:
    assert run_cli("rollback", "--no-wait", "--url", daemon.url).code == 0
    assert daemon.asked("POST") == ["/services/rollback/41"]


def test_rollback_to_an_equal_state_sends_no_request(daemon: StubDaemon) -> None:
    daemon.get("/services/history/41", plan(files=[], changes=[], steps=[]))
    ran = run_cli("rollback", "41", "--url", daemon.url)
    assert (ran.code, ran.out) == (0, "Nothing to roll back: generation 41 equals the current state.\n")
    assert daemon.asked("POST") == []


def test_rollback_on_a_terminal_needs_confirmation(
    daemon: StubDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(["n\n", "y\n"])

    class Terminal:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return next(answers)

    monkeypatch.setattr("sys.stdin", Terminal())
    refused = run_cli("rollback", "41", "--url", daemon.url)
    assert (refused.code, daemon.asked("POST")) == (1, [])
    assert "nothing was changed" in refused.err
    assert run_cli("rollback", "41", "--no-wait", "--url", daemon.url).code == 0
    assert run_cli("rollback", "41", "--no-wait", "--yes", "--url", daemon.url).code == 0


def test_refusal_has_a_remedy_and_json_has_every_part(daemon: StubDaemon) -> None:
    daemon.post("/services/rollback/41", problem(409, "files are broken", "fix them"))
    ran = run_cli("rollback", "41", "--url", daemon.url)
    assert ran.code == 1
    assert "fix them" in ran.err
    daemon.post("/services/rollback/41", {"message": "back", "generation": 43})
    result = json.loads(run_cli("rollback", "41", "--url", daemon.url, "-o", "json").out)
    assert (result["outcome"], result["plan"]["target"]) == ("converged", "41")
