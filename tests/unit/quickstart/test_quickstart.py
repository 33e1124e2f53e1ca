"""What `make run` decides on every kind of machine, and how it looks at the one that it is on."""

import os
import socket
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler import package_data
from reconciler.quickstart import images, venv
from reconciler.quickstart.choose import (
    EngineChoice,
    Machine,
    choose_engine,
    images_by_registry,
    packages_for_engine,
    registry_problem,
    settled_images,
)
from reconciler.quickstart.engine import LONGEST_SOCKET, PrivateEngine, arguments, mounts_below, runtime_of
from reconciler.quickstart.firewall import orders
from reconciler.quickstart.host import holder_of, why_not_listen
from reconciler.quickstart.record import Record, read, write

ROOT = Path(__file__).resolve().parents[3]
DEFAULT = "unix:///var/run/docker.sock"
NONE = Machine(why_not="No such file or directory", private_url="unix:///box/.run/engine/docker.sock")
BARE_ROOT = replace(NONE, root=True, debian=True)
WITH_DOCKER = replace(NONE, answers=True, why_not="")


@pytest.mark.parametrize(
    ("machine", "use", "says"),
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
            replace(NONE, why_not="permission denied"),
            EngineChoice.NONE,
            "usermod -aG docker",
            id="not in the group",
        ),
        pytest.param(
            replace(WITH_DOCKER, root=True, dockerd=True, private_data=True),
            EngineChoice.PRIVATE,
            "from an earlier run",
            id="the stack is in the private engine already",
        ),
        pytest.param(
            replace(WITH_DOCKER, private_data=True), EngineChoice.FOUND, "docker uses", id="only root can"
        ),
        pytest.param(
            replace(BARE_ROOT, chosen=True, address="tcp://elsewhere:2375"),
            EngineChoice.NONE,
            "tcp://elsewhere:2375",
            id="an engine that somebody chose is not passed over",
        ),
        pytest.param(
            replace(WITH_DOCKER, root=True, chosen=True, private_data=True),
            EngineChoice.FOUND,
            "docker uses",
            id="DOCKER_HOST goes before the private engine",
        ),
        pytest.param(
            replace(BARE_ROOT, chosen=True, address=NONE.private_url, private_data=True),
            EngineChoice.PRIVATE,
            "as DOCKER_HOST says",
            id="DOCKER_HOST is the private engine, which is down",
        ),
        pytest.param(
            replace(BARE_ROOT, wanted="docker"), EngineChoice.NONE, "ENGINE=private", id="ENGINE=docker"
        ),
        pytest.param(
            replace(WITH_DOCKER, root=True, dockerd=True, wanted="private"),
            EngineChoice.PRIVATE,
            "as asked",
            id="ENGINE=private",
        ),
        pytest.param(
            replace(NONE, wanted="private"), EngineChoice.NONE, "sudo make run", id="ENGINE=private, a user"
        ),
        pytest.param(
            replace(NONE, wanted="simulated"), EngineChoice.SIMULATED, "no container", id="ENGINE=simulated"
        ),
    ],
)
def test_the_engine_is_chosen(machine: Machine, use: EngineChoice, says: str) -> None:
    choice = choose_engine(machine)
    assert choice.use is use
    assert says in choice.why


@pytest.mark.parametrize("machine", [NONE, replace(NONE, root=True), replace(NONE, chosen=True)])
def test_no_engine_always_offers_the_simulated_one(machine: Machine) -> None:
    choice = choose_engine(machine)
    assert choice.use is EngineChoice.NONE
    assert "make run ENGINE=simulated" in choice.why


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
def test_images_are_settled_without_a_registry(
    forced: str, remembered: bool | None, missing: list[str], standin: bool | None
) -> None:
    decision = settled_images(forced, remembered, missing)
    assert (decision.standin if decision else None) is standin


def test_images_by_what_the_registry_says() -> None:
    real = images_by_registry(["a:1"], "a:1", "")
    assert not real.standin
    assert "1 image will be pulled" in real.why
    none = images_by_registry(["a:1", "b:1"], "a:1", "no such host")
    assert none.standin
    assert "2 images missing, and the engine can't get a:1 (no such host)" in none.why


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


