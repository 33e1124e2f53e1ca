"""``start``, ``stop`` and ``restart``: requests, refusals, and how progress is shown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from rich.cells import cell_len

from reconciler.cli.commands.lifecycle import exit_code
from reconciler.cli.commands.wait import WaitResult
from reconciler.cli.output.live_view import render_frame
from reconciler.cli.output.progress_rows import ProgressNarrator, step_rows
from reconciler.cli.output.time_format import unix_seconds
from tests.support.fixtures.stub_server import (
    CannedResponse,
    Request,
    StubDaemon,
    a_daemon,
    a_progress,
    a_status,
    a_step,
    absent,
    group,
    known,
    ok,
    problem,
    run_cli,
    service,
)
from tests.support.fixtures.terminal import rendered, terminal


@pytest.fixture
def daemon() -> Iterator[StubDaemon]:
    with a_daemon() as stub:
        stub.get("/services/groups", known("kafka", "storage", "search", storage=["kafka"]))
        yield stub


def accepted(name: str, generation: int) -> dict[str, Any]:
    return {
        "action": "start",
        "target": name,
        "success": True,
        "message": f"{name} is switched on (generation {generation})",
        "services_affected": [f"{name}-1", f"{name}-2"],
        "generation": generation,
        "progress": a_progress(generation, "progressing"),
    }


def at(generation: int, progress: dict[str, Any], **groups: dict[str, Any]) -> dict[str, Any]:
    return a_status(**groups) | {"generation": generation, "progress": progress}


WAITS = a_step("kafka-2", "start", "waiting", reason="waits for kafka-1 to be healthy")
ONE = a_progress(42, "progressing", a_step("kafka-1", "create", "running"), WAITS)
TWO = a_progress(
    42, "progressing", a_step("kafka-1", "create", "done"), a_step("kafka-1", "start", "running"), WAITS
)
THREE = a_progress(
    42,
    "progressing",
    a_step("kafka-1", "create", "done"),
    a_step("kafka-1", "start", "done"),
    a_step("kafka-2", "start", "failed", attempts=2, error="port is already allocated"),
    done=1,
    total=2,
    percent=50,
)
DONE = a_progress(42, "converged", *THREE["steps"][:2], a_step("kafka-2", "start", "done"), done=2, total=2)

KAFKA_COMING = group(
    service("kafka-1", ready=False, health="starting", phase="progressing", reason="starting")
    | {"uptime": 5, "expected_seconds": 10.0, "message": "waits for its own health check to succeed"},
    absent(
        "kafka-2", phase="waiting", reason="dependency_not_ready", message="waits for kafka-1 to be healthy"
    ),
    phase="progressing",
)
KAFKA_UP = group(service("kafka-1"), service("kafka-2"))


def without_times(text: str) -> str:
    return "\n".join(line.split("s  ", 1)[-1] if line[:1] == " " else line for line in text.splitlines())


def test_events_of_the_stream_are_printed_as_lines(daemon: StubDaemon) -> None:
    daemon.post("/services/start/kafka", accepted("kafka", 42))
    daemon.get("/services/progress/42", ONE)
    daemon.get("/services/status", at(42, ONE, kafka=KAFKA_COMING))
    daemon.stream()
    for progress in (TWO, THREE):
        daemon.tell("progress", progress)
    daemon.tell("status", at(42, THREE, kafka=KAFKA_UP))

    def finish(request: Request) -> CannedResponse:
        # The generation ends when the status is requested, so that the test does not depend on timing.
        daemon.tell("progress", DONE)
        daemon.get("/services/status", at(42, DONE, kafka=KAFKA_UP))
        return ok(at(42, ONE, kafka=KAFKA_COMING))

    daemon.get("/services/status", finish)
    ran = run_cli("start", "kafka", "--url", daemon.url)
    assert ran.code == 0, ran.err
    assert without_times(ran.out) == (
        "kafka: kafka is switched on (generation 42)\n"
        "kafka-1                   create began\n"
        "kafka-2                   waits for kafka-1 to be healthy\n"
        "kafka-1                   create done\n"
        "kafka-1                   start began\n"
        "kafka-1                   start done\n"
        "kafka-2                   start failed (attempt 2): port is already allocated\n"
        "kafka-1                   ready\n"
        "kafka-2                   ready\n"
        "kafka-2                   start done\n"
        "converged, generation 42"
    )


def test_daemon_without_a_stream_is_polled(daemon: StubDaemon) -> None:
    daemon.post("/services/start/kafka", accepted("kafka", 42))
    answers = iter([ONE, ONE, TWO, DONE])
    daemon.get("/services/progress/42", lambda _: ok(next(answers)))
    daemon.get("/services/status", a_status(kafka=KAFKA_UP))
    ran = run_cli("start", "kafka", "--url", daemon.url)
    assert ran.code == 0
    assert "converged, generation 41" in ran.out
    asked = [r.query for r in daemon.requests if r.path == "/services/progress/42"]
    assert asked[0] == {"wait": "1"}


def test_options_become_query_parameters(daemon: StubDaemon) -> None:
    daemon.post("/services/start/storage", accepted("storage", 42))
    daemon.post("/services/stop/kafka", accepted("kafka", 43))
    daemon.post("/services/restart/kafka", accepted("kafka", 44))
    daemon.post("/services/accept/kafka", accepted("kafka", 45))
    words = ["--no-wait", "--url", daemon.url]
    assert run_cli("start", "storage", "--with-dependencies", "--force", *words).code == 0
    assert run_cli("stop", "kafka", "--with-dependents", *words).code == 0
    assert run_cli("restart", "kafka", *words).code == 0
    assert run_cli("accept", "kafka", *words).code == 0
    posts = [r.query for r in daemon.requests if r.method == "POST"]
    assert posts == [{"force": "true", "with_dependencies": "true"}, {"with_dependents": "true"}, {}, {}]


def test_several_groups_are_changed_in_dependency_order(daemon: StubDaemon) -> None:
    for name in ("kafka", "storage"):
        daemon.post(f"/services/start/{name}", accepted(name, 42))
        daemon.post(f"/services/stop/{name}", accepted(name, 42))
    words = ["storage", "kafka", "storage", "--no-wait", "--url", daemon.url]
    assert run_cli("start", *words).code == 0
    assert daemon.asked("POST") == ["/services/start/kafka", "/services/start/storage"]
    daemon.requests.clear()
    assert run_cli("stop", "kafka", *words).code == 0
    assert daemon.asked("POST") == ["/services/stop/storage", "/services/stop/kafka"]


def test_mistyped_group_changes_nothing(daemon: StubDaemon) -> None:
    daemon.post("/services/start/kafka", accepted("kafka", 42))
    ran = run_cli("start", "kafka", "serach", "--url", daemon.url)
    assert ran.code == 64
    assert "did you mean 'search'?" in ran.err
    assert daemon.asked("POST") == []


def test_refusal_has_a_remedy(daemon: StubDaemon) -> None:
    refusal = problem(409, "storage needs kafka, which is off", "add with_dependencies=true, or force=true")
    daemon.post("/services/start/storage", refusal)
    ran = run_cli("start", "storage", "--url", daemon.url)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        "storage: storage needs kafka, which is off\n  → add --with-dependencies, or --force\n"
    )


def test_refusal_after_a_change_names_the_changed_groups(daemon: StubDaemon) -> None:
    daemon.post("/services/start/kafka", accepted("kafka", 42))
    daemon.post("/services/start/search", problem(409, "no"))
    ran = run_cli("start", "kafka", "search", "--url", daemon.url)
    assert ran.code == 1
    assert "kafka: changed before the error" in ran.err


def test_json_has_responses_and_result(daemon: StubDaemon) -> None:
    daemon.post("/services/start/kafka", accepted("kafka", 42))
    daemon.get("/services/progress/42", DONE)
    daemon.get("/services/status", a_status(kafka=KAFKA_UP))
    ran = run_cli("start", "kafka", "--url", daemon.url, "--output", "json")
    value = json.loads(ran.out)
    assert (ran.code, value["outcome"], value["progress"]) == (0, "converged", DONE)
    assert value["answers"][0]["generation"] == 42


def test_timeout(daemon: StubDaemon) -> None:
    daemon.post("/services/start/kafka", accepted("kafka", 42))
    daemon.get("/services/progress/42", ONE)
    daemon.get("/services/status", at(42, ONE, kafka=KAFKA_COMING))
    daemon.stream()
    ran = run_cli("start", "kafka", "--url", daemon.url, "--timeout", "0.2")
    assert ran.code == 3
    assert "not converged in time; the change continues" in ran.err


def test_newer_generation_is_followed(daemon: StubDaemon) -> None:
    daemon.post("/services/start/kafka", accepted("kafka", 42))
    daemon.get("/services/progress/42", a_progress(42, "superseded"))
    newer = a_progress(43, "converged")
    daemon.get("/services/status", at(43, newer, kafka=KAFKA_UP))
    ran = run_cli("start", "kafka", "--url", daemon.url)
    assert ran.code == 0
    assert "following generation 43" in ran.out


def test_lost_daemon_is_waited_for(daemon: StubDaemon) -> None:
    daemon.post("/services/start/kafka", accepted("kafka", 42))
    answers = iter([problem(503, "the daemon is going down"), ok(DONE)])
    daemon.get("/services/progress/42", lambda _: next(answers))
    daemon.get("/services/status", a_status(kafka=KAFKA_UP))
    ran = run_cli("start", "kafka", "--url", daemon.url)
    assert ran.code == 0
    assert "waiting for the daemon" in ran.out


# --- exit codes --------------------------------------------------------------------------------------


def test_degraded_group_elsewhere_is_no_failure() -> None:
    status = a_status(kafka=KAFKA_UP, search=group(absent("o", phase="degraded"), phase="degraded"))
    end = WaitResult("degraded", a_progress(42, "degraded", message="o: image_unavailable"), 42)
    code, outcome, lines = exit_code("on", ["kafka"], end, status)
    assert (code, outcome) == (0, "converged")
    assert lines[1] == "elsewhere in the stack: o: image_unavailable"


def test_degraded_is_a_failure_with_its_reasons() -> None:
    bad = group(
        absent("o", phase="degraded", message="tried 3 times", last_error="no such image"), phase="degraded"
    )
    end = WaitResult("degraded", a_progress(42, "degraded", message="o: tried 3 times"), 42)
    code, _, lines = exit_code("on", ["search"], end, a_status(search=bad))
    assert code == 1
    assert lines == ["degraded: o: tried 3 times", "  o: tried 3 times (no such image)"]


def test_group_changed_by_another_request_is_overruled() -> None:
    end = WaitResult("converged", a_progress(43, "converged"), 43)
    code, outcome, _ = exit_code("on", ["kafka"], end, a_status(kafka=group(absent("k"), desired="off")))
    assert (code, outcome) == (1, "overruled")


def test_suspended_group_is_reported() -> None:
    end = WaitResult("converged", a_progress(43, "converged"), 43)
    code, _, lines = exit_code("on", ["kafka"], end, a_status(kafka=group(absent("k"), phase="suspended")))
    assert code == 0
    assert "when the suspension ends" in lines[0]


# --- frames -------------------------------------------------------------------------------------------


def texts(progress: dict[str, Any], status: dict[str, Any], width: int = 100, height: int = 24) -> list[str]:
    rows = step_rows(progress, status, since=1.0)
    shown = render_frame(rows, progress, width=width, height=height, passed=12.3, wall=1000.0)
    return rendered(shown, width)


def test_frame() -> None:
    status = at(42, THREE, kafka=KAFKA_COMING)
    progress = THREE | {"expected_at": 1009.5}
    assert texts(progress, status) == [
        "  kafka-1  ━━━━━━      starting   ~4 s  waits for its own health check to succeed",
        "  kafka-2              failed     port is already allocated",
        "generation 42  ━━━━━       progressing  1 of 2  ~9 s left  12 s",
    ]
    assert texts(DONE, at(42, DONE, kafka=KAFKA_UP)) == [
        "  kafka-1  ━━━━━━━━━━  ready",
        "  kafka-2  ━━━━━━━━━━  ready",
        "generation 42  ━━━━━━━━━━  converged  2 of 2  12 s",
    ]


def test_frame_of_a_stop() -> None:
    steps = [a_step("k", "stop", "running"), a_step("z", "stop", "waiting", reason="stops after k")]
    status = at(42, ONE, kafka=group(service("k", phase="progressing"), service("z", phase="waiting")))
    assert texts(a_progress(42, "progressing", *steps), status)[:2] == [
        "  k  ━━━         stopping",
        "  z              waiting    stops after k",
    ]
    down = at(42, DONE, kafka=group(absent("k", status="exited"), absent("z")))
    assert texts(a_progress(42, "converged", a_step("k", "stop", "done"), a_step("z", "stop", "done")), down)[
        :2
    ] == [
        "  k  ━━━━━━━━━━  off",
        "  z  ━━━━━━━━━━  off",
    ]


@pytest.mark.parametrize(("width", "height"), [(1, 1), (10, 3), (40, 5), (80, 24), (400, 100)])
def test_frame_fits_any_size(width: int, height: int) -> None:
    many = [a_step(f"service-{n}", "start", "waiting", reason="waits " * 20) for n in range(50)]
    shown = texts(a_progress(1, "progressing", *many), {}, width, height)
    assert len(shown) <= max(height, 2)
    if height == 5:
        assert shown[-2] == "  … and 48 more"


def test_frame_needs_no_status() -> None:
    assert texts(ONE, {})[0].startswith("  kafka-1  ━━━")
    assert texts(DONE, {})[0] == "  kafka-1  ━━━━━━━━━━  done"


def test_unix_seconds() -> None:
    assert unix_seconds("1970-01-01T00:01:00.500Z") == 60.5
    assert unix_seconds(12) == 12.0
    assert unix_seconds("soon") is None
    assert unix_seconds(None) is None


def test_narrator_reports_each_event_once() -> None:
    narrator = ProgressNarrator()
    assert list(narrator.news(ONE, {})) == [
        ("kafka-1", "create began"),
        ("kafka-2", "waits for kafka-1 to be healthy"),
    ]
    assert list(narrator.news(ONE, {})) == []
    assert list(narrator.news(TWO, {})) == [("kafka-1", "create done"), ("kafka-1", "start began")]


# --- on a terminal ------------------------------------------------------------------------------------


def live(daemon: StubDaemon) -> None:
    daemon.post("/services/start/kafka", accepted("kafka", 42))
    daemon.get("/services/progress/42", ONE)
    daemon.get("/services/status", at(42, ONE, kafka=KAFKA_COMING))
    daemon.stream()


def test_live_lines_on_a_terminal(daemon: StubDaemon) -> None:
    live(daemon)
    with terminal("start", "kafka", "--url", daemon.url) as shown:
        shown.see("waits for kafka-1 to be healthy")
        daemon.tell("progress", THREE)
        assert "progressing  1 of 2" in shown.see("port is already allocated")
        assert shown.screen.hidden
        shown.resize(50, 12)
        daemon.tell("progress", THREE | {"done": 2})
        narrow = shown.see("2 of 2").splitlines()
        # The new frame replaced the wrapped lines of the old one.
        assert sum("kafka-2" in line for line in narrow) == 1
        daemon.get("/services/status", at(42, DONE, kafka=KAFKA_UP))
        daemon.tell("status", at(42, DONE, kafka=KAFKA_UP))
        assert shown.end() == 0
        last = shown.screen.text().splitlines()
        assert last[-1] == "converged, generation 42"
        assert not shown.screen.hidden
        assert b"\x1b[33m" in shown.raw


def test_no_colour_with_no_color_set(daemon: StubDaemon) -> None:
    live(daemon)
    with terminal("start", "kafka", "--url", daemon.url, NO_COLOR="1") as shown:
        shown.see("waits for kafka-1 to be healthy")
        daemon.get("/services/status", at(42, DONE, kafka=KAFKA_UP))
        daemon.tell("progress", DONE)
        assert shown.end() == 0
        assert re.search(rb"\x1b\[\d*m", shown.raw) is None


def test_dumb_terminal_gets_a_line_per_event(daemon: StubDaemon) -> None:
    live(daemon)
    with terminal("start", "kafka", "--url", daemon.url, TERM="dumb") as shown:
        shown.see("waits for kafka-1 to be healthy")
        daemon.get("/services/status", at(42, DONE, kafka=KAFKA_UP))
        daemon.tell("progress", DONE)
        assert shown.end() == 0
        assert b"\x1b" not in shown.raw


def test_ctrl_c_stops_watching_with_a_message(daemon: StubDaemon) -> None:
    live(daemon)
    with terminal("start", "kafka", "--url", daemon.url, columns=120) as shown:
        shown.see("waits for kafka-1 to be healthy")
        shown.type("\x03")
        assert shown.end() == 130
        assert "Stopped watching. The change continues" in shown.screen.text()
        assert not shown.screen.hidden


def test_lines_stay_within_the_terminal(daemon: StubDaemon) -> None:
    live(daemon)
    with terminal("start", "kafka", "--url", daemon.url, columns=34, rows=6) as shown:
        screen = shown.see("progressing")
        assert all(cell_len(line) < 34 for line in screen.splitlines()[-3:])
        shown.type("\x03")
        assert shown.end() == 130


def test_no_thread_keeps_the_process_alive(daemon: StubDaemon) -> None:
    daemon.post("/services/start/kafka", accepted("kafka", 42))
    daemon.get("/services/progress/42", DONE)
    daemon.get("/services/status", at(42, DONE, kafka=KAFKA_UP))
    daemon.stream()
    with terminal("start", "kafka", "--url", daemon.url) as shown:
        assert shown.end(10) == 0
