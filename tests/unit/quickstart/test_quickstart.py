"""The decisions of `make run` for every kind of machine, and the facts that it reads from this one."""

import os
import socket
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler import package_data
from reconciler.host.ports import port_owner
from reconciler.quickstart import images, venv
from reconciler.quickstart.choose import (
    EngineChoice,
    Machine,
    choose_engine,
    images_after_lookup,
    images_without_registry,
    packages_for_engine,
    registry_problem,
)
from reconciler.quickstart.engine import (
    LONGEST_SOCKET,
    PrivateEngine,
    dockerd_arguments,
    mounts_below,
    runtime_folder,
)
from reconciler.quickstart.firewall import restore_commands
from reconciler.quickstart.host import listen_problem
from reconciler.quickstart.record import Record, read, write

ROOT = Path(__file__).resolve().parents[3]
DEFAULT = "unix:///var/run/docker.sock"
NONE = Machine(problem="No such file or directory", private_url="unix:///box/.run/engine/docker.sock")
BARE_ROOT = replace(NONE, root=True, debian=True)
WITH_DOCKER = replace(NONE, answers=True, problem="")


@pytest.mark.parametrize(
    ("machine", "engine", "reason"),
    [
        pytest.param(WITH_DOCKER, EngineChoice.FOUND, "docker uses", id="in the docker group"),
        pytest.param(
            replace(WITH_DOCKER, root=True, debian=True), EngineChoice.FOUND, "docker uses", id="root"
        ),
        pytest.param(BARE_ROOT, EngineChoice.PRIVATE, "no other answers", id="a fresh Debian, as root"),
        pytest.param(
            replace(NONE, root=True, dockerd=True),
            EngineChoice.PRIVATE,
            "private",
            id="any Linux with dockerd",
        ),
        pytest.param(
            replace(NONE, root=True), EngineChoice.NONE, "install Docker's engine", id="root elsewhere"
        ),
        pytest.param(NONE, EngineChoice.NONE, "sudo make run", id="a user, no engine"),
        pytest.param(
            replace(NONE, problem="permission denied"),
            EngineChoice.NONE,
            "usermod -aG docker",
            id="not in the group",
        ),
        pytest.param(
            replace(WITH_DOCKER, root=True, dockerd=True, private_data=True),
            EngineChoice.PRIVATE,
            "from an earlier run",
            id="the stack is already in the private engine",
        ),
        pytest.param(
            replace(WITH_DOCKER, private_data=True),
            EngineChoice.FOUND,
            "docker uses",
            id="only root can start the private engine",
        ),
        pytest.param(
            replace(BARE_ROOT, explicit=True, address="tcp://elsewhere:2375"),
            EngineChoice.NONE,
            "tcp://elsewhere:2375",
            id="an explicit engine is never replaced",
        ),
        pytest.param(
            replace(WITH_DOCKER, root=True, explicit=True, private_data=True),
            EngineChoice.FOUND,
            "docker uses",
            id="DOCKER_HOST comes before the private engine",
        ),
        pytest.param(
            replace(BARE_ROOT, explicit=True, address=NONE.private_url, private_data=True),
            EngineChoice.PRIVATE,
            "set in DOCKER_HOST",
            id="DOCKER_HOST is the private engine, which is down",
        ),
        pytest.param(
            replace(BARE_ROOT, requested="docker"), EngineChoice.NONE, "ENGINE=private", id="ENGINE=docker"
        ),
        pytest.param(
            replace(WITH_DOCKER, root=True, dockerd=True, requested="private"),
            EngineChoice.PRIVATE,
            "as requested",
            id="ENGINE=private",
        ),
        pytest.param(
            replace(NONE, requested="private"),
            EngineChoice.NONE,
            "sudo make run",
            id="ENGINE=private, a user",
        ),
        pytest.param(
            replace(NONE, requested="simulated"),
            EngineChoice.SIMULATED,
            "no container",
            id="ENGINE=simulated",
        ),
    ],
)
def test_the_engine_is_chosen(machine: Machine, engine: EngineChoice, reason: str) -> None:
    choice = choose_engine(machine)
    assert choice.engine is engine
    assert reason in choice.reason


@pytest.mark.parametrize("machine", [NONE, replace(NONE, root=True), replace(NONE, explicit=True)])
def test_no_engine_always_offers_the_simulated_one(machine: Machine) -> None:
    choice = choose_engine(machine)
    assert choice.engine is EngineChoice.NONE
    assert "make run ENGINE=simulated" in choice.reason


