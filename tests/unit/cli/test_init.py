"""``init``: writes a valid desired-state directory for Compose files as projects have them.

Docker Compose resolves the files; the engine is simulated.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli.init.groups import propose_groups
from reconciler.cli.init.init import InitRefused, InitResult, scaffold
from reconciler.cli.init.text import quoted
from reconciler.cli.oneshot import load
from reconciler.desired_state.store import LoadedState
from reconciler.engine.simulated.engine import SimulatedEngine
from reconciler.errors import InvalidDesiredState
from reconciler.model.observed import Container, State
from reconciler.model.stack import Condition, Dependency, Service
from tests.support.fixtures.stub_server import run_cli


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> SimulatedEngine:
    """The engine that reports running containers; empty unless a test adds some."""
    simulated = SimulatedEngine()

    @asynccontextmanager
    async def open_engine(_: str) -> AsyncIterator[SimulatedEngine]:
        yield simulated

    monkeypatch.setattr("reconciler.cli.init.init.open_engine", open_engine)
    return simulated


async def written_for(
    tmp_path: Path, compose: str, name: str = "compose.yaml"
) -> tuple[InitResult, LoadedState]:
    (tmp_path / name).write_text(compose)
    before = sorted(tmp_path.rglob("*"))
    outcome = await scaffold(tmp_path / name, tmp_path / "desired-state")
    loaded = await load(tmp_path / "desired-state")
    # Every service is in one group, and no file of the project has changed.
    assert set(loaded.stack.group_of) == set(loaded.stack.services)
    written = {tmp_path / "desired-state", *(tmp_path / "desired-state").iterdir()}
    assert sorted(set(tmp_path.rglob("*")) - written) == before
    return outcome, loaded


def groups(loaded: LoadedState) -> dict[str, list[str]]:
    return {name: sorted(group.services) for name, group in loaded.stack.groups.items()}


def edges(loaded: LoadedState) -> dict[str, list[str]]:
    all_edges = {name: sorted(group.depends_on) for name, group in loaded.stack.groups.items()}
    return {name: needs for name, needs in all_edges.items() if needs}


SHOP = """
name: shop
x-common: &common
  restart: unless-stopped
  networks: [back]
services:
  db:
    <<: *common
    image: postgres:16
    mem_limit: 512m
    env_file: [./db.env]
    healthcheck: {test: [CMD, pg_isready], interval: 5s}
  cache:
    <<: *common
    image: redis:7
    deploy: {resources: {limits: {memory: 128M}}}
  web:
    image: shop/web:${TAG:-latest}
    networks: [front, back]
    depends_on:
      db: {condition: service_healthy}
      cache: {condition: service_started}
  mailhog:
    image: mailhog/mailhog
    profiles: [dev]
    networks: [back]
  adminer:
    image: adminer
    profiles: [dev, debug]
    depends_on: [db]
    networks: [back]
  backup:
    image: shop/backup
    profiles: [ops]
    depends_on:
      db: {condition: service_healthy, restart: true}
      mailhog: {condition: service_started, required: false}
    networks: [back]
