"""Faults from PITFALLS.md, by row, on a real engine."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import random
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from docker.errors import APIError

from reconciler.daemon.run import DEADLINE
from tests.chaos.harness import shims_of
from tests.e2e.test_failures import saved, with_cache
from tests.support.harness.daemon import PROGRAM, ROOT, Json, service_of
from tests.support.harness.engine_proxy import AtCall, Call
from tests.support.harness.engine_recorder import PROJECT as PROJECT_LABEL
from tests.support.harness.engine_recorder import SERVICE
from tests.support.harness.sandbox import COMPOSE, GROUP_NAMES, GROUP_OF, PROJECT, STANDIN, Sandbox

STARTS = {"db", "migrate", "api", "worker", "web", "edge", "cache"}


def in_container(sandbox: Sandbox, service: str, command: str) -> str:
    made = sandbox.docker.exec_create(f"{PROJECT}-{service}", ["sh", "-c", command])["Id"]
    return str(sandbox.docker.exec_start(made).decode())


@pytest.mark.pitfall(3)
def test_row_3_environment_of_the_daemon_recreates_nothing(sandbox: Sandbox) -> None:
    sandbox.daemon.converged(sandbox.edit("compose.yaml", "COLOUR: blue", "COLOUR: ${SHADE:-plain}"))
    ids, mark = sandbox.ids(), sandbox.recorder.mark()
    sandbox.daemon.end()
    sandbox.daemon.environ["SHADE"] = "green"
    try:
        sandbox.daemon.start()
        sandbox.daemon.converged(sandbox.on_disk())
        sandbox.person("create")
        sandbox.daemon.converged()
    finally:
        del sandbox.daemon.environ["SHADE"]
        sandbox.daemon.end()
    assert sandbox.ids() == ids
    assert not sandbox.recorder.touched(mark, PROJECT)


@pytest.mark.timeout(600)
@pytest.mark.pitfall(6)
def test_row_6_interrupted_recreation_ends_with_one_container_and_its_volumes(sandbox: Sandbox) -> None:
    in_container(sandbox, "cache", "echo kept > /data/mark; echo kept > /scratch/mark")
    # Kill Compose at its first request to the engine, then at the second, until it finishes earlier.
    for offset in itertools.count(1):
        made: list[Call] = []
        dead = threading.Event()

        def kill(
            call: Call, made: list[Call] = made, dead: threading.Event = dead, offset: int = offset
        ) -> None:
            if call.by_compose and not dead.is_set():
                made.append(call)
                if len(made) == offset:
                    os.kill(call.pid, signal.SIGKILL)
                    dead.set()

        before = int(sandbox.daemon.get("/services/status")["generation"])
        with sandbox.proxy.hooked(kill):
            sandbox.save(
                "compose.yaml",
                COMPOSE.replace(
                    "    container_name: small-cache\n",
                    f"    container_name: small-cache\n    labels: {{offset: '{offset}'}}\n",
                ),
            )
            generation = sandbox.next_generation(before)
            sandbox.daemon.converged(generation)
        sandbox.is_true()
        assert sandbox.one("cache")["Config"]["Labels"]["offset"] == str(offset)
        assert in_container(sandbox, "cache", "cat /data/mark /scratch/mark") == "kept\nkept\n", offset
        if not dead.is_set():
            break
    assert offset > 10
    names = [name for c in sandbox.docker.containers(all=True) for name in c["Names"] if "cache" in name]
    assert names == ["/small-cache"]


@pytest.mark.pitfall(7)
def test_row_7_compose_that_outlives_its_daemon_is_waited_for(sandbox: Sandbox) -> None:
    sandbox.daemon.converged(sandbox.switch(base=False, app=False, front=False, extra=False))
    for service in STARTS:
        sandbox.docker.remove_container(f"small-{service}")
    mark = sandbox.recorder.mark()
    orphan: list[int] = []
    others: list[int] = []
    killed = threading.Event()

    def outlive(call: Call) -> str | None:
        if not call.by_compose:
            return None
        if not orphan and call.path == "/containers/create":
            orphan.append(call.pid)
            sandbox.daemon.signal(signal.SIGKILL)
            killed.set()
        if orphan and call.pid != orphan[0]:
            others.append(call.pid)
        return "hold" if orphan and call.pid == orphan[0] else None

    with sandbox.proxy.hooked(outlive):
        sandbox.save("groups.yaml", "groups: {base: on, app: on, front: on, extra: on}\n")
        assert killed.wait(20)
        sandbox.daemon.kill()
        sandbox.daemon.start()
        sandbox.daemon.until(lambda s: sandbox.daemon.service("db", s)["step"] == "create")
        # The new daemon has containers to create while the old Compose is still running.
        os.kill(orphan[0], 0)
        # A second Compose would start within this time.
        time.sleep(0.5)
        assert not others
        sandbox.proxy.release()
        sandbox.daemon.converged()
    sandbox.is_true()
    created = [e.service for e in sandbox.recorder.touched(mark, PROJECT) if e.action == "create"]
    # The one-shot has completed before, and does not run again.
    assert sorted(created) == sorted(STARTS - {"migrate"})
    assert sandbox.networks() == ["small_inner", "small_outer"]


@pytest.mark.pitfall(8)
def test_row_8_parallel_creation_without_networks_creates_one_of_each(sandbox: Sandbox) -> None:
    for _ in range(3):
        sandbox.daemon.end()
        for name in sandbox.ids():
            sandbox.docker.remove_container(f"small-{name}", force=True)
        for name in sandbox.networks():
            sandbox.docker.remove_network(name)
        sandbox.daemon.start()
        sandbox.daemon.converged(within=90)
        sandbox.is_true()
        assert sandbox.networks() == ["small_inner", "small_outer"]


@pytest.mark.pitfall(9, 10)
def test_rows_9_and_10_unreachable_engine_is_reported_and_causes_no_action(sandbox: Sandbox) -> None:
    mark = sandbox.recorder.mark()
    with sandbox.proxy.hidden():
        status = sandbox.daemon.until(lambda s: not s["engine"]["reachable"])
        assert status["engine"]["since"]
        assert status["engine"]["error"]
        # Files are still read.
        before = status["generation"]
        sandbox.save(
            "groups.yaml", (sandbox.desired / "groups.yaml").read_text().replace("extra: on", "extra: off")
        )
        generation = sandbox.next_generation(before)
        answers = reads(sandbox, seconds=10)
        assert sandbox.daemon.get("/healthz")["status"] == "ok"
        assert not sandbox.recorder.touched(mark, PROJECT)
    sandbox.daemon.converged(generation)
    assert slow_reads(answers) < 1.0
    sandbox.is_true({"base", "app", "front"})
    touched = {(e.service, e.action) for e in sandbox.recorder.touched(mark, PROJECT)}
    assert {service for service, _ in touched} == {"cache"}


def test_daemon_started_before_its_engine_serves_at_once_and_converges_later(
    sandbox: Sandbox,
) -> None:
    sandbox.daemon.end()
    sandbox.docker.stop("small-edge")
    with sandbox.proxy.hidden():
        sandbox.daemon.start()
        # The files are read before the engine is contacted.
        status = sandbox.daemon.until(
            lambda s: s["generation"] and "no engine at" in (s["engine"]["error"] or "")
        )
        assert not status["engine"]["reachable"]
        assert set(status["groups"]) == set(GROUP_NAMES)
        assert sandbox.daemon.get("/healthz")["status"] == "ok"
    sandbox.daemon.converged()
    sandbox.is_true()


@pytest.mark.pitfall(10, 15)
def test_rows_9_and_10_frozen_engine_blocks_no_reader_and_causes_no_wrong_action(sandbox: Sandbox) -> None:
    sandbox.daemon.end()
    sandbox.daemon.start(resync=0.5)
    sandbox.daemon.converged()
    mark = sandbox.recorder.mark()
    with sandbox.engine.frozen():
        answers = reads(sandbox, seconds=10)
        status = sandbox.daemon.until(lambda s: not s["engine"]["reachable"], within=60)
        assert "does not answer" in status["engine"]["error"]
    sandbox.daemon.until(lambda s: s["engine"]["reachable"])
    sandbox.daemon.converged()
    sandbox.is_true()
    assert not sandbox.recorder.touched(mark, PROJECT)
    assert slow_reads(answers) < 1.0, sorted(answers)[-5:]
    # Repairs continue afterwards.
    sandbox.docker.kill("small-edge")
    sandbox.recorder.until(lambda e: (e.service, e.action) == ("edge", "start"), since=mark)


def slow_reads(took: list[float]) -> float:
    """The 99th percentile: the machine may delay single reads, the engine none."""
    return sorted(took)[int(len(took) * 0.99)]


def reads(sandbox: Sandbox, seconds: float) -> list[float]:
    """Measure the duration of reads for a while."""
    took = []
    end = time.monotonic() + seconds
    while (began := time.monotonic()) < end:
        sandbox.daemon.get("/services/status", timeout=5)
        took.append(time.monotonic() - began)
        time.sleep(0.02)
    return took


@pytest.mark.pitfall(12, 13)
@pytest.mark.parametrize("way", ["stopped", "stopped again", "killed"])
def test_rows_11_and_13_engine_restart_during_converging_is_recovered(sandbox: Sandbox, way: str) -> None:
    sandbox.daemon.converged(sandbox.switch(base=False, app=False, front=False, extra=False))
    ids, mark = sandbox.ids(), sandbox.recorder.mark()
    generation = sandbox.switch()
    middle = {"stopped": "db", "stopped again": "worker", "killed": "api"}[way]
    sandbox.recorder.until(lambda e: (e.service, e.action) == (middle, "start"), since=mark)
    sandbox.restart_engine(kill=way == "killed")
    sandbox.daemon.until(lambda s: s["engine"]["reachable"])
    sandbox.daemon.converged(generation)
    sandbox.is_true()
    assert sandbox.ids() == ids
    # Events arrive again: drift is repaired long before the next resync.
    mark = sandbox.recorder.mark()
    sandbox.docker.kill("small-edge")
    sandbox.recorder.until(lambda e: (e.service, e.action) == ("edge", "start"), since=mark)
    # The subscription requests no past events: the engine may have lost them.
    queries = [c.query for c in sandbox.proxy.calls if c.path == "/events" and "until" not in c.query]
    assert queries
    assert not any("since" in query for query in queries)


@pytest.mark.pitfall(23, 25)
def test_container_made_unstartable_by_an_engine_stop_is_recreated(sandbox: Sandbox) -> None:
    """A start during the engine's stop fails permanently with `task … already exists`."""
    id = sandbox.one("cache")["Id"]
    sandbox.daemon.end()
    with socket.socket(socket.AF_UNIX) as kept:
        kept.connect(str(sandbox.engine.socket))
        kept.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
        assert kept.recv(4096)
        mark = sandbox.recorder.mark()
        ending = threading.Thread(target=sandbox.restart_engine)
        ending.start()
        # The engine stops accepting connections first, but still executes calls on open ones.
        sandbox.recorder.until(lambda e: (e.service, e.action) == ("cache", "die"), since=mark)
        start = f"POST /containers/{id}/start HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n"
        # If this test was delayed, the engine is gone by now.
        with contextlib.suppress(OSError):
            kept.sendall(start.encode())
        ending.join(60)
    try:
        sandbox.daemon.start()
        sandbox.daemon.converged()
        sandbox.is_true()
    finally:
        bury(id)


