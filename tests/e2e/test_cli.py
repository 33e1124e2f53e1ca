"""The command line against a running daemon: its output is for people, its exit code for scripts."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time

from tests.support.harness.daemon import ROOT
from tests.support.harness.sandbox import PROJECT, Sandbox


def test_status_and_groups_show_what_runs(sandbox: Sandbox) -> None:
    done = sandbox.daemon.cli("status")
    assert done.returncode == 0
    for word in ("base", "app", "front", "extra"):
        assert word in done.stdout
    output = json.loads(sandbox.daemon.cli("status", "--output", "json").stdout)
    assert output["converged"]
    output = json.loads(sandbox.daemon.cli("groups", "--output", "json").stdout)
    assert output["groups"]["app"]["dependencies"] == ["base"]
    done = sandbox.daemon.cli("status", "base")
    assert "migrate" in done.stdout


def test_stop_and_start_with_dependencies_return_when_converged(sandbox: Sandbox) -> None:
    done = sandbox.daemon.cli("stop", "base")
    assert done.returncode == 1
    assert "app" in done.stderr
    sandbox.is_true()
    done = sandbox.daemon.cli("stop", "base", "--with-dependents")
    assert done.returncode == 0, done.stderr
    sandbox.is_true({"extra"}, within=0.1)
    done = sandbox.daemon.cli("start", "app")
    assert done.returncode == 1
    assert "base" in done.stderr
    done = sandbox.daemon.cli("start", "front", "--with-dependencies")
    assert done.returncode == 0, done.stderr
    sandbox.is_true(within=0.1)
    assert "\x1b" not in done.stdout, "no colours without a terminal"


def test_restart_restarts_and_a_timeout_exits_with_3(sandbox: Sandbox) -> None:
    before = sandbox.one("cache")
    done = sandbox.daemon.cli("restart", "extra")
    assert done.returncode == 0, done.stderr
    after = sandbox.one("cache")
    assert after["Id"] == before["Id"]
    assert after["State"]["StartedAt"] > before["State"]["StartedAt"]
    with sandbox.engine.frozen():
        assert sandbox.daemon.cli("stop", "extra", "--timeout", "1").returncode == 3
    sandbox.daemon.converged()


def test_plan_exits_with_0_2_or_1_and_changes_nothing(sandbox: Sandbox) -> None:
    done = sandbox.daemon.cli("plan", local=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    # The group is suspended, so that only the plan shows the steps.
    sandbox.daemon.end()
    sandbox.docker.stop("small-cache")
    mark = sandbox.recorder.mark()
    done = sandbox.daemon.cli("plan", local=True)
    assert done.returncode == 2
    assert "cache" in done.stdout
    assert "start" in done.stdout
    output = json.loads(sandbox.daemon.cli("plan", "--output", "json", local=True).stdout)
    assert [(s["service"], s["action"]) for s in output["steps"]] == [("cache", "start")]
    sandbox.save("groups.yaml", "groups: {base: onn}\n")
    done = sandbox.daemon.cli("plan", local=True)
    assert done.returncode == 1
    assert "groups.yaml:1" in done.stderr
    assert not sandbox.recorder.touched(mark, PROJECT)
    assert sandbox.one("cache")["State"]["Status"] == "exited"


def test_validate_reports_every_mistake_with_its_position(sandbox: Sandbox) -> None:
    validate = [sys.executable, "-m", "reconciler", "validate", str(sandbox.desired)]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            validate, cwd=ROOT, env=sandbox.environ, capture_output=True, text=True, timeout=30, check=False
        )

    assert run().returncode == 0
    sandbox.save("groups.yaml", (sandbox.desired / "groups.yaml").read_text() + "  attic: on\n")
    sandbox.save("stack.yaml", (sandbox.desired / "stack.yaml").read_text().replace("[cache]", "[cash]"))
    done = run()
    assert done.returncode == 1
    assert "groups.yaml:6:3: " in done.stdout + done.stderr
    assert "stack.yaml:17:16: " in done.stdout + done.stderr


def test_drift_names_what_changed(sandbox: Sandbox) -> None:
    sandbox.daemon.converged(sandbox.switch(extra="{state: on, suspend: true}"))
    sandbox.docker.stop("small-cache")
    sandbox.daemon.until(lambda s: sandbox.daemon.service("cache", s)["drift"])
    done = sandbox.daemon.cli("drift")
    assert done.returncode == 0
    assert "cache" in done.stdout
    assert "stopped" in done.stdout
    assert [
        d["kind"] for d in json.loads(sandbox.daemon.cli("drift", "--output", "json").stdout)["drift"]
    ] == ["stopped"]


def test_client_command_without_a_daemon_exits_with_1(sandbox: Sandbox) -> None:
    sandbox.daemon.end()
    done = sandbox.daemon.cli("status")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert sandbox.daemon.url in done.stderr


def test_watch_restores_the_terminal(sandbox: Sandbox) -> None:
    master, slave = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "reconciler", "watch"],
            cwd=ROOT,
            env=sandbox.environ
            | {
                "SERVICE_MANAGER_URL": sandbox.daemon.url,
                "TERM": "xterm-256color",
                "COLUMNS": "100",
                "LINES": "40",
            },
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
    finally:
        os.close(slave)
    try:
        shown = until_shown(master, "", "cache")
        sandbox.docker.pause("small-cache")
        sandbox.daemon.converged(sandbox.switch(extra=False))
        shown = until_shown(master, shown, "off")
        process.send_signal(signal.SIGINT)
        # Read while waiting: a full terminal blocks the program after 4 KiB.
        rest = until_closed(master)
        assert process.wait(10) in {0, 130}
        assert "Traceback" not in shown + rest
        # The cursor and the previous screen are restored.
        screen = shown + rest
        if "\x1b[?25l" in screen:
            assert screen.rindex("\x1b[?25h") > screen.rindex("\x1b[?25l")
        if "\x1b[?1049h" in screen:
            assert "\x1b[?1049l" in screen
    finally:
        process.kill()
        process.wait(5)
        os.close(master)


def until_shown(master: int, before: str, word: str, within: float = 15.0) -> str:
    """Read the terminal until a new word appears."""
    deadline = time.monotonic() + within
    shown = ""
    while word not in shown:
        assert time.monotonic() < deadline, (before + shown)[-3000:]
        if select.select([master], [], [], 0.2)[0]:
            shown += os.read(master, 65536).decode(errors="replace")
    return before + shown


def until_closed(master: int, within: float = 15.0) -> str:
    """Return the remaining output, when the program has closed the terminal."""
    deadline = time.monotonic() + within
    shown = ""
    while time.monotonic() < deadline:
        if select.select([master], [], [], 0.2)[0]:
            try:
                shown += os.read(master, 65536).decode(errors="replace")
            except OSError:  # EIO: no process has it open any more
                break
    return shown