networks: {front: {}, back: {internal: true}}
"""


async def test_replica_numbers_other_than_one_are_noted(tmp_path: Path) -> None:
    compose = tmp_path / "compose.yaml"
    compose.write_text(
        "services:\n"
        "  web: {image: i, scale: 3}\n"
        "  seed: {image: i, deploy: {replicas: '${SEED:-0}'}}\n"
        "  db: {image: i}\n"
    )
    outcome = await scaffold(compose, tmp_path / "desired-state")
    assert {"web: 3 replicas", "seed: scaled to zero"} <= set(outcome.notes)
    assert not any(note.startswith("db:") for note in outcome.notes)


async def test_profiles_dependencies_and_limits(tmp_path: Path) -> None:
    (tmp_path / "db.env").write_text("POSTGRES_PASSWORD=secret\n")
    outcome, loaded = await written_for(tmp_path, SHOP)
    assert loaded.stack.name == "shop"
    assert groups(loaded) == {
        "core": ["cache", "db", "web"],
        "dev": ["adminer", "mailhog"],
        "ops": ["backup"],
    }
    # `required: false` makes no dependency.
    assert edges(loaded) == {"dev": ["core"], "ops": ["core"]}
    assert loaded.stack.groups["core"].services[-1] == "web"
    # 512 MiB and 128 MiB are limits, web is a guess.
    assert loaded.stack.groups["core"].memory == 772_000_000
    assert not any(state.on for state in loaded.desired.groups.values())
    assert (outcome.groups, outcome.services) == (3, 6)
    assert any("adminer: in several profiles" in note for note in outcome.notes)
    text = (tmp_path / "desired-state/stack.yaml").read_text()
    assert "compose: [../compose.yaml]" in text
    assert "100MB of it a guess for web" in text
    assert "secret" not in text


async def test_extends_and_include(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/base.yaml").write_text("services:\n  base: {image: app:1, environment: {A: '1'}}\n")
    (tmp_path / "parts/queue.yaml").write_text(
        "services:\n  rabbit: {image: rabbitmq}\n  feeder: {image: feeder, depends_on: [rabbit]}\n"
    )
    compose = """
include: [parts/queue.yaml]
services:
  api: {extends: {file: parts/base.yaml, service: base}, depends_on: [rabbit]}
  worker: {extends: {service: api}}
  lonely: {image: cron}
"""
    _, loaded = await written_for(tmp_path, compose)
    assert groups(loaded) == {"api": ["api", "feeder", "rabbit", "worker"], "standalone": ["lonely"]}


async def test_services_without_dependencies(tmp_path: Path) -> None:
    _, loaded = await written_for(tmp_path, "services:\n  a: {image: a}\n  b: {image: b}\n")
    assert groups(loaded) == {"core": ["a", "b"]}


async def test_connected_services_are_named_after_the_program_not_its_database(tmp_path: Path) -> None:
    compose = """
services:
  nextcloud: {image: n, depends_on: [mariadb, redis]}
  mariadb: {image: m}
  redis: {image: r}
  grafana: {image: g, depends_on: {prometheus: {condition: service_started}}}
  prometheus: {image: p}
  vpn: {image: v}
  torrent: {image: t, network_mode: "service:vpn"}
"""
    _, loaded = await written_for(tmp_path, compose)
    assert groups(loaded) == {
        "grafana": ["grafana", "prometheus"],
        "nextcloud": ["mariadb", "nextcloud", "redis"],
        "torrent": ["torrent", "vpn"],
    }


async def test_groups_in_a_dependency_cycle_are_merged(tmp_path: Path) -> None:
    compose = """
services:
  a1: {image: x, profiles: [a], depends_on: [b1]}
  a2: {image: x, profiles: [a]}
  b1: {image: x, profiles: [b]}
  b2: {image: x, profiles: [b], depends_on: [a2]}
  c: {image: x, profiles: [c], depends_on: [a1]}
"""
    outcome, loaded = await written_for(tmp_path, compose)
    assert groups(loaded) == {"b": ["a1", "a2", "b1", "b2"], "c": ["c"]}
    assert edges(loaded) == {"c": ["b"]}
    assert any("a: merged into b" in note for note in outcome.notes)


async def test_names_that_yaml_does_not_read_as_text(tmp_path: Path) -> None:
    compose = """
services:
  "on": {image: x, depends_on: ["null"]}
  "null": {image: x}
  "1.5": {image: x, profiles: ["yes"]}
  y: {image: x, profiles: ["0x1f"], depends_on: ["on"]}
  core: {image: x, profiles: [core]}