def bury(container: str) -> None:
    """Kill the shim of a container that its engine no longer knows."""
    for found in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = found.read_bytes().split(b"\0")
            if b"shim" in words[0] and container.encode() in words:
                os.kill(int(found.parent.name), signal.SIGKILL)


@pytest.mark.pitfall(25)
def test_row_25_container_whose_network_is_gone_is_recreated(sandbox: Sandbox) -> None:
    sandbox.daemon.converged(sandbox.switch(front=False, app=False))
    ids, mark = sandbox.ids(), sandbox.recorder.mark()
    sandbox.docker.disconnect_container_from_network("small-api", f"{PROJECT}_outer", force=True)
    sandbox.docker.remove_network(f"{PROJECT}_outer")
    sandbox.daemon.converged(sandbox.switch())
    sandbox.is_true()
    made = [e.service for e in sandbox.recorder.touched(mark, PROJECT) if e.action == "create"]
    assert sorted(made) == ["api", "edge", "web"]
    assert {name for name, id in sandbox.ids().items() if id == ids[name]} == STARTS - set(made)


@pytest.mark.pitfall(25)
def test_row_25_container_whose_network_goes_before_its_first_start_is_recreated(sandbox: Sandbox) -> None:
    sandbox.daemon.converged(sandbox.switch(front=False, app=False))
    for service in ("api", "web", "edge"):
        sandbox.docker.remove_container(f"{PROJECT}-{service}")

    def take_away(_: Call) -> None:
        sandbox.docker.remove_network(f"{PROJECT}_outer")

    sandbox.proxy.hook = AtCall(1, lambda call: is_start_of(sandbox, call, "api"), take_away)
    mark = sandbox.recorder.mark()
    sandbox.daemon.converged(sandbox.switch())
    sandbox.is_true()
    made = [e.service for e in sandbox.recorder.touched(mark, PROJECT) if e.action == "create"]
    # A container not started yet finds the new network by its name.
    assert sorted(made) == ["api", "api", "edge", "web"]