def test_only_missing_packages_are_installed() -> None:
    def packages(**there: bool) -> list[str]:
        facts = {"dockerd": True, "iptables": True, "docker": True, "cli_apart": False}
        return packages_for_engine(**{**facts, **there})

    assert packages() == []
    assert packages(dockerd=False) == ["docker.io", "busybox-static", "ca-certificates"]
    assert packages(iptables=False) == ["iptables"]
    assert packages(docker=False) == []
    assert packages(docker=False, cli_apart=True) == ["docker-cli"]


@pytest.mark.parametrize(
    ("forced", "remembered", "missing", "standin"),
    [
        ("1", False, [], True),
        ("0", True, ["a"], False),
        ("", True, [], True),
        ("", False, ["a"], False),
        ("", None, [], False),
        ("", None, ["a"], None),
    ],
)
def test_images_are_chosen_without_a_registry(
    forced: str, remembered: bool | None, missing: list[str], standin: bool | None
) -> None:
    decision = images_without_registry(forced, remembered, missing)
    assert (decision.standin if decision else None) is standin


def test_images_are_chosen_by_the_registry_lookup() -> None:
    real = images_after_lookup(["a:1"], "a:1", "")
    assert not real.standin
    assert "1 image will be pulled" in real.reason
    none = images_after_lookup(["a:1", "b:1"], "a:1", "no such host")
    assert none.standin
    assert "2 images missing, and the engine can't get a:1 (no such host)" in none.reason


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (
            'Get "https://hub.example/v2/": dial tcp: lookup hub.example on 192.0.2.53: no such host',
            "lookup hub.example on 192.0.2.53: no such host",
        ),
        ("x509: certificate signed by unknown authority", "x509: certificate signed by unknown authority"),
        (
            "toomanyrequests: You have reached your pull rate limit.",
            "the registry's limit of pulls is reached",
        ),
        ("manifest unknown: manifest unknown", ""),
        ("pull access denied, requested access to the resource is denied", ""),
        ("unauthorized: authentication required", ""),
        ("", "no answer"),
    ],
)
def test_a_registry_that_answers_is_no_reason_for_stand_ins(message: str, problem: str) -> None:
    assert registry_problem(message) == problem


def test_images_of_groups_that_are_on_come_first_and_built_ones_are_left_out() -> None:
    needed = images.needed(ROOT / "desired-state")
    assert needed[:3] == [
        "confluentinc/cp-zookeeper:7.5.0",
        "confluentinc/cp-kafka:7.5.0",
        "confluentinc/cp-schema-registry:7.5.0",
    ]
    assert len(needed) == len(set(needed))
    assert not [image for image in needed if image.startswith("alpr/")]


@pytest.mark.parametrize(
    "broken", ["", "groups: [", "name: x\ngroups: 1\ncompose: [nowhere.yaml]\n", "- 1\n"]
)
def test_broken_files_need_no_images(tmp_path: Path, broken: str) -> None:
    for name in ("stack.yaml", "groups.yaml"):
        (tmp_path / name).write_text(broken)
    assert images.needed(tmp_path) == []


def test_sockets_get_a_short_folder_if_their_paths_are_too_long(tmp_path: Path) -> None:
    assert runtime_folder(Path("/srv/box/.run/engine")) == Path("/srv/box/.run/engine")
    deep = Path("/srv") / ("x" * 100) / ".run/engine"
    short = runtime_folder(deep)
    assert short != deep
    assert short == runtime_folder(deep)
    assert short != runtime_folder(deep / "y")
    assert len(f"{short}/exec/containerd/containerd.sock.ttrpc") <= LONGEST_SOCKET


def test_a_private_engine_leaves_the_firewall_alone_beside_another_engine() -> None:
    engine = PrivateEngine(Path("/box/.run/engine"), Path("/box/.run/engine"))
    alone = dockerd_arguments(engine, alone=True, address="192.0.2.7")
    assert "--iptables=false" not in alone
    assert alone[alone.index("--bridge") + 1] == "none"
    assert "--iptables=false" in dockerd_arguments(engine, alone=False, address="192.0.2.7")


def test_a_reused_pid_is_not_the_engine(tmp_path: Path) -> None:
    engine = PrivateEngine(tmp_path, tmp_path)
    assert engine.pid == 0
    (tmp_path / "pid").write_text(str(os.getpid()))
    assert engine.pid == 0