"""
    _, loaded = await written_for(tmp_path, compose)
    assert groups(loaded) == {"core": ["core"], "core-2": ["null", "on"], "yes": ["1.5"], "0x1f": ["y"]}
    assert edges(loaded) == {"0x1f": ["core-2"]}


async def test_thirty_services(tmp_path: Path) -> None:
    lines = ["services:"]
    for number in range(30):
        needs = f", depends_on: [s{number - 1:02}]" if number % 10 else ""
        profile = f", profiles: [p{number // 10}]" if number >= 20 else ""
        lines.append(f"  s{number:02}: {{image: x{needs}{profile}}}")
    _, loaded = await written_for(tmp_path, "\n".join(lines))
    assert {name: len(found) for name, found in groups(loaded).items()} == {"s09": 10, "s19": 10, "p2": 10}
    assert loaded.stack.groups["s09"].services == tuple(f"s{n:02}" for n in range(10))
    text = (tmp_path / "desired-state/stack.yaml").read_text()
    assert max(map(len, text.splitlines())) <= 110


async def test_override_file_is_included(tmp_path: Path) -> None:
    (tmp_path / "docker-compose.override.yml").write_text("services:\n  extra: {image: y}\n")
    outcome, loaded = await written_for(tmp_path, "services:\n  a: {image: x}\n", "docker-compose.yml")
    assert groups(loaded) == {"core": ["a", "extra"]}
    assert any("docker-compose.override.yml" in note for note in outcome.notes)


async def test_file_with_another_name_has_no_override(tmp_path: Path) -> None:
    (tmp_path / "docker-compose.override.yml").write_text("services:\n  extra: {image: y}\n")
    _, loaded = await written_for(tmp_path, "services:\n  a: {image: x}\n", "prod.yml")
    assert groups(loaded) == {"core": ["a"]}


async def test_project_name_is_the_one_of_compose(tmp_path: Path) -> None:
    project = tmp_path / "My.Project"
    project.mkdir()
    _, loaded = await written_for(project, "services:\n  a: {image: x}\n")
    assert loaded.stack.name == "myproject"
    (project / ".env").write_text("COMPOSE_PROJECT_NAME=other\n")
    await scaffold(project / "compose.yaml", project / "again")
    assert (await load(project / "again")).stack.name == "other"


async def test_groups_with_running_containers_are_on(tmp_path: Path, engine: SimulatedEngine) -> None:
    engine.add(Container(id="1", name="x", service="a", state=State.RUNNING))
    engine.add(Container(id="2", name="y", service="b", state=State.EXITED))
    compose = "services:\n  a: {image: x, profiles: [p]}\n  b: {image: y, profiles: [q]}\n"
    _, loaded = await written_for(tmp_path, compose)
    assert {name: state.on for name, state in loaded.desired.groups.items()} == {"p": True, "q": False}
    # Measured usage is better than a guess.
    assert loaded.stack.groups["p"].memory == 50_000_000


async def test_without_an_engine_every_group_is_off_with_a_note(
    tmp_path: Path, engine: SimulatedEngine
) -> None:
    engine.unavailable = True
    outcome, loaded = await written_for(tmp_path, "services:\n  a: {image: x}\n")
    assert not loaded.desired.groups["core"].on
    assert any("containers are unknown" in note for note in outcome.notes)
    assert "containers are unknown" in (tmp_path / "desired-state/groups.yaml").read_text()


async def test_files_are_overwritten_only_with_force(tmp_path: Path) -> None:
    await written_for(tmp_path, "services:\n  a: {image: x}\n")
    stack = tmp_path / "desired-state/stack.yaml"
    stack.write_text("mine")
    with pytest.raises(InitRefused, match="already"):
        await scaffold(tmp_path / "compose.yaml", tmp_path / "desired-state")
    assert stack.read_text() == "mine"
    await scaffold(tmp_path / "compose.yaml", tmp_path / "desired-state", force=True)
    assert "core" in stack.read_text()
    assert sorted(os.listdir(tmp_path / "desired-state")) == ["groups.yaml", "stack.yaml"]


async def test_one_existing_file_prevents_writing(tmp_path: Path) -> None:
    (tmp_path / "ds").mkdir()
    (tmp_path / "ds/groups.yaml").symlink_to("/nowhere")
    (tmp_path / "compose.yaml").write_text("services:\n  a: {image: x}\n")
    with pytest.raises(InitRefused, match=r"groups\.yaml already"):
        await scaffold(tmp_path / "compose.yaml", tmp_path / "ds")
    assert os.listdir(tmp_path / "ds") == ["groups.yaml"]


async def test_directory_elsewhere_has_an_absolute_path_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/compose.yaml").write_text("services:\n  a: {image: x}\n")
    await scaffold(tmp_path / "app/compose.yaml", tmp_path / "etc/desired-state")
    text = (tmp_path / "etc/desired-state/stack.yaml").read_text()
    assert f"compose: [{tmp_path}/app/compose.yaml]" in text
    assert (await load(tmp_path / "etc/desired-state")).stack.directory == f"{tmp_path}/app"


@pytest.mark.parametrize("text", ["", "services: {}\n", "services: [a\n", "services:\n  a: {}\n"])
async def test_unusable_compose_files(tmp_path: Path, text: str) -> None:
    (tmp_path / "compose.yaml").write_text(text)
    with pytest.raises((InitRefused, InvalidDesiredState)):
        await scaffold(tmp_path / "compose.yaml", tmp_path / "ds")
    assert not (tmp_path / "ds").exists()


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services:\n  a: {image: x}\n")
    words = ["init", str(tmp_path / "compose.yaml"), "--desired-state", str(tmp_path / "ds")]
    ran = run_cli(*words)
    assert (ran.code, f"wrote {tmp_path}/ds/stack.yaml" in ran.out) == (0, True)
    again = run_cli(*words)
    assert (again.code, again.out, "--force" in again.err) == (1, "", True)
    missing = run_cli("init", str(tmp_path / "none.yaml"))
    assert (missing.code, "there is no file" in missing.err) == (1, True)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("kafka", "kafka"),
        ("alert-engine", "alert-engine"),
        ("on", '"on"'),
        ("No", '"No"'),
        ("123", '"123"'),
        ("a b", '"a b"'),
        ("a: b", '"a: b"'),
        ("../compose.yaml", "../compose.yaml"),
        ("compose.yaml", "compose.yaml"),
        ('"', '"\\""'),
        ("", '""'),
    ],
)
def test_quoting(text: str, shown: str) -> None:
    assert quoted(text) == shown


def test_reservations_and_swarm_limits_count() -> None:
    model: dict[str, Any] = {
        "a": {"deploy": {"resources": {"reservations": {"memory": "50000000"}}}},
        "b": {"mem_reservation": "70000000"},
        "c": {"mem_limit": "10000001"},
    }
    services = {name: Service(name=name, container_name=name, image="x") for name in model}
    proposed = propose_groups(model, services, {}).groups[0]
    assert (proposed.memory, proposed.guessed) == (131_000_000, ())


def test_optional_dependency_connects_no_services() -> None:
    loose = Dependency("b", Condition.STARTED, required=False)
    services = {
        "a": Service(name="a", container_name="a", image="x", depends_on=(loose,)),
        "b": Service(name="b", container_name="b", image="x"),
        "c": Service(name="c", container_name="c", image="x", shares=("b",)),
    }
    services_by_group = {
        group.name: group.services for group in propose_groups({n: {} for n in services}, services, {}).groups
    }
    assert services_by_group == {"c": ("b", "c"), "standalone": ("a",)}


async def test_alternatives_with_one_container_name_get_groups_of_their_own(tmp_path: Path) -> None:
    compose = """
