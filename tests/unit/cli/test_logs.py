"""``logs``, ``suspend`` and ``resume`` against a stub of the daemon."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from reconciler.cli import main
from reconciler.cli.console import Console
from tests.support.fixtures.stub_server import (
    CannedResponse,
    Request,
    StubDaemon,
    a_daemon,
    a_progress,
    a_status,
    group,
    known,
    ok,
    problem,
    run_cli,
    service,
)


@pytest.fixture
def daemon() -> Iterator[StubDaemon]:
    with a_daemon() as stub:
        yield stub


def text(*lines: str, cut: bool = False) -> CannedResponse:
    body = "".join(f"{line}\n" for line in lines).encode()
    return CannedResponse(200, body, "text/plain; charset=utf-8", cut=cut)


def test_lines_are_printed_unchanged(daemon: StubDaemon) -> None:
    daemon.get("/services/logs/kafka", text("one", "  \x1b[31mtwo\x1b[0m\x07 ", "drei ü"))
    ran = run_cli("logs", "kafka", "--tail", "3", "--url", daemon.url)
    assert (ran.code, ran.out, ran.err) == (0, "one\n  \x1b[31mtwo\x1b[0m\x07 \ndrei ü\n", "")
    assert daemon.requests[-1].query == {"tail": "3"}


def test_terminal_gets_colours_but_no_other_control_codes(daemon: StubDaemon) -> None:
    daemon.get("/services/logs/kafka", text("  \x1b[31mtwo\x1b[0m \x1b]0;owned\x07\x1b[2Jx\ty"))
    out = io.StringIO()
    assert main.run(["logs", "kafka", "--url", daemon.url], Console(out, io.StringIO(), columns=80)) == 0
    shown = out.getvalue()
    assert shown.startswith("  \x1b[31mtwo\x1b[0m")
    assert re.sub(r"\x1b\[\d+m", "", shown).rstrip("\n").isprintable()


def test_follow_is_requested(daemon: StubDaemon) -> None:
    daemon.get("/services/logs/kafka", text("one"))
    ran = run_cli("logs", "kafka", "--follow", "--url", daemon.url)
    assert (ran.code, ran.out) == (0, "one\n")
    assert daemon.requests[-1].query == {"tail": "100", "follow": "true"}


def test_json_output(daemon: StubDaemon) -> None:
    daemon.get("/services/logs/kafka", text("one", "two"))
    whole = run_cli("logs", "kafka", "-o", "json", "--url", daemon.url)
    assert json.loads(whole.out) == {"service": "kafka", "lines": ["one", "two"]}
    followed = run_cli("logs", "kafka", "-o", "json", "--follow", "--url", daemon.url)
    assert [json.loads(line) for line in followed.out.splitlines()] == ["one", "two"]


def test_refusal_is_printed(daemon: StubDaemon) -> None:
    daemon.get(
        "/services/logs/loki", problem(404, "loki has no container", "it gets one when monitoring is on")
    )
    ran = run_cli("logs", "loki", "--url", daemon.url)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "loki has no container\n  → it gets one when monitoring is on\n"


def test_log_that_breaks_off_is_an_error(daemon: StubDaemon) -> None:
    daemon.get("/services/logs/kafka", text("one", cut=True))
    ran = run_cli("logs", "kafka", "--follow", "--url", daemon.url)
    assert (ran.code, ran.out) == (1, "one\n")
    assert "broke off" in ran.err


@pytest.mark.parametrize("words", [[], ["kafka", "--tail", "-1"], ["kafka", "--tail", "many"], ["a", "b"]])
def test_wrong_usage(words: list[str]) -> None:
    assert run_cli("logs", *words).code == 64


# --- suspend and resume -------------------------------------------------------------------------------


class StubGroup:
    """A group of the daemon; refuses a PUT whose ETag is not the newest."""

    def __init__(self, daemon: StubDaemon, **fields: Any) -> None:
        self.puts: list[dict[str, Any]] = []
        self.conflicts = 0
        daemon.get("/services/groups", known("kafka"))
        answer = ok(group(service("kafka"), **fields))._replace(etag='"r1.a-1"')
        daemon.get("/services/status/kafka", answer)
        daemon.put("/services/groups/kafka", self._put)

    def _put(self, request: Request) -> CannedResponse:
        assert request.headers["If-Match"] == '"r1.a-1"'
        if self.conflicts:
            self.conflicts -= 1
            return problem(412, "desired state has changed in between")
        self.puts.append(json.loads(request.body))
        return ok({"message": "kafka is updated (generation 42)", "generation": 42}, 202)


def test_suspension_keeps_the_other_fields(daemon: StubDaemon) -> None:
    group_ = StubGroup(daemon, desired="on", force=True)
    when = "2026-11-24T06:00:00Z"
    ran = run_cli("suspend", "kafka", "--until", when, "--reason", "camera work", "--url", daemon.url)
    assert (ran.code, ran.out) == (0, "kafka: kafka is updated (generation 42)\n")
    suspend = {"until": when, "reason": "camera work"}
    assert group_.puts == [{"state": "on", "force": True, "suspend": suspend}]


def test_until_accepts_a_duration(daemon: StubDaemon) -> None:
    group_ = StubGroup(daemon, desired="off", force=False)
    assert run_cli("suspend", "kafka", "--until", "2h", "--url", daemon.url).code == 0
    (put,) = group_.puts
    assert put["state"] == "off"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", put["suspend"]["until"])


def test_suspension_without_an_end_lasts_until_resume(daemon: StubDaemon) -> None:
    group_ = StubGroup(daemon)
    assert run_cli("suspend", "kafka", "--url", daemon.url).code == 0
    assert run_cli("resume", "kafka", "--url", daemon.url).code == 0
    assert [put["suspend"] for put in group_.puts] == [True, False]


def test_concurrent_change_of_the_group_is_kept(daemon: StubDaemon) -> None:
    group_ = StubGroup(daemon)
    group_.conflicts = 2
    assert run_cli("suspend", "kafka", "--url", daemon.url).code == 0
    assert len(group_.puts) == 1
    assert daemon.asked("GET").count("/services/status/kafka") == 3
    group_.conflicts = 100
    assert run_cli("suspend", "kafka", "--url", daemon.url).code == 1


def test_mistyped_group_or_time_changes_nothing(daemon: StubDaemon) -> None:
    group_ = StubGroup(daemon)
    assert run_cli("suspend", "kafak", "--url", daemon.url).code == 64
    assert run_cli("suspend", "kafka", "--until", "tomorrow", "--url", daemon.url).code == 64
    assert group_.puts == []


# --- progress -----------------------------------------------------------------------------------------

STEPS = (
    {
        "service": "kafka",
        "action": "start",
        "state": "done",
        "attempts": 2,
        "error": None,
        "reason": "stopped",
        "started_at": "2026-11-24T06:00:00Z",
        "finished_at": "2026-11-24T06:00:02.500Z",
    },
    {
        "service": "ui",
        "action": "start",
        "state": "waiting",
        "attempts": 0,
        "error": None,
        "reason": "waits for kafka to be healthy",
        "started_at": None,
        "finished_at": None,
    },
)


def test_progress_lists_each_step(daemon: StubDaemon) -> None:
    daemon.get("/services/progress/41", a_progress(41, "progressing", *STEPS, done=1))
    ran = run_cli("progress", "41", "--wait", "5", "--url", daemon.url)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == (
        "generation 41  progressing  1 of 2 services\n"
        "\n"
        "SERVICE  ACTION  STATE    TRIES   TOOK\n"
        "kafka    start   done         2  2.5 s\n"
        "ui       start   waiting      –      –  waits for kafka to be healthy\n"
    )
    assert daemon.requests[-1].query == {"wait": "5.0"}


def test_default_progress_is_of_the_newest_generation(daemon: StubDaemon) -> None:
    daemon.get("/services/status", a_status())
    daemon.get("/services/progress/41", a_progress(41, "degraded", message="kafka: ends again and again"))
    ran = run_cli("progress", "--url", daemon.url)
    assert ran.out == "generation 41  degraded  0 of 0 services\nkafka: ends again and again\n"
    assert run_cli("progress", "first", "--url", daemon.url).code == 64
    assert run_cli("progress", "7", "--url", daemon.url).code == 1


def test_log_of_the_previous_container(daemon: StubDaemon) -> None:
    daemon.get("/services/logs/kafka", text("last lines"))
    ran = run_cli("logs", "kafka", "--previous", "--url", daemon.url)
    assert (ran.code, ran.out) == (0, "last lines\n")
    assert daemon.requests[-1].query == {"tail": "100", "previous": "true"}
