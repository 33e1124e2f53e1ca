"""``watch``: full screen in a terminal, otherwise a line per change."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from reconciler.cli.commands.watch import watched_values
from reconciler.cli.output.status_page import render_page
from tests.support.fixtures.stub_server import StubDaemon, a_daemon, a_status, absent, group, run_cli, service
from tests.support.fixtures.terminal import rendered, terminal


@pytest.fixture
def daemon() -> Iterator[StubDaemon]:
    with a_daemon() as stub:
        stub.get("/services/status", WELL)
        stub.stream()
        yield stub


WELL = a_status(
    kafka=group(service("zookeeper"), service("kafka")), search=group(absent("os"), desired="off")
)
ILL = a_status(
    kafka=group(
        service("zookeeper"),
        absent("kafka", phase="progressing", message="start: exited with code 137", drift=["stopped"]),
        phase="progressing",
        message="kafka: start: exited with code 137",
    ),
    search=group(absent("os"), desired="off"),
) | {
    "converged": False,
    "errors": [{"path": "stack.yaml", "line": 2, "column": 1, "message": "unknown key 'x'"}],
}


def shown(status: dict[str, Any], columns: int = 100, rows: int = 30, lost: str = "") -> list[str]:
    return rendered(render_page(status, rows, lost), columns)


def test_page() -> None:
    assert shown(ILL) == [
        "alpr  not converged  generation 41  pilot ready  1 of 3 services run  84 MB",
        "stack.yaml:2:1: unknown key 'x'",
        "",
        "GROUP        WANTED  STATE             MEMORY",
        "kafka        on      progressing  84 / 700 MB  kafka: start: exited with code 137",
        "  zookeeper          running            84 MB  up 3 min",
        "  kafka              absent                    start: exited with code 137",
        "search       off     stopped         (700 MB)",
        "  os                 absent",
        "q quits",
    ]


def test_low_page_hides_converged_services() -> None:
    whole = shown(ILL, rows=10)[3:]
    assert shown(ILL, rows=9)[3:] == [line for line in whole if line != "  os                 absent"]
    assert shown(ILL, rows=8)[3:] == [
        "GROUP        WANTED  STATE             MEMORY",
        "kafka        on      progressing  84 / 700 MB  kafka: start: exited with code 137",
        "  zookeeper          running            84 MB  up 3 min",
        "… 2 more lines; `service-manager status` shows all",
        "q quits",
    ]


@pytest.mark.parametrize(("columns", "rows"), [(1, 1), (20, 2), (40, 4), (300, 100)])
def test_page_fits_any_size(columns: int, rows: int) -> None:
    assert len(shown(ILL, columns, rows)) <= max(rows, 6)


def test_lost_connection_is_shown() -> None:
    assert "no connection" in shown(WELL, lost="refused")[1]


def test_memory_and_uptime_are_no_changes() -> None:
    later = a_status(
        kafka=group(service("zookeeper", uptime=999, memory_mb=1.0), service("kafka", cpu_percent=9.0))
    )
    now = a_status(kafka=group(service("zookeeper"), service("kafka")))
    assert watched_values(later) == watched_values(now)
    assert watched_values(ILL)["files"] == "stack.yaml:2:1: unknown key 'x'"
    assert watched_values(ILL)["service kafka"] == "absent, differs: stopped"


def test_on_a_terminal(daemon: StubDaemon) -> None:
    with terminal("watch", "--url", daemon.url, columns=100) as screen:
        assert "zookeeper" in screen.see("q quits")
        assert daemon.streaming.wait(20)
        daemon.tell("status", ILL)
        screen.see("exited with code 137")
        screen.see("stack.yaml:2:1")
        screen.resize(40, 10)
        screen.type("q")
        assert screen.end() == 0
        # The shell's screen is back as it was.
        assert screen.screen.other is not None
        assert "kafka" not in screen.screen.text()
        assert not screen.screen.hidden


def test_dumb_terminal_gets_a_line_per_change(daemon: StubDaemon) -> None:
    with terminal("watch", "--url", daemon.url, TERM="dumb") as screen:
        screen.see("service kafka: running")
        screen.type("\x03")
        assert screen.end() == 0
        assert b"\x1b" not in screen.raw


def test_ctrl_c_ends_it(daemon: StubDaemon) -> None:
    with terminal("watch", "--url", daemon.url) as screen:
        screen.see("q quits")
        screen.type("\x03")
        assert screen.end() == 0


def test_pipe_gets_a_line_per_change(daemon: StubDaemon) -> None:
    command = [sys.executable, "-m", "reconciler", "watch", "--url", daemon.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        assert process.stdout is not None
        first = [process.stdout.readline().rstrip()[10:] for _ in range(len(watched_values(WELL)))]
        assert first[:3] == ["daemon: answers", "engine: reachable", "stack: converged, generation 41"]
        daemon.tell("status", WELL)
        daemon.tell("status", ILL)
        changes = {process.stdout.readline().rstrip()[10:] for _ in range(4)}
        process.terminate()
    assert changes == {
        "stack: not converged, generation 41",
        "files: stack.yaml:2:1: unknown key 'x'",
        "group kafka: on, progressing: kafka: start: exited with code 137",
        "service kafka: absent, differs: stopped",
    }


def test_no_daemon() -> None:
    assert run_cli("watch", "--url", "http://127.0.0.1:1").code == 1
