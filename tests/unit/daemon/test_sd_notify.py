"""Notifications that the daemon sends, on a real socket like systemd's."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.controller.loop import Loop
from reconciler.controller.loop_hooks import LoopHooks, LoopTimings
from reconciler.controller.progress import Progress
from reconciler.controller.snapshot import EngineView, GroupView, ServiceView, Snapshot, SnapshotPublisher
from reconciler.daemon.sd_notify import Notifier, ReadinessNotifier, status_line
from reconciler.engine.simulated.engine import SimulatedEngine
from reconciler.errors import Mistake
from tests.support.fixtures.virtual_time import run_virtually
from tests.support.harness.daemon import free_port

ROOT = Path(__file__).resolve().parents[3]


class Manager:
    """The socket that systemd would listen on."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{self.address[1:]}" if self.address.startswith("@") else self.address)
        self._heard: list[str] = []

    def heard(self) -> list[str]:
        """All messages so far."""
        self._socket.setblocking(False)
        while True:
            try:
                self._heard.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return self._heard

    def wait_for(self, start: str, within: float = 60.0, after: int = 0) -> int:
        """The index of the first message with this prefix."""
        deadline = time.monotonic() + within
        while True:
            for place, message in enumerate(self.heard()):
                if place >= after and message.startswith(start):
                    return place
            left = deadline - time.monotonic()
            assert left > 0, f"no {start} in {self._heard}"
            self._socket.settimeout(left)
            try:
                self._heard.append(self._socket.recv(4096).decode())
            except TimeoutError:
                continue

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


def snapshot(*, on: int = 1, ready: int = 1, **fields: object) -> Snapshot:
    services = tuple(ServiceView(name=f"s{number}", ready=number < ready) for number in range(2))
    groups = {
        name: GroupView(
            name=name,
            description="",
            desired=number < on,
            force=False,
            status="",
            phase="",
            reason="",
            message="",
            services=services,
            running=0,
            memory=0,
            estimate=0,
        )
        for number, name in enumerate(("first", "second"))
    }
    known = Snapshot(
        generation=3, groups=groups, engine=EngineView(reachable=True), progress=Progress(generation=3)
    )
    return replace(known, **fields)  # type: ignore[arg-type]


# --- the protocol ---


def test_without_a_listener_nothing_is_sent(tmp_path: Path) -> None:
    for notifier in (Notifier.from_environment({}), Notifier(str(tmp_path / "nobody"))):
        notifier.ready()
        notifier.status("x")
        notifier.stopping()
        notifier.close()
    assert not Notifier.from_environment({}).has_socket


def test_the_variables_are_removed_so_that_no_child_sends_notifications(manager: Manager) -> None:
    environ = {
        "NOTIFY_SOCKET": manager.address,
        "WATCHDOG_USEC": "30000000",
        "WATCHDOG_PID": str(os.getpid()),
    }
    notifier = Notifier.from_environment(environ)
    assert environ == {}
    assert (notifier.watchdog, notifier.beat) == (30.0, 10.0)
    notifier.alive()
    notifier.close()
    assert manager.heard() == ["WATCHDOG=1"]


