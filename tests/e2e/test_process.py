"""The daemon as a process: killed, without an engine, stopped by signals, started twice."""

from __future__ import annotations

import contextlib
import random
import signal
import statistics
import subprocess
import threading
import time

import pytest
from docker.errors import NotFound

from reconciler.daemon.run import DEADLINE
from tests.support.harness.daemon import ROOT, Json, free_port
from tests.support.harness.engine_proxy import AtCall, Call
from tests.support.harness.sandbox import COMPOSE, GROUP_NAMES, PROJECT, Sandbox, groups_yaml

KILLS = 25
ROUNDS = {
    "all off": {"base": False, "app": False, "front": False, "extra": False},
    "all on": {},
    "half": {"front": False, "extra": False},
    "one": {"app": False, "front": False, "extra": False},
}


def is_over(status: Json, before: int) -> bool:
    return status["converged"] and status["observed_generation"] == status["generation"] > before


@pytest.mark.pitfall(6, 7, 8)
@pytest.mark.timeout(600)
def test_daemon_killed_at_any_moment_ends_converged_with_one_container_each(sandbox: Sandbox) -> None:
    chance = random.Random(25)
    generation = sandbox.daemon.get("/services/status")["generation"]
    colour, before = 0, None
    for number in range(KILLS):
        states = ROUNDS[chance.choice(list(ROUNDS))]
        if chance.random() < 0.5 or states is before:
            colour += 1
        before = states
        dead = threading.Event()

        def kill(_: Call, dead: threading.Event = dead) -> None:
            sandbox.daemon.signal(signal.SIGKILL)
            dead.set()

        with sandbox.proxy.hooked(AtCall(chance.randint(1, 30), lambda _: True, kill)):
            sandbox.save("compose.yaml", COMPOSE.replace("blue", f"shade-{colour}"))
            sandbox.save("groups.yaml", groups_yaml(**states))
            if chance.random() < 0.3:
                with contextlib.suppress(NotFound):
                    sandbox.docker.remove_container("small-edge", force=True)
            # Also kill it after the last call.
            while not (dead.wait(0.02) or is_over(sandbox.daemon.status, generation)):
                pass
            sandbox.daemon.kill()
        sandbox.daemon.start()
        status = sandbox.daemon.converged(sandbox.on_disk())
        sandbox.is_true({name for name in GROUP_NAMES if states.get(name, True)})
        assert status["generation"] >= generation, f"round {number}"
        generation = status["generation"]
    networks = sandbox.networks()
    assert len(networks) == len(set(networks))


def test_second_daemon_on_the_same_directory_or_state_refuses_to_start(sandbox: Sandbox) -> None:
    other = sandbox.folder / "other"
    (other / "state").mkdir(parents=True, exist_ok=True)
    (other / "desired").mkdir(parents=True, exist_ok=True)
    for desired, state in ((sandbox.desired, other / "state"), (other / "desired", sandbox.folder / "state")):
        words = sandbox.daemon.command("run", "--port", str(free_port()))
        words[words.index("--desired-state") + 1] = str(desired)
        words[words.index("--state-dir") + 1] = str(state)
        done = subprocess.run(
            words, env=sandbox.environ, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False
        )
        assert done.returncode == 1, done.stderr
        taken = sandbox.desired if desired is sandbox.desired else sandbox.folder / "state"
        assert f"already uses {taken}" in done.stderr
        assert "Traceback" not in done.stderr
    sandbox.daemon.converged()


def test_edit_reaches_the_engine(
    sandbox: Sandbox, record_property: pytest.RecordProperty, capsys: pytest.CaptureFixture[str]
) -> None:
    took = []
    for number in range(11):
        states = {"extra": number % 2 == 1}
        came = threading.Event()
        with sandbox.proxy.hooked(lambda _, came=came: came.set()):  # type: ignore[misc]
            text = groups_yaml(**states)
            mark = sandbox.proxy.mark()
            came.clear()
            began = time.monotonic()
            sandbox.save("groups.yaml", text)
            assert came.wait(10)
        calls = [call for call in sandbox.proxy.calls[mark:] if call.path == "/containers/json"]
        took.append((calls[0] if calls else sandbox.proxy.calls[mark]).at - began)
        sandbox.daemon.until(
            lambda s, on=states["extra"]: s["groups"]["extra"]["desired"] == ("on" if on else "off")
        )  # type: ignore[misc]
        sandbox.daemon.converged()
    median = statistics.median(took)
    record_property("edit_to_first_call_ms", round(median * 1000, 1))
    with capsys.disabled():
        print(f"\n  from saving groups.yaml to the first engine call: median {median * 1000:.0f} ms ", end="")
    assert median < 1.0


def test_sigterm_exits_with_0_and_leaves_containers_running(sandbox: Sandbox) -> None:
    mark = sandbox.recorder.mark()
    code, took = sandbox.daemon.end()
    assert code == 0
    assert took < DEADLINE - 1
    assert not sandbox.recorder.touched(mark, PROJECT)
    sandbox.is_true()
    sandbox.daemon.start()
    sandbox.daemon.signal(signal.SIGINT)
    assert sandbox.daemon.wait_for_exit() == 0


def test_sigterm_during_converging_ends_in_time_and_the_next_start_continues(sandbox: Sandbox) -> None:
    sandbox.daemon.converged(sandbox.switch(base=False, app=False, front=False, extra=False))
    mark = sandbox.recorder.mark()
    sandbox.switch()
    sandbox.recorder.until(lambda e: e.action == "start", since=mark)
    code, took = sandbox.daemon.end()
    assert (code, took < DEADLINE - 1) == (0, True), took
    sandbox.daemon.start()
    sandbox.daemon.converged()
    sandbox.is_true()


@pytest.mark.pitfall(14)
def test_sigterm_with_a_frozen_engine_ends_in_time(sandbox: Sandbox) -> None:
    mark = sandbox.recorder.mark()
    with sandbox.engine.frozen():
        # Cause calls that the frozen engine never answers.
        sandbox.switch(extra=False)
        sandbox.daemon.until(lambda s: s["groups"]["extra"]["phase"] == "progressing")
        code, took = sandbox.daemon.end()
    assert (code, took < DEADLINE - 1) == (0, True), took
    assert {e.service for e in sandbox.recorder.touched(mark, PROJECT)} <= {"cache"}


def test_sighup_reads_the_files_again(sandbox: Sandbox) -> None:
    sandbox.save("groups.yaml", "groups: {}\n")
    sandbox.daemon.until(lambda s: s["errors"])
    for _ in range(2):
        before = sandbox.daemon.log().count("is not valid")
        sandbox.daemon.signal(signal.SIGHUP)
        sandbox.recorder.look_until(sandbox.daemon.log, lambda log, n=before: log.count("is not valid") > n)  # type: ignore[misc]
    assert sandbox.daemon.running