def is_start_of(sandbox: Sandbox, call: Call, service: str) -> bool:
    return call.path == f"/containers/{sandbox.ids().get(service)}/start"


@pytest.mark.pitfall(17)
def test_row_17_service_that_is_off_is_stopped_soon_after_an_engine_restart(
    sandbox: Sandbox,
) -> None:
    off = {"base": False, "app": False, "front": False, "extra": False}
    sandbox.daemon.converged(sandbox.switch(**off))
    # With policy `always` the engine starts it, however it was stopped (moby#11008).
    mark = sandbox.recorder.mark()
    sandbox.docker.start("small-worker")
    sandbox.recorder.until(lambda e: (e.service, e.action) == ("worker", "die"), since=mark)
    sandbox.restart_engine()
    sandbox.daemon.until(lambda s: s["engine"]["reachable"])
    sandbox.is_true((), within=20.0)
    sandbox.daemon.converged()
    assert set(GROUP_OF.values()) == set(GROUP_NAMES)


@pytest.mark.pitfall(11)
def test_row_11_changes_during_dropped_events_are_found_with_the_next_event(
    sandbox: Sandbox,
) -> None:
    number, took = 0, 0.0
    with sandbox.daemon.stopped():
        # For a subscriber that stopped reading, the engine waits a tenth of a second, then drops the event.
        while took < 0.09:
            began = time.monotonic()
            sandbox.docker.tag(STANDIN, "small/noise", f"{'x' * 120}{number % 2}")
            number, took = number + 1, time.monotonic() - began
            assert number < 5000
        for service in ("cache", "edge"):
            sandbox.docker.kill(f"small-{service}")
    sandbox.is_true(within=10.0)
    sandbox.daemon.converged()
    for last in range(2):
        sandbox.docker.remove_image(f"small/noise:{'x' * 120}{last}")


