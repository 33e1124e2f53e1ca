"""``plan`` and ``validate``: real files, real Docker Compose and a simulated engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from reconciler.cli.commands.plan import Preview, show, summary
from reconciler.cli.oneshot import read_clocks, read_ledger, relative_to_cwd
from reconciler.controller.ledger_codec import encode_ledger
from reconciler.engine.compose.discovery import find_compose
from reconciler.engine.simulated.engine import SimulatedEngine
from reconciler.errors import Mistake
from reconciler.model.desired import GroupState, Suspension
from reconciler.model.fingerprint import OFF
from reconciler.model.ledger import BuiltFrom, Ledger
from reconciler.model.observed import Health, State
from reconciler.planning.dry_run import dry_run
from reconciler.planning.planner import plan
from tests.support.fixtures.builders import NOW, a_stack, container, desire, look, service
from tests.support.fixtures.stub_server import TextConsole, run_cli

COMPOSE = """
services:
  db: {image: db:1, healthcheck: {test: [CMD, "true"]}}
  web: {image: web:1, depends_on: {db: {condition: service_healthy}}}
  extra: {image: extra:1}
"""
STACK = """
name: shop
compose: [compose.yaml]
groups:
  data: {services: [db]}
  front: {services: [web], depends_on: {data: on}}
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    (tmp_path / "stack.yaml").write_text(STACK)
    (tmp_path / "groups.yaml").write_text("groups:\n  data: on\n  front: on\n")
    return tmp_path


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> SimulatedEngine:
    simulated = SimulatedEngine()

    @asynccontextmanager
    async def open_engine(_: str) -> AsyncIterator[SimulatedEngine]:
        yield simulated

    monkeypatch.setattr("reconciler.cli.commands.plan.open_engine", open_engine)
    return simulated


def words(directory: Path, *more: str) -> list[str]:
    return ["plan", "--desired-state", str(directory), "--state-dir", str(directory / "state"), *more]


# --- plan ---------------------------------------------------------------------------------------------


def test_changes_exit_with_2(directory: Path, engine: SimulatedEngine) -> None:
    ran = run_cli(*words(directory))
    assert (ran.code, ran.err) == (2, "")
    assert ran.out == (
        "data\n"
        "  + db   create, start  has no container\n"
        "front\n"
        "  + web  create, start  has no container\n"
        "\n"
        "4 steps for 2 services: 2 create, 2 start.\n"
    )


def test_json_has_the_steps_in_order(directory: Path, engine: SimulatedEngine) -> None:
    ran = run_cli(*words(directory, "--output", "json"))
    value = json.loads(ran.out)
    assert (ran.code, value["changes"]) == (2, True)
    assert [(step["service"], step["action"]) for step in value["steps"]] == [
        ("db", "create"),
        ("web", "create"),
        ("db", "start"),
        ("web", "start"),
    ]
    assert value["steps"][0] == {
        "service": "db",
        "group": "data",
        "action": "create",
        "reason": "missing",
        "message": "has no container",
    }
    assert {drift["kind"] for drift in value["drift"]} == {"missing"}


def test_nothing_to_do_exits_with_0(directory: Path, engine: SimulatedEngine) -> None:
    (directory / "groups.yaml").write_text("groups:\n  data: off\n  front: off\n")
    ran = run_cli(*words(directory))
    assert (ran.code, ran.out) == (0, "Nothing to do.\n")


def test_stack_created_by_compose_is_adopted_as_by_the_daemon(
    directory: Path, engine: SimulatedEngine
) -> None:
    """Issue 13, 4: without a state directory every container seemed to be made from another definition."""

    async def run_by_a_person() -> None:
        for name, health in {"db": Health.HEALTHY, "web": Health.NONE}.items():
            one = service(name, container_name=f"shop-{name}-1", networks=("shop_default",), restart="no")
            made = container(one, health=health, config_hash="another", compose="2.30.3")
            engine.add(made)
            engine.tag(f"{name}:1", made.image)

    asyncio.run(run_by_a_person())
    ran = run_cli(*words(directory))
    assert (ran.code, ran.out) == (0, "Nothing to do.\n")
    # The same version hashes the same: now the label counts.
    engine.alter("id-web", compose=find_compose().version)
    ran = run_cli(*words(directory))
    assert ran.code == 2
    assert "web  stop, recreate, start  was created from another definition" in ran.out