def test_images_of_groups_that_are_on_come_first_and_built_ones_not_at_all() -> None:
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
def test_files_that_are_broken_are_the_daemons_business(tmp_path: Path, broken: str) -> None:
    for name in ("stack.yaml", "groups.yaml"):
        (tmp_path / name).write_text(broken)
    assert images.needed(tmp_path) == []


def test_sockets_move_where_their_paths_would_be_too_long(tmp_path: Path) -> None:
    assert runtime_of(Path("/srv/box/.run/engine")) == Path("/srv/box/.run/engine")
    deep = Path("/srv") / ("x" * 100) / ".run/engine"
    short = runtime_of(deep)
    assert short != deep
    assert short == runtime_of(deep)
    assert short != runtime_of(deep / "y")
    assert len(f"{short}/exec/containerd/containerd.sock.ttrpc") <= LONGEST_SOCKET


def test_a_private_engine_keeps_off_the_firewall_where_another_is() -> None:
    engine = PrivateEngine(Path("/box/.run/engine"), Path("/box/.run/engine"))
    alone = arguments(engine, alone=True, address="192.0.2.7")
    assert "--iptables=false" not in alone
    assert alone[alone.index("--bridge") + 1] == "none"
    assert "--iptables=false" in arguments(engine, alone=False, address="192.0.2.7")


def test_a_pid_that_another_process_has_by_now_is_not_the_engines(tmp_path: Path) -> None:
    engine = PrivateEngine(tmp_path, tmp_path)
    assert engine.pid == 0
    (tmp_path / "pid").write_text(str(os.getpid()))
    assert engine.pid == 0


def test_mounts_are_found_the_innermost_first_and_no_others() -> None:
    table = "\n".join(
        f"{n} 1 0:1 / {point} rw - ext4 /dev/a rw"
        for n, point in enumerate(
            ["/", "/box/.run/engine/data", "/box/.run/engine/data/a\\040b", "/box/.run/engine2"]
        )
    )
    expected = ["/box/.run/engine/data/a b", "/box/.run/engine/data"]
    assert mounts_below(table, (Path("/box/.run/engine"),)) == expected


def test_the_firewall_gets_back_what_it_had_and_keeps_what_people_added() -> None:
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
    assert [" ".join(order) for order in orders(before, now)] == [
        "-P FORWARD ACCEPT",
        "-D FORWARD -j DOCKER-USER",
        "-D FORWARD -o br-1 -j DOCKER",
        "-F DOCKER",
        "-F DOCKER-USER",
        "-X DOCKER",
        "-X DOCKER-USER",
    ]
    theirs = [*now, "-A DOCKER-USER -s 192.0.2.9/32 -j DROP"]
    assert not [order for order in orders(before, theirs) if "DOCKER-USER" in order]
    assert orders(now, now) == []


def test_a_port_that_is_taken_is_told_with_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert f"(pid {os.getpid()})" in holder_of(port)
        assert why_not_listen("127.0.0.1", port).startswith("taken by ")
    assert why_not_listen("127.0.0.1", port) == ""


def test_the_record_survives_and_a_broken_one_is_an_empty_one(tmp_path: Path) -> None:
    record = Record(engines={DEFAULT: True}, daemon_pid=7, daemon_url="http://127.0.0.1:8000")
    write(tmp_path / ".run", record)
    assert read(tmp_path / ".run") == record
    (tmp_path / ".run" / "quickstart.json").write_text('{"engines": ')
    assert read(tmp_path / ".run") == Record()


def test_the_environment_is_made_again_when_it_must(tmp_path: Path) -> None:
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
def test_extras_add_up(stamp: str, wanted: list[str], extras: list[str] | None) -> None:
    assert venv.missing_extras(stamp, "now", wanted) == extras


def test_a_folder_that_is_no_environment_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(venv.Unprepared, match="stays as it is"):
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