@pytest.mark.pitfall(15)
def test_row_15_stuck_container_delays_no_other(sandbox: Sandbox) -> None:
    shim = shims_of(sandbox.engine)[sandbox.one("cache")["Id"]]
    os.kill(shim, signal.SIGSTOP)
    try:
        # A stop that never ends.
        generation = sandbox.switch(extra=False)
        for service in ("edge", "worker"):
            mark = sandbox.recorder.mark()
            sandbox.docker.kill(f"small-{service}")
            sandbox.recorder.until(
                lambda e, service=service: (e.service, e.action) == (service, "start"),  # type: ignore[misc]
                since=mark,
                within=40.0,
            )
        assert slow_reads(reads(sandbox, seconds=2)) < 1.0
        assert sandbox.daemon.get(f"/services/progress/{generation}")["state"] == "progressing"
    finally:
        os.kill(shim, signal.SIGCONT)
    sandbox.daemon.converged(generation)
    sandbox.is_true({"base", "app", "front"})


@pytest.mark.pitfall(19, 42)
def test_row_19_concurrent_removals_succeed_and_remove_nothing_foreign(sandbox: Sandbox) -> None:
    sandbox.daemon.converged(sandbox.edit("stack.yaml", "name: small\n", "name: small\nprune: true\n"))
    host = sandbox.docker.create_host_config(network_mode="none")
    own = {PROJECT_LABEL: PROJECT}
    strangers = [
        sandbox.stranger("stranger-without-service", own),
        sandbox.stranger("stranger-run-once", own | {SERVICE: "former", "com.docker.compose.oneoff": "True"}),
    ]
    ids, mark, log_start = sandbox.ids(), sandbox.recorder.mark(), len(sandbox.daemon.log())
    with sandbox.daemon.stopped():
        labels = [own | {SERVICE: f"former-{n}"} for n in range(100)]
        made = [sandbox.docker.create_container(STANDIN, labels=each, host_config=host) for each in labels]
        several = [each["Id"] for each in made]
    random.Random(19).shuffle(several)
    for id in several:
        with contextlib.suppress(APIError):
            sandbox.docker.remove_container(id)
    sandbox.recorder.look_until(
        lambda: {c["Id"] for c in sandbox.docker.containers(all=True)} & set(several), lambda left: not left
    )
    sandbox.daemon.until(lambda s: not s["orphans"])
    sandbox.daemon.converged()
    touched = sandbox.recorder.touched(mark)
    assert {e.id for e in touched} == set(several)
    assert sum(e.action == "destroy" for e in touched) == 100
    assert sandbox.ids() == ids
    assert "Traceback" not in sandbox.daemon.log()[log_start:]
    for id in strangers:
        assert sandbox.docker.inspect_container(id)["State"]["Running"]
        sandbox.docker.remove_container(id, force=True)


