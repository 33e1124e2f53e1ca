"""The pure parts of Podman's adapter, and its checks of doctor."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reconciler.engine.docker.engine import _product
from reconciler.engine.podman import address, doctor_checks
from reconciler.engine.podman.health_checks import due_at, engine_has_timers
from reconciler.errors import EngineUnavailable, ServiceManagerError
from reconciler.model.observed import EngineInfo

START = "2026-11-28T12:00:00Z"
START_SECONDS = 1795867200.0
INFO = EngineInfo("podman", "5.4.2", "1.41", "2.40.3", "unix:///s", 8_000_000_000, 4)


def inspected(interval: int = 10, ended: str = "") -> dict[str, Any]:
    log = [{"Start": ended, "End": ended, "ExitCode": 0}] if ended else None
    check = {"Test": ["CMD", "true"], "Interval": interval * 10**9}
    return {"Config": {"Healthcheck": check}, "State": {"StartedAt": START, "Health": {"Log": log}}}


def test_the_first_check_is_due_one_interval_after_the_start() -> None:
    assert due_at(inspected(), timers=False) == START_SECONDS + 10


def test_the_next_check_is_due_one_interval_after_the_end_of_the_last() -> None:
    assert due_at(inspected(ended="2026-11-28T12:01:00Z"), timers=False) == START_SECONDS + 70


def test_results_from_before_the_start_do_not_count() -> None:
    assert due_at(inspected(ended="2026-11-28T11:00:00Z"), timers=False) == START_SECONDS + 10


def test_with_timers_a_check_is_due_only_if_a_result_is_overdue() -> None:
    assert due_at(inspected(), timers=True) == START_SECONDS + 20


def test_without_an_interval_it_is_thirty_seconds() -> None:
    assert due_at(inspected(interval=0), timers=False) == START_SECONDS + 30


def test_timers_need_systemd_on_this_machine(tmp_path: Path) -> None:
    assert engine_has_timers("/s", tmp_path)
    assert not engine_has_timers("/s", tmp_path / "absent")
    # Another machine's systemd is not visible from here.
    assert engine_has_timers("", tmp_path / "absent")


@pytest.mark.parametrize(
    ("environ", "uid", "expected"),
    [
        ({"CONTAINER_HOST": "unix:///a", "DOCKER_HOST": "unix:///b"}, 0, "unix:///a"),
        ({"DOCKER_HOST": "unix:///b"}, 1000, "unix:///b"),
        ({}, 0, "unix:///run/podman/podman.sock"),
        ({}, 1000, "unix:///run/user/1000/podman/podman.sock"),
        ({"XDG_RUNTIME_DIR": "/r"}, 1000, "unix:///r/podman/podman.sock"),
    ],
)
def test_address(environ: dict[str, str], uid: int, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.engine.podman.address.os.getuid", lambda: uid)
    assert address.podman_url(environ) == expected
    assert address.as_docker_host(environ)["DOCKER_HOST"] == expected


def test_what_answers_at_a_docker_socket_is_named() -> None:
    podman = {"Version": "5.4.2", "Components": [{"Name": "Podman Engine", "Version": "5.4.2"}]}
    assert _product(podman) == ("podman", "5.4.2")
    assert _product({"Version": "28.5.2", "Components": [{"Name": "Engine"}]}) == ("docker", "28.5.2")
    assert _product({}) == ("docker", "")


@dataclass
class _Machine:
    root: Path
    environ: dict[str, str] = field(default_factory=dict)
    engine: EngineInfo | ServiceManagerError = INFO


@pytest.mark.parametrize(
    ("engine", "state"),
    [
        (INFO, "ok"),
        (INFO._replace(version="4.3.1"), "problem"),
        (INFO._replace(kind="docker", version="28.5.2"), "problem"),
        (EngineUnavailable("refused"), "problem"),
    ],
)
def test_doctor_needs_podman_5(engine: EngineInfo | ServiceManagerError, state: str, tmp_path: Path) -> None:
    check = doctor_checks.check_engine(_Machine(tmp_path, engine=engine))
    assert check.state == state
    assert bool(check.remedy) == (state != "ok")


def test_doctor_knows_who_runs_health_checks(tmp_path: Path) -> None:
    assert doctor_checks.check_health_checks(_Machine(tmp_path)).state == "warn"
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert doctor_checks.check_health_checks(_Machine(tmp_path)).state == "ok"


def test_doctor_says_how_to_start_the_service(tmp_path: Path) -> None:
    machine = _Machine(tmp_path, {"CONTAINER_HOST": f"unix://{tmp_path}/s"})
    check = doctor_checks.check_socket(machine)
    assert check.state == "problem"
    assert "systemctl enable --now podman.socket" in check.remedy
    (tmp_path / "s").touch()
    assert doctor_checks.check_socket(machine).state == "ok"
