"""``doctor``: each check against a simulated machine."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli.doctor import checks as doctor
from reconciler.cli.doctor import host_checks
from reconciler.cli.doctor.checks import run_checks
from reconciler.cli.doctor.context import CheckContext
from reconciler.cli.oneshot import NoDirectory
from reconciler.desired_state.store import LoadedState
from reconciler.engine.compose import doctor_checks as compose_checks
from reconciler.engine.compose.discovery import Compose
from reconciler.engine.docker import doctor_checks as docker_checks
from reconciler.errors import EngineUnavailable, InvalidDesiredState, Mistake, StepFailed
from reconciler.model.desired import Desired, GroupState
from reconciler.model.diagnosis import Check
from reconciler.model.observed import EngineInfo
from reconciler.model.resolved_compose import Resolved
from reconciler.model.stack import Group, Pilot, Stack
from tests.support.fixtures.stub_server import a_daemon, run_cli

INFO = EngineInfo("docker", "28.2.2", "1.44", "2.40.3", "unix:///x", 8 * 10**9, 4)


def machine(tmp_path: Path, **known: Any) -> CheckContext:
    """A machine with the given properties; ``engine`` and ``loaded`` are not requested."""
    fields = {name: known.pop(name) for name in list(known) if name in CheckContext.__dataclass_fields__}
    values = {
        "desired_state": tmp_path / "ds",
        "state_dir": tmp_path / "state",
        "environ": {},
        "root": tmp_path,
    }
    result = CheckContext(**{**values, **fields})
    # Fill the cached properties.
    vars(result).update({"engine": INFO, "loaded": loaded(), **known})
    return result


def loaded(on: int = 0, off: int = 0, warnings: tuple[str, ...] = ()) -> LoadedState:
    groups = {
        "a": Group(name="a", services=(), memory=on),
        "b": Group(name="b", services=(), memory=off),
    }
    stack = Stack(name="x", groups=groups, services={}, pilot=Pilot(memory=10**8), warnings=warnings)
    desired = Desired(groups={"a": GroupState(on=True), "b": GroupState(on=False)})
    return LoadedState(stack, desired, "r", {}, Resolved(b"{}", {}, "2.40.3"))


def write(root: Path, path: str, text: str) -> None:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


# --- the engine ---------------------------------------------------------------------------------------


def socket_at(path: Path) -> dict[str, str]:
    return {"DOCKER_HOST": f"unix://{path}"}


def test_existing_socket(tmp_path: Path) -> None:
    (tmp_path / "docker.sock").touch()
    assert (
        docker_checks.check_socket(machine(tmp_path, environ=socket_at(tmp_path / "docker.sock"))).state
        == "ok"
    )
    assert (
        docker_checks.check_socket(machine(tmp_path, environ={"DOCKER_HOST": "tcp://box:2375"})).state == "ok"
    )


def test_missing_socket(tmp_path: Path) -> None:
    result = docker_checks.check_socket(machine(tmp_path, environ=socket_at(tmp_path / "docker.sock")))
    assert result.state == "problem"
    assert "apt install docker.io" in result.remedy


@pytest.mark.parametrize(
    ("members", "remedy"),
    [
        (["other"], "`sudo usermod -aG docker tester`"),
        (["tester"], "log out and in"),
        (None, "groupadd docker"),
    ],
)
def test_socket_without_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: list[str] | None, remedy: str
) -> None:
    (tmp_path / "docker.sock").touch()

    def group(_: str) -> Any:
        if members is None:
            raise KeyError
        return type("Entry", (), {"gr_mem": members})

    monkeypatch.setattr("reconciler.engine.docker.doctor_checks.os.access", lambda *_: False)
    monkeypatch.setattr("reconciler.engine.docker.doctor_checks.getpass.getuser", lambda: "tester")
    monkeypatch.setattr("reconciler.engine.docker.doctor_checks.grp.getgrnam", group)
    result = docker_checks.check_socket(machine(tmp_path, environ=socket_at(tmp_path / "docker.sock")))
    assert result.state == "problem"
    assert "tester may not use" in result.message
    assert remedy in result.remedy


@pytest.mark.pitfall(38)
def test_engine(tmp_path: Path) -> None:
    assert docker_checks.check_engine(machine(tmp_path)).message == "docker 28.2.2, API 1.44, 4 CPUs"
    old = docker_checks.check_engine(machine(tmp_path, engine=INFO._replace(version="19.03.1")))
    assert old.state == "warn"
    silent = docker_checks.check_engine(machine(tmp_path, engine=EngineUnavailable("refused")))
    assert (silent.state, silent.message) == ("problem", "does not answer: refused")


def test_engine_is_requested(tmp_path: Path) -> None:
    environ = {"DOCKER_HOST": f"unix://{tmp_path}/missing.sock", "PATH": ""}
    result = CheckContext(desired_state=tmp_path, state_dir=tmp_path, environ=environ)
    assert docker_checks.check_engine(result).state == "problem"


@pytest.mark.parametrize(
    ("version", "state"),
    [("2.40.3", "ok"), ("5.5.0", "ok"), ("2.27.0", "warn"), ("2.24.0", "problem"), ("2.40.1", "problem")],
)
def test_compose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, state: str) -> None:
    monkeypatch.setattr(compose_checks, "find_compose", lambda _: Compose("/bin/x", version, "plugin"))
    result = compose_checks.check_compose(machine(tmp_path))
    assert (result.state, bool(result.remedy)) == (state, state != "ok")


def test_missing_compose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: object) -> Compose:
        raise StepFailed("no Docker Compose result: install the plugin", "compose_missing")

    monkeypatch.setattr(compose_checks, "find_compose", none)
    result = compose_checks.check_compose(machine(tmp_path))
    assert result == Check("compose", "problem", "no Docker Compose result", "install the plugin")


# --- the files ----------------------------------------------------------------------------------------


def test_files(tmp_path: Path) -> None:
    assert doctor.check_files(machine(tmp_path)).state == "ok"
    assert doctor.check_files(machine(tmp_path, loaded=loaded(warnings=("odd",)))).state == "warn"
    mistakes = (Mistake("groups.yaml", 3, 1, "unknown group"), Mistake("stack.yaml", 1, 1, "x"))
    bad = doctor.check_files(machine(tmp_path, loaded=InvalidDesiredState(mistakes)))
    assert bad.state == "problem"
    assert "groups.yaml:3:1: unknown group (and 1 more)" in bad.message
    none = doctor.check_files(machine(tmp_path, loaded=NoDirectory(tmp_path)))
    assert none.state == "problem"
    assert "service-manager init" in none.remedy


# --- the host -----------------------------------------------------------------------------------------


def test_free_port(tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    assert host_checks.check_port(machine(tmp_path, port=port)).state == "ok"


def test_port_used_by_a_service_manager(tmp_path: Path) -> None:
    with a_daemon() as daemon:
        daemon.get("/healthz", {"status": "ok", "version": "9.9"})
        port = int(daemon.url.rpartition(":")[2])
        result = host_checks.check_port(machine(tmp_path, port=port))
    assert result.state == "ok"
    assert "a service-manager 9.9 answers" in result.message


def test_port_used_by_another_program(tmp_path: Path) -> None:
    with a_daemon() as daemon:
        daemon.get("/healthz", {"status": "ok"})
        port = int(daemon.url.rpartition(":")[2])
        result = host_checks.check_port(machine(tmp_path, port=port, root=Path("/")))
    assert result.state == "problem"
    assert f"(pid {os.getpid()})" in result.message
    assert "--port" in result.remedy


def test_address_of_another_machine(tmp_path: Path) -> None:
    result = host_checks.check_port(machine(tmp_path, host="192.0.2.1"))
    assert (result.state, "no address of this machine" in result.message) == ("problem", True)
    assert host_checks.check_port(machine(tmp_path, host="nowhere.invalid")).state == "problem"


@pytest.mark.parametrize(("on", "state"), [(10**9, "ok"), (7_300_000_000, "warn"), (9 * 10**9, "problem")])
def test_memory(tmp_path: Path, on: int, state: str) -> None:
    result = host_checks.check_memory(machine(tmp_path, loaded=loaded(on=on, off=5 * 10**9)))
    assert result.state == state
    assert f"about {(on + 10**8) // 10**6} MB for the groups that are on" in result.message


def test_memory_of_this_host_without_an_engine(tmp_path: Path) -> None:
    write(tmp_path, "/proc/meminfo", "MemTotal:        8000000 kB\nMemFree: 1 kB\n")
    silent = EngineUnavailable("x")
    result = host_checks.check_memory(machine(tmp_path, engine=silent, loaded=silent))
    assert result == Check("memory", "ok", "8192 MB")
    (tmp_path / "proc/meminfo").unlink()
    assert host_checks.check_memory(machine(tmp_path, engine=silent)).state == "warn"


@pytest.mark.parametrize(
    ("path", "text", "state", "words"),
    [
        ("/sys/fs/cgroup/cgroup.controllers", "cpu io memory pids\n", "ok", "version 2, with"),
        ("/sys/fs/cgroup/cgroup.controllers", "cpu io pids\n", "warn", "version 2, without"),
        ("/proc/cgroups", "#subsys_name\nmemory\t4\t90\t1\n", "ok", "version 1, with"),
        ("/proc/cgroups", "memory\t4\t90\t0\n", "warn", "version 1, without"),
        ("/proc/none", "", "warn", "no cgroup"),
    ],
)
def test_cgroup(tmp_path: Path, path: str, text: str, state: str, words: str) -> None:
    write(tmp_path, path, text)
    result = host_checks.check_cgroup(machine(tmp_path))
    assert (result.state, words in result.message) == (state, True)
    assert bool(result.remedy) == (state != "ok")


def test_git(tmp_path: Path) -> None:
    assert host_checks.check_git(machine(tmp_path, environ={"PATH": str(tmp_path)})).state == "warn"
    assert host_checks.check_git(machine(tmp_path, environ=dict(os.environ))).state == "ok"


@pytest.mark.parametrize(
    ("watches", "instances", "state", "remedy"),
    [
        (65536, 128, "ok", ""),
        (1024, 128, "warn", "fs.inotify.max_user_watches=65536"),
        (65536, 8, "warn", "fs.inotify.max_user_instances=512"),
    ],
)
def test_inotify(tmp_path: Path, watches: int, instances: int, state: str, remedy: str) -> None:
    write(tmp_path, "/proc/sys/fs/inotify/max_user_watches", f"{watches}\n")
    write(tmp_path, "/proc/sys/fs/inotify/max_user_instances", f"{instances}\n")
    result = host_checks.check_inotify(machine(tmp_path))
    assert (result.state, remedy in result.remedy) == (state, True)


@pytest.mark.pitfall(29)
def test_inotify_used_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "fs.inotify.max_user_watches is used up: raise it with sysctl"
    write(tmp_path, "/proc/sys/fs/inotify/max_user_watches", "65536\n")
    write(tmp_path, "/proc/sys/fs/inotify/max_user_instances", "128\n")
    monkeypatch.setattr("reconciler.cli.doctor.host_checks.watch_problem", lambda _: reason)
    result = host_checks.check_inotify(machine(tmp_path))
    assert result.state == "warn"
    assert reason in result.message
    assert result.remedy


def test_missing_inotify(tmp_path: Path) -> None:
    assert host_checks.check_inotify(machine(tmp_path)).state == "warn"


def test_state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "does not exist yet" in host_checks.check_state(machine(tmp_path)).message
    (tmp_path / "state").mkdir()
    assert host_checks.check_state(machine(tmp_path)) == Check("state directory", "ok", f"{tmp_path}/state")
    monkeypatch.setattr("reconciler.cli.doctor.host_checks.os.access", lambda *_: False)
    assert host_checks.check_state(machine(tmp_path)).state == "warn"
    (tmp_path / "file").touch()
    assert host_checks.check_state(machine(tmp_path, state_dir=tmp_path / "file/x")).state == "problem"


@pytest.mark.parametrize(("free", "state"), [(50, "ok"), (5, "warn"), (0.5, "problem")])
def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, state: str) -> None:
    usage = type("Usage", (), {"free": int(free * 10**9), "total": 100 * 10**9})
    requested: list[Path] = []

    def disk_usage(path: Path) -> Any:
        requested.append(path)
        return usage

    monkeypatch.setattr("reconciler.cli.doctor.host_checks.shutil.disk_usage", disk_usage)
    (tmp_path / "data").mkdir()
    write(tmp_path, "/etc/docker/daemon.json", json.dumps({"data-root": str(tmp_path / "data")}))
    result = host_checks.check_disk(machine(tmp_path))
    assert (result.state, bool(result.remedy)) == (state, state != "ok")
    assert requested == [tmp_path / "data", tmp_path]


# --- all together -------------------------------------------------------------------------------------


def test_failed_check_does_not_stop_the_others(tmp_path: Path) -> None:
    def check_this_one(_: CheckContext) -> Check:
        raise ZeroDivisionError("oh")

    def check_good(_: CheckContext) -> Check:
        return Check("good", "ok", "well")

    checks: list[Callable[[CheckContext], Check]] = [check_this_one, check_good]
    result = run_checks(machine(tmp_path), checks)
    assert result[0] == Check(
        "this one", "warn", "could not be checked: ZeroDivisionError: oh", "please report it"
    )
    assert result[1].name == "good"


def test_every_problem_and_warning_has_a_remedy(tmp_path: Path) -> None:
    silent = EngineUnavailable("x")
    bare = machine(tmp_path, engine=silent, loaded=NoDirectory(tmp_path), environ=socket_at(tmp_path / "no"))
    result = run_checks(bare)
    assert len(result) == len(doctor.all_checks())
    assert [check.name for check in result if check.state != "ok" and not check.remedy] in ([], ["inotify"])


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = [Check("engine", "ok", "fine"), Check("port 8000", "problem", "in use", "free it")]
    monkeypatch.setattr("reconciler.cli.commands.doctor.run_checks", lambda _: checks)
    ran = run_cli("doctor")
    assert (ran.code, ran.out) == (
        1,
        "✓ engine     fine\n✗ port 8000  in use\n             → free it\n\n1 problem, 0 warnings.\n",
    )
    as_json = run_cli("doctor", "--output", "json")
    assert as_json.code == 1
    assert json.loads(as_json.out) == {"ok": False, "checks": [check._asdict() for check in checks]}
    checks[1] = Check("git", "warn", "none", "install it")
    assert run_cli("doctor").code == 0