services:
  cpu: {image: llm, container_name: llm, profiles: [cpu]}
  gpu: {image: llm, container_name: llm, profiles: [gpu]}
  old: {image: llm:1, container_name: llm, profiles: [gpu]}
"""
    outcome, loaded = await written_for(tmp_path, compose)
    assert groups(loaded) == {"cpu": ["cpu"], "gpu": ["gpu"], "old": ["old"]}
    assert "cpu, gpu, old: alternatives with the container name llm; one can be on" in outcome.notes
    assert all(service.config_hash for service in loaded.stack.services.values())


@pytest.mark.parametrize(
    ("services", "message"),
    [
        (
            "  a: {image: x, container_name: llm}\n  b: {image: x, container_name: llm}\n",
            "the services a and b have the same container_name llm",
        ),
        (
            "  a: {image: x, container_name: llm, profiles: [p]}\n"
            "  b: {image: x, container_name: llm, profiles: [q], networks: [front]}\n",
            "undefined network front",
        ),
    ],
)
async def test_shared_container_names_hide_no_other_mistake(
    tmp_path: Path, services: str, message: str
) -> None:
    (tmp_path / "compose.yaml").write_text(f"services:\n{services}")
    with pytest.raises(InvalidDesiredState) as caught:
        await scaffold(tmp_path / "compose.yaml", tmp_path / "desired-state")
    assert message in str(caught.value)
    # Compose checks the services in random order.
    assert caught.value.mistakes[0].line in {2, 3}


@pytest.mark.parametrize("separator", ["", ","])
async def test_all_files_of_the_compose_file_variable_are_used(tmp_path: Path, separator: str) -> None:
    (tmp_path / "search.yaml").write_text("services:\n  search: {image: y}\n")
    named = (separator or ":").join(("compose.yaml", "search.yaml"))
    settings = f"COMPOSE_PATH_SEPARATOR={separator}\n" if separator else ""
    (tmp_path / ".env").write_text(f"{settings}COMPOSE_FILE={named}\nCOMPOSE_PROFILES=gpu\n")
    outcome, loaded = await written_for(tmp_path, "services:\n  a: {image: x}\n")
    assert groups(loaded) == {"core": ["a", "search"]}
    assert loaded.stack.warnings == ()
    assert any(note.startswith(f"COMPOSE_FILE names {named}") for note in outcome.notes)
    assert any(note.startswith("COMPOSE_PROFILES is gpu") for note in outcome.notes)


async def test_a_missing_file_of_the_variable_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("COMPOSE_FILE=compose.yaml:gone.yaml\n")
    (tmp_path / "compose.yaml").write_text("services:\n  a: {image: x}\n")
    with pytest.raises(InitRefused, match=r"COMPOSE_FILE names .*gone\.yaml, which does not exist"):
        await scaffold(tmp_path / "compose.yaml", tmp_path / "desired-state")


async def test_containers_from_more_files_are_noted(tmp_path: Path, engine: SimulatedEngine) -> None:
    made = f"{tmp_path}/prod.yaml,{tmp_path}/more.yaml"
    (tmp_path / "more.yaml").write_text("services: {}\n")
    engine.add(Container(id="1", name="x", service="a", state=State.RUNNING, model=made))
    outcome, _ = await written_for(tmp_path, "services:\n  a: {image: x}\n", "prod.yaml")
    assert any(f"running containers were created from {made.replace(',', ', ')}" in n for n in outcome.notes)


async def test_the_null_device_is_an_env_file(tmp_path: Path) -> None:
    compose = "services:\n  a: {image: x, env_file: [/dev/null, {path: gone.env, required: false}]}\n"
    _, loaded = await written_for(tmp_path, compose)
    assert groups(loaded) == {"core": ["a"]}


async def test_odd_names_of_profiles_become_names_that_can_be_addressed(tmp_path: Path) -> None:
    compose = """
services:
  a: {image: a, profiles: ["Tools/Extra 1"]}
  b: {image: b, profiles: ["../x"]}
  c: {image: c, profiles: [" /"]}
  "null": {image: d, profiles: ["no"]}
  "8080": {image: e, profiles: ["2024"]}
"""
    _, loaded = await written_for(tmp_path, compose)
    assert groups(loaded) == {
        "Tools/Extra 1": ["a"],
        ".._/x": ["b"],
        "group": ["c"],
        "no": ["null"],
        "2024": ["8080"],
    }