@pytest.mark.pitfall(22)
def test_row_22_paused_container_is_not_restarted_as_unhealthy(sandbox: Sandbox) -> None:
    sandbox.edit(
        "stack.yaml", "    services: [cache]\n", "    services: [cache]\n    unhealthy: {after: 8s}\n"
    )
    check = "healthcheck: {test: [CMD, curl, x], interval: 500ms, timeout: 9s, retries: 1}"
    sandbox.daemon.converged(saved(sandbox, with_cache(check)))
    sandbox.daemon.converged(sandbox.switch(extra="{state: on, suspend: true}"))
    started = sandbox.one("cache")["State"]["StartedAt"]
    sandbox.docker.pause("small-cache")
    # The engine keeps probing without an answer (moby#46203).
    sandbox.recorder.look_until(
        lambda: sandbox.one("cache")["State"]["Health"]["Status"], lambda health: health == "unhealthy"
    )
    status = sandbox.daemon.until(lambda s: "paused" in service_of(s, "cache")["drift"])
    assert "unhealthy" not in service_of(status, "cache")["drift"]
    assert service_of(status, "cache")["status"] == "paused"
    sandbox.daemon.converged(sandbox.switch())
    sandbox.recorder.look_until(
        lambda: sandbox.one("cache")["State"]["Health"]["Status"], lambda health: health == "healthy"
    )
    sandbox.daemon.converged()
    assert sandbox.one("cache")["State"]["StartedAt"] == started


@pytest.mark.pitfall(23)
def test_row_23_success_without_effect_is_reported_and_retried_with_back_off(
    sandbox: Sandbox,
) -> None:
    def lie(call: Call) -> str | None:
        return "lie" if call.path.endswith("/start") and "/exec/" not in call.path else None

    def has_no_effect(status: Json) -> bool:
        return service_of(status, "cache")["reason"] == "no_effect"

    mark = sandbox.proxy.mark()
    with sandbox.proxy.hooked(lie):
        sandbox.docker.kill("small-cache")
        status = sandbox.daemon.until(has_no_effect)
        assert service_of(status, "cache")["phase"] == "degraded"
        assert "restart Docker" in service_of(status, "cache")["message"]
    sandbox.daemon.converged()
    sandbox.is_true()
    assert sum(call.path.endswith("/start") for call in sandbox.proxy.changes_since(mark)) < 8


@pytest.mark.pitfall(41)
def test_row_41_fifty_subscribers_do_not_delay_the_shutdown(sandbox: Sandbox) -> None:
    readers = [
        http.client.HTTPConnection("127.0.0.1", int(sandbox.daemon.url.rpartition(":")[2])) for _ in range(50)
    ]
    try:
        for number, reader in enumerate(readers):
            reader.request("GET", "/services/logs/cache?follow=true" if number < 3 else "/services/events")
        for reader in readers:
            assert reader.getresponse().status == 200
        code, took = sandbox.daemon.end()
        assert (code, took < DEADLINE - 1) == (0, True), took
    finally:
        for reader in readers:
            reader.close()


@pytest.mark.pitfall(43)
def test_row_43_log_follow_continues_after_rotation(sandbox: Sandbox) -> None:
    rotating = 'logging: {driver: json-file, options: {max-size: 1k, max-file: "30"}}'
    sandbox.daemon.converged(saved(sandbox, with_cache(rotating)))
    words = [*PROGRAM, "logs", "cache", "--follow", "--url", sandbox.daemon.url]
    follower = subprocess.Popen(words, cwd=ROOT, env=sandbox.environ, stdout=subprocess.PIPE, text=True)
    try:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "starting\n"
        script = "n=0; while [ $n -lt 100 ]; do n=$((n+1)); echo line $n; sleep 0.01; done >/proc/1/fd/1"
        in_container(sandbox, "cache", script)
        lines = [follower.stdout.readline() for _ in range(101)]
    finally:
        follower.kill()
        follower.communicate()
    assert lines == ["ready\n", *(f"line {n}\n" for n in range(1, 101))]