def test_mounts_below_a_folder_are_listed_innermost_first() -> None:
    table = "\n".join(
        f"{n} 1 0:1 / {point} rw - ext4 /dev/a rw"
        for n, point in enumerate(
            ["/", "/box/.run/engine/data", "/box/.run/engine/data/a\\040b", "/box/.run/engine2"]
        )
    )
    expected = ["/box/.run/engine/data/a b", "/box/.run/engine/data"]
    assert mounts_below(table, (Path("/box/.run/engine"),)) == expected


def test_the_firewall_is_restored_without_the_rules_of_users() -> None:
    before = ["-P FORWARD ACCEPT", "-A INPUT -p tcp -j ACCEPT"]
    now = [
        "-P FORWARD DROP",
        "-N DOCKER",
        "-N DOCKER-USER",
        "-A INPUT -p tcp -j ACCEPT",
        "-A FORWARD -j DOCKER-USER",
        "-A FORWARD -o br-1 -j DOCKER",
        "-A DOCKER-USER -j RETURN",
        "-A INPUT -s 192.0.2.9/32 -j DROP",
    ]
    assert [" ".join(command) for command in restore_commands(before, now)] == [
        "-P FORWARD ACCEPT",
        "-D FORWARD -j DOCKER-USER",
        "-D FORWARD -o br-1 -j DOCKER",
        "-F DOCKER",
        "-F DOCKER-USER",
        "-X DOCKER",
        "-X DOCKER-USER",
    ]
    theirs = [*now, "-A DOCKER-USER -s 192.0.2.9/32 -j DROP"]
    assert not [command for command in restore_commands(before, theirs) if "DOCKER-USER" in command]
    assert restore_commands(now, now) == []


def test_a_taken_port_is_reported_with_its_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert f"(pid {os.getpid()})" in port_owner(port)
        assert listen_problem("127.0.0.1", port).startswith("taken by ")
    assert listen_problem("127.0.0.1", port) == ""


def test_the_record_is_saved_and_a_damaged_one_reads_as_empty(tmp_path: Path) -> None:
    record = Record(engines={DEFAULT: True}, daemon_pid=7, daemon_url="http://127.0.0.1:8000")
    write(tmp_path / ".run", record)
    assert read(tmp_path / ".run") == record
    (tmp_path / ".run" / "quickstart.json").write_text('{"engines": ')
    assert read(tmp_path / ".run") == Record()


def test_the_environment_is_remade_when_its_inputs_change(tmp_path: Path) -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    digest = venv.inputs(pyproject.encode(), ROOT, tmp_path)

    def same(text: str, project: Path = ROOT, environment: Path = tmp_path) -> bool:
        return venv.inputs(text.encode(), project, environment) == digest

    assert same(pyproject.replace("line-length = 110", "line-length = 111"))
    assert not same(pyproject.replace('"pydantic>=2.9', '"pydantic>=2.10'))
    assert not same(pyproject, project=tmp_path)
    assert not same(pyproject, environment=tmp_path / "moved")
    digests = set()
    for lock in ("", "a==1\n", "a==2\n"):
        (tmp_path / "requirements.lock").write_text(lock)
        digests.add(venv.inputs(pyproject.encode(), tmp_path, tmp_path))
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("stamp", "wanted", "extras"),
    [
        ("", ["compose"], ["compose"]),
        ("cut off {", ["compose"], ["compose"]),
        ('{"inputs": "now", "extras": ["compose"]}', ["compose"], None),
        ('{"inputs": "now", "extras": ["compose", "test"]}', ["compose"], None),
        ('{"inputs": "now", "extras": ["compose"]}', ["test"], ["compose", "test"]),
        ('{"inputs": "before", "extras": ["compose"]}', ["compose"], ["compose"]),
    ],
)
def test_extras_accumulate(stamp: str, wanted: list[str], extras: list[str] | None) -> None:
    assert venv.missing_extras(stamp, "now", wanted) == extras


def test_a_folder_that_is_no_environment_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(venv.SetupError, match="stays as it is"):
        venv.ensure(tmp_path, [])
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_a_checkout_is_its_own_shipped_data() -> None:
    assert package_data.desired_state() == ROOT / "desired-state"
    assert package_data.dashboard() == ROOT / "dashboard"


def test_every_package_is_named_in_the_build() -> None:
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = [
        ".".join(folder.parent.relative_to(ROOT).parts)
        for top in ("reconciler", "api")
        for folder in (ROOT / top).rglob("__init__.py")
    ]
    wheel = [name for name in there if name != "reconciler.quickstart"]  # a developer's tool
    assert sorted(wheel) == sorted(name for name in named if "shipped" not in name)