def test_unreachable_engine_exits_with_1(directory: Path, engine: SimulatedEngine) -> None:
    engine.unavailable = True
    ran = run_cli(*words(directory))
    assert (ran.code, ran.out) == (1, "")
    assert "service-manager doctor" in ran.err


def test_incomplete_observation_is_no_plan(directory: Path, engine: SimulatedEngine) -> None:
    engine.mischief.partial = lambda: True
    assert run_cli(*words(directory)).code == 1


def test_invalid_files_exit_with_1(directory: Path, engine: SimulatedEngine) -> None:
    (directory / "groups.yaml").write_text("groups:\n  data: on\n  frnt: on\n")
    ran = run_cli(*words(directory))
    assert (ran.code, ran.out) == (1, "")
    assert f"{directory}/groups.yaml:3:3: unknown group 'frnt'; did you mean 'front'?" in ran.err


def test_the_ledger_is_read_and_nothing_is_written(directory: Path, engine: SimulatedEngine) -> None:
    # Made by us from these very inputs, under another hash: adopted, if the ledger is looked at.
    resolved = json.loads(run_cli(*words(directory, "--output", "json")).out)
    assert resolved["changes"]
    before = sorted(directory.rglob("*"))
    run_cli(*words(directory))
    assert sorted(directory.rglob("*")) == before
    (directory / "state").mkdir()
    ledger = Ledger(made={"id": BuiltFrom("d", {}, "i")}, settled={"db": OFF})
    (directory / "state/ledger.json").write_bytes(encode_ledger(ledger))
    assert read_ledger(directory / "state", read_clocks()).settled == {"db": OFF}
    for broken in ("", "[]", "{}", '{"schema": 99}', "\0"):
        (directory / "state/ledger.json").write_text(broken)
        assert read_ledger(directory / "state", read_clocks()) == Ledger()
    assert run_cli(*words(directory)).code == 2


def test_the_simulated_engine_needs_nothing(directory: Path) -> None:
    assert run_cli(*words(directory, "--engine", "simulated")).code == 2


def test_missing_directory(tmp_path: Path) -> None:
    ran = run_cli(*words(tmp_path / "none"))
    assert ran.code == 1
    assert "service-manager init COMPOSE_FILE" in ran.err


def test_services_that_stay_blocked_are_shown() -> None:
    held, needy, ill = service("held"), service("needy"), service("ill", check=True)
    gone = service("gone")
    stack = a_stack({"a": [held], "b needs c": [needy], "c": [gone], "d": [ill]}, warnings=("odd",))
    desired = desire(stack, "b", a=GroupState(on=True, suspend=Suspension(reason="camera work")))
    observed = look(stack, container(gone), container(ill, State.EXITED))
    outlook = dry_run(stack, desired, observed, Ledger(), NOW)
    preview = Preview(
        stack, outlook.steps, outlook.rest, plan(stack, desired, observed, Ledger(), NOW).drifts
    )
    console = TextConsole()
    show(preview, console.console)
    assert console.text() == (
        "warning: odd\n"
        "a\n"
        "  ! held   suspended  a is suspended: camera work\n"
        "b\n"
        "  ! needy  blocked    needs c, which is off\n"
        "c\n"
        "  - gone   stop       c is off\n"
        "\n"
        "1 step for 1 service: 1 stop; 1 blocked; 1 suspended.\n"
    )