@pytest.mark.parametrize(
    "environ",
    [{}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"}],
)
def test_the_watchdog_of_another_process_is_not_fed(manager: Manager, environ: dict[str, str]) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": manager.address, **environ})
    assert (notifier.watchdog, notifier.beat) == (None, float("inf"))
    notifier.alive()
    notifier.close()
    assert manager.heard() == []


def test_an_abstract_socket_works() -> None:
    manager = Manager(Path(f"@service-manager-test-{os.getpid()}"))
    notifier = Notifier(manager.address)
    notifier.ready()
    assert manager.heard() == ["READY=1"]
    notifier.close()
    manager.close()


def test_a_reload_carries_the_monotonic_time(manager: Manager) -> None:
    notifier = Notifier(manager.address)
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    first, second = manager.heard()[0].split("\n")
    assert first == "RELOADING=1"
    name, _, value = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(value) <= time.monotonic_ns() // 1000
    notifier.close()


def test_a_status_is_one_line_and_sent_once(manager: Manager) -> None:
    notifier = Notifier(manager.address)
    for text in ("one\nREADY=1", "one  READY=1", "two"):
        notifier.status(text)
    assert manager.heard() == ["STATUS=one READY=1", "STATUS=two"]
    notifier.close()


def test_a_manager_that_does_not_read_delays_nothing(manager: Manager) -> None:
    notifier = Notifier(manager.address, watchdog=1.0)
    began = time.monotonic()
    for _ in range(5000):
        notifier.alive()
    assert time.monotonic() - began < 5.0
    notifier.close()


# --- which notification is sent when ---


async def test_ready_needs_the_files_a_server_and_a_pass(manager: Manager) -> None:
    done = False
    notifier, snapshots = Notifier(manager.address, watchdog=10.0), SnapshotPublisher()
    announcer = ReadinessNotifier(notifier, snapshots, done=lambda: done)
    task = asyncio.create_task(announcer.run())
    announcer.on_heartbeat()
    announcer.files_read()
    announcer.serving()
    announcer.on_heartbeat()
    await asyncio.sleep(0)
    assert "READY=1" not in manager.heard()
    done = True
    snapshots.publish(snapshot())
    announcer.on_heartbeat()
    while "READY=1" not in manager.heard():
        await asyncio.sleep(0)
    assert manager.heard()[-2].startswith("STATUS=generation 3 in progress")
    assert manager.heard().count("WATCHDOG=1") == 3
    snapshots.publish(snapshot(converged=True, observed_generation=3))
    while not manager.heard()[-1].startswith("STATUS=generation 3 converged"):
        await asyncio.sleep(0)
    announcer.stopping()
    async with announcer.reload():
        pass
    snapshots.publish(snapshot(generation=4))
    await asyncio.sleep(0)
    assert manager.heard()[-1] == "STOPPING=1"
    task.cancel()
    notifier.close()


async def test_a_reload_during_the_start_does_not_end_the_start(manager: Manager) -> None:
    notifier = Notifier(manager.address)
    announcer = ReadinessNotifier(notifier, SnapshotPublisher(), done=lambda: False)
    async with announcer.reload():
        pass
    assert not [message for message in manager.heard() if message.startswith("READY")]
    notifier.close()


def test_an_idle_loop_sends_heartbeats_and_a_hanging_one_does_not() -> None:
    async def scenario() -> None:
        beats: list[float] = []
        clock = asyncio.get_running_loop().time
        loop = Loop(
            SimulatedEngine(wall=lambda: 0.0),
            SnapshotPublisher(),
            wall=lambda: 0.0,
            chance=lambda: 0.5,
            timings=LoopTimings(resync=600.0, beat=10.0),
            hooks=LoopHooks(on_heartbeat=lambda: beats.append(clock())),
        )
        task = asyncio.create_task(loop.run())
        await asyncio.sleep(65.0)
        assert len(beats) == 7
        never = asyncio.get_running_loop().create_future()
        loop._pass = lambda: never  # type: ignore[method-assign, assignment, return-value]
        loop.wake("hang")
        await asyncio.sleep(100.0)
        # The rest of the process continues, as this test does.
        assert len(beats) == 7
        task.cancel()

    run_virtually(scenario())


# --- the status line ---


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"converged": True, "observed_generation": 3},
            "generation 3 converged, 1 of 2 services ready, 1 of 2 groups on",
        ),
        (
            {"progress": Progress(generation=3, done=1, total=4)},
            "generation 3 in progress, 1 of 4 steps, 1 of 2 services ready, 1 of 2 groups on",
        ),
        (
            {"progress": Progress(generation=3, state="degraded")},
            "generation 3 degraded, 1 of 2 services ready, 1 of 2 groups on",
        ),
        (
            {"engine": EngineView(error="no such file")},
            "the engine can't be reached: no such file; generation 3 in progress, 1 of 2 services ready, "
            "1 of 2 groups on",
        ),
        (
            {"errors": (Mistake("groups.yaml", 2, 1, "no"),), "generation": 0, "groups": {}},
            "the desired state is not valid: groups.yaml:2:1: no",
        ),
        ({"generation": 0, "groups": {}}, "waits for a desired state"),
    ],
)
def test_the_status_line_shows_the_progress(fields: dict[str, object], line: str) -> None:
    assert status_line(snapshot(**fields)) == line


# --- the daemon ---


@pytest.mark.parametrize("valid", [True, False], ids=["no engine", "files not valid"])
def test_the_daemon_is_ready_also_without_an_engine_or_a_desired_state(
    manager: Manager, tmp_path: Path, valid: bool
) -> None:
    desired = tmp_path / "desired"
    desired.mkdir()
    (desired / "compose.yaml").write_text("services: {one: {image: one}}\n")
    (desired / "stack.yaml").write_text(
        "name: small\ncompose: [compose.yaml]\ngroups: {all: {services: [one], memory: 1MB}}\n"
    )
    (desired / "groups.yaml").write_text("groups: {all: on}\n" if valid else "groups: {}\n")
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "DOCKER_HOST": f"unix://{tmp_path}/nobody",
        "NOTIFY_SOCKET": manager.address,
        "WATCHDOG_USEC": "3000000",
    }
    where = ["--desired-state", str(desired), "--state-dir", str(tmp_path / "state")]
    daemon = subprocess.Popen(
        [sys.executable, "-m", "reconciler", "run", *where, "--port", str(free_port())], env=environ, cwd=ROOT
    )
    try:
        ready = manager.wait_for("READY=1")
        told = manager.heard()[ready - 1]
        assert told.startswith(
            "STATUS=the engine can't be reached" if valid else "STATUS=the desired state is"
        )
        # It has nothing to do for a minute, and still sends heartbeats.
        for _ in range(3):
            ready = manager.wait_for("WATCHDOG=1", after=ready) + 1
        daemon.send_signal(signal.SIGHUP)
        reloading = manager.wait_for("RELOADING=1\nMONOTONIC_USEC=")
        manager.wait_for("READY=1", after=reloading)
        daemon.terminate()
        assert daemon.wait(15) == 0
        manager.wait_for("STOPPING=1")
    finally:
        daemon.kill()
        daemon.wait(10)
