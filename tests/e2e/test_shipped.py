"""The shipped stack of 18 services: first start, stop, restart, and Compose by hand beside the daemon.

Its health checks have intervals of 30 s, as real ones do, so a faster start proves early probes. Readiness
times come from the stand-ins' own logs. The tests share containers; each states which groups it needs.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest
from docker.errors import NotFound
from ruamel.yaml import YAML

from tests.support.harness.daemon import ROOT, Daemon, Json
from tests.support.harness.engine_recorder import SERVICE, EngineRecorder
from tests.support.harness.sandbox import Sandbox

PROJECT = "alpr"
_SWITCH = re.compile(r"^(  \w+:\s+)(?:on|off)\b", re.MULTILINE)


class Ship:
    """A copy of ``desired-state`` with the stand-ins, and a daemon on it."""

    def __init__(self, sandbox: Sandbox, folder: Any) -> None:
        self.sandbox = sandbox
        self.recorder: EngineRecorder = sandbox.recorder
        self.desired = folder / "desired-state"
        shutil.copytree(ROOT / "desired-state", self.desired)
        standin = self.desired / "compose.standin.yaml"
        self.daemon = Daemon(self.desired, folder / "state", sandbox.environ, (standin,))
        stack = YAML(typ="safe").load((self.desired / "stack.yaml").read_text())
        self.groups: dict[str, list[str]] = {n: g["services"] for n, g in stack["groups"].items()}
        self.services = [service for names in self.groups.values() for service in names]
        compose = YAML(typ="safe").load((self.desired / "compose.yaml").read_text())["services"]
        self.needs = {
            (name, needed): condition
            for name in self.services
            for needed, condition in _conditions(compose[name].get("depends_on", {}))
            if needed in self.services
        }

    def switch(self, *groups: str) -> Json:
        """Switch exactly these groups on, wait, and check the engine."""
        path = self.desired / "groups.yaml"
        text = _SWITCH.sub(
            lambda m: m[1] + ("on" if m[1].split(":")[0].strip() in groups else "off"), path.read_text()
        )
        if text != path.read_text():
            before = self.daemon.get("/services/status")["generation"]
            new = path.with_name("groups.yaml.new")
            new.write_text(text)
            new.replace(path)
            self.daemon.until(lambda s: s["generation"] > before)
        status = self.daemon.converged(within=60)
        wanted = {service for group in groups for service in self.groups[group]}
        running = {
            c["Config"]["Labels"][SERVICE]
            for c in self.recorder.containers(PROJECT)
            if c["State"]["Status"] == "running"
        }
        assert running & set(self.services) == wanted
        return status

    def ids(self) -> dict[str, str]:
        return {c["Config"]["Labels"][SERVICE]: c["Id"] for c in self.recorder.containers(PROJECT)}

    def ready_at(self, service: str) -> float:
        """When the stand-in reported ready in its latest run."""
        log = self.sandbox.docker.logs(f"alpr-{service}", timestamps=True).decode().splitlines()
        stamp = next(line.split()[0] for line in reversed(log) if line.endswith(" ready"))
        return _seconds(stamp)

    def person(self, *arguments: str) -> None:
        files = ["-f", "compose.yaml", "-f", "compose.standin.yaml", "--profile", "*"]
        done = subprocess.run(
            [self.sandbox.compose, "--ansi", "never", "--progress", "plain", *files, *arguments],
            cwd=self.desired,
            env=self.sandbox.engine.environ | {"DOCKER_BUILDKIT": "0"},
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr[-3000:]

    def close(self) -> None:
        self.daemon.kill()
        ids = [c["Id"] for c in self.recorder.containers(PROJECT)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(self._remove, ids))

    def _remove(self, id: str) -> None:
        with contextlib.suppress(NotFound):
            self.sandbox.docker.remove_container(id, force=True, v=True)


def _conditions(depends_on: Any) -> list[tuple[str, str]]:
    if isinstance(depends_on, list):
        return [(name, "service_started") for name in depends_on]
    return [(name, entry.get("condition", "service_started")) for name, entry in depends_on.items()]


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp[:26].rstrip("Z") + "+00:00").timestamp()


@pytest.fixture(scope="module")
def ship(the_sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ship]:
    the_sandbox.settle()
    the_sandbox.daemon.end()
    ship = Ship(the_sandbox, tmp_path_factory.mktemp("ship"))
    try:
        ship.person("up", "-d", "--no-deps", "tempo")
        the_sandbox.strangers = the_sandbox.others()
        ship.daemon.start()
        yield ship
    finally:
        ship.close()


@pytest.fixture(autouse=True)
def _strangers_are_left_alone(ship: Ship) -> Iterator[None]:
    yield
    after = ship.sandbox.others()
    left = {name: seen for name, seen in ship.sandbox.strangers.items() if name != "/small-stray"}
    assert left.items() <= after.items(), "tempo is in the project, but in no group"


def test_kafka_group_starts_and_pilot_is_ready(ship: Ship) -> None:
    began = time.monotonic()
    status = ship.switch("kafka")
    assert status["pilot_ready"]
    assert status["running_services"] == 3
    assert time.monotonic() - began < 30.0, "intervals are 30 s: no service waited for one"
    assert {s["name"] for s in status["unmanaged"]} >= {"tempo", "minio-init", "mlflow"}
    assert all(ship.daemon.service(name, status)["ready"] for name in ship.groups["kafka"])


def test_all_18_services_start_after_their_dependencies_are_ready(ship: Ship) -> None:
    ship.switch("kafka")
    mark = ship.recorder.mark()
    began = time.monotonic()
    status = ship.switch(*ship.groups)
    took = time.monotonic() - began
    assert took < 40.0
    assert status["running_services"] == 18
    assert status["total_services"] == 18
    started = {c["Name"][1:]: _seconds(c["State"]["StartedAt"]) for c in ship.recorder.containers(PROJECT)}
    assert len(ship.needs) > 10
    for (name, needed), condition in ship.needs.items():
        at = started[f"alpr-{name}"]
        if condition == "service_healthy":
            assert ship.ready_at(needed) < at, f"{name} was started before {needed} was ready"
        else:
            assert started[f"alpr-{needed}"] < at
    events = ship.recorder.touched(mark, PROJECT)
    assert not {e.service for e in events} & set(ship.groups["kafka"]), "running services are left alone"
    assert all([e.service for e in events if e.action == "start"].count(n) <= 1 for n in ship.services)


def test_rebuilt_query_api_is_recreated_once_and_nothing_else(ship: Ship) -> None:
    ship.switch(*ship.groups)
    ids, mark = ship.ids(), ship.recorder.mark()
    code = ship.desired / "build" / "query-api" / "marker"
    code.write_text("a change\n")
    ship.person("build", "query-api")
    ship.recorder.until(lambda e: (e.service, e.action) == ("query-api", "start"), since=mark)
    ship.daemon.converged()
    after = ship.ids()
    assert {name for name in ids if ids[name] != after[name]} == {"query-api"}
    events = ship.recorder.touched(mark, PROJECT)
    assert {e.service for e in events} == {"query-api"}
    assert [e.action for e in events].count("create") == 1


def test_compose_up_by_a_person_recreates_nothing_of_the_shipped_stack(ship: Ship) -> None:
    ship.switch(*ship.groups)
    ids, mark = ship.ids(), ship.recorder.mark()
    ship.person("create", *ship.services)
    # Compose waits for the engine's health status, which comes after a whole interval. Start only services
    # that wait for no health status here; `test_drift` covers the others.
    waiting = {name for (name, _), condition in ship.needs.items() if condition == "service_healthy"}
    ship.person("up", "-d", "--no-deps", *(name for name in ship.services if name not in waiting))
    assert ship.ids() == ids
    assert not ship.recorder.touched(mark, PROJECT)
    ship.daemon.converged()


def test_all_off_stops_in_reverse_order(ship: Ship) -> None:
    ship.switch(*ship.groups)
    mark = ship.recorder.mark()
    ship.switch()
    died = [e.service for e in ship.recorder.touched(mark, PROJECT) if e.action == "die"]
    assert sorted(died) == sorted(ship.services)
    for name, needed in ship.needs:
        assert died.index(name) < died.index(needed), f"{needed} was stopped before {name}"


def test_containers_created_by_compose_are_started_unchanged(ship: Ship) -> None:
    ship.switch()
    ship.daemon.end()
    for service in ship.services:
        ship.sandbox.docker.remove_container(f"alpr-{service}")
    ship.person("up", "--no-start", *ship.services)
    ids, mark = ship.ids(), ship.recorder.mark()
    ship.daemon.start()
    ship.switch(*ship.groups)
    assert ship.ids() == ids
    assert not [e for e in ship.recorder.touched(mark, PROJECT) if e.action in {"create", "destroy"}]