def test_replicas_are_shown_with_their_number() -> None:
    web = service("web", replicas=3)
    stack = a_stack({"a": [web, service("seed", replicas=0)]})
    old = [
        container(web, id=f"w{n}", name=web.name_of(n), number=n, config_hash="old", started_at=1.0)
        for n in (1, 2)
    ]
    outlook = dry_run(stack, desire(stack, "a"), look(stack, *old), Ledger(), NOW)
    console = TextConsole()
    show(Preview(stack, outlook.steps, outlook.rest, ()), console.console)
    assert console.text() == (
        "a\n"
        "  ~ web  create, start ×3, stop ×2, recreate ×2  has no container\n"
        "\n"
        "web: 3 replicas\n"
        "seed: scaled to zero\n"
        "8 steps for 1 service: 1 create, 3 start, 2 stop, 2 recreate.\n"
    )


def test_summary_without_steps_names_what_is_held_back() -> None:
    ill = service("ill", check=True)
    stack = a_stack({"a": [ill]})
    observed = look(stack, container(ill, State.RESTARTING, health=Health.NONE))
    outlook = dry_run(stack, desire(stack, "a"), observed, Ledger(), NOW)
    assert summary(Preview(stack, outlook.steps, outlook.rest, ())) == "Nothing to do; 1 left waiting."


# --- validate -----------------------------------------------------------------------------------------


def test_valid(directory: Path) -> None:
    ran = run_cli("validate", str(directory))
    assert ran.code == 0
    assert ran.out == f"{directory} is valid: 2 groups (2 on), 2 services, 1 unmanaged\n"
    assert json.loads(run_cli("validate", str(directory), "-o", "json").out) == {
        "valid": True,
        "errors": [],
        "warnings": [],
    }


def test_every_mistake_at_once(directory: Path) -> None:
    (directory / "stack.yaml").write_text(STACK.replace("[web]", "[wbe]").replace("front:", "front :\n   "))
    (directory / "groups.yaml").write_text("groups:\n  data: maybe\n  front: on\n  x: off\n")
    ran = run_cli("validate", str(directory))
    assert (ran.code, ran.out) == (1, "")
    assert f"{directory}/groups.yaml:2:9: " in ran.err
    assert f"{directory}/groups.yaml:4:3: unknown group 'x'" in ran.err
    assert f"{directory} is not valid: " in ran.err
    value = json.loads(run_cli("validate", str(directory), "--output", "json").out)
    assert value["valid"] is False
    assert {"path", "line", "column", "message"} == set(value["errors"][0])


def test_error_of_compose(directory: Path) -> None:
    (directory / "compose.yaml").write_text(COMPOSE.replace("image: web:1", "imgae: web:1"))
    ran = run_cli("validate", str(directory))
    assert ran.code == 1
    assert "compose.yaml:" in ran.err
    assert "imgae" in ran.err


def test_additional_compose_files(directory: Path) -> None:
    (directory / "more.yaml").write_text("services:\n  late: {image: x}\n")
    (directory / "stack.yaml").write_text(STACK.replace("[web]", "[web, late]"))
    assert run_cli("validate", str(directory)).code == 1
    assert run_cli("validate", str(directory), "--compose-file", f"{directory}/more.yaml").code == 0


def test_sources_of_the_directory(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_cli("validate", "--desired-state", str(directory)).code == 0
    monkeypatch.setenv("SERVICE_MANAGER_DESIRED_STATE", str(directory))
    assert run_cli("validate").code == 0
    assert run_cli("validate", "/nowhere").code == 1
    assert run_cli("validate", "").code == 64


def test_paths_are_relative_to_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mistake = Mistake("groups.yaml", 1, 2, "x")
    assert relative_to_cwd(mistake, tmp_path / "ds").path == "ds/groups.yaml"
    assert relative_to_cwd(mistake, Path("/elsewhere")).path == "/elsewhere/groups.yaml"
    assert relative_to_cwd(mistake._replace(path="/abs/compose.yaml"), tmp_path).path == "/abs/compose.yaml"
