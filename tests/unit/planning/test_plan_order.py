"""Plans as text: order of starts and stops, and waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from reconciler.model.desired import GroupState, Suspension
from reconciler.model.ledger import Clock, Ledger
from reconciler.model.observed import Action, Health, State
from reconciler.model.stack import Dependency, Stack
from reconciler.planning.planner import Plan, plan
from tests.support.fixtures.builders import NOW, STARTED, a_stack, container, desire, look, planned, service
from tests.support.fixtures.plans import (
    APP,
    DB,
    OFF,
    ON,
    ONE,
    ONE_ON,
    STRONG,
    TIERS,
    WEAK,
    WEB,
    containers_of,
    failing,
    kafka,
    text,
)

# --- order ------------------------------------------------------------------------------------------


def test_all_missing_containers_are_created_at_once() -> None:
    assert text(TIERS, ON) == (
        "db: create (missing: has no container)\n"
        "app: create (missing: has no container)\n"
        "web: create (missing: has no container)"
    )


def test_services_start_when_their_compose_conditions_hold() -> None:
    init = service("init", restart="no")
    stack = a_stack({"main": [init, DB, service("app", "init:completed", "db:healthy"), WEB]})
    on = desire(stack, "main")
    first = text(stack, on, *containers_of(stack))
    assert first == (
        "db: start (stopped: was created and never started)\n"
        "init: start (stopped: was created and never started)\n"
        "app: waits (dependency_not_ready: waits for init to complete)\n"
        "web: waits (dependency_not_ready: waits for app to start)"
    )
    done = container(init, State.EXITED)
    assert "app: waits (dependency_not_ready: waits for db to be healthy)" in text(
        stack,
        on,
        done,
        container(DB, health=Health.STARTING),
        *(c for c in containers_of(stack) if c.service in {"app", "web"}),
    )


def test_condition_started_needs_a_running_container() -> None:
    starting = container(APP, health=Health.STARTING)
    result = text(TIERS, ON, container(DB), starting, container(WEB, State.CREATED))
    assert "web: start (stopped: was created and never started)" in result


def test_condition_healthy_without_a_check_needs_a_running_container() -> None:
    stack = a_stack({"main": [service("db"), APP]})
    on = desire(stack, "main")
    assert "waits for db to be running" in text(stack, on, *containers_of(stack))
    assert text(stack, on, container(stack.services["db"]), container(APP, State.CREATED)) == (
        "app: start (stopped: was created and never started)"
    )


def test_the_longest_chain_starts_first() -> None:
    stack = a_stack({"main": [service("a"), service("b"), service("c", "b"), service("d", "c")]})
    result = planned(stack, desire(stack, "main"), look(stack, *containers_of(stack)))
    assert [(s.service, s.weight) for s in result.steps] == [("b", 2), ("a", 0)]


def test_a_dependency_that_is_off_delays_no_start() -> None:
    stack = a_stack({"main": [service("api", "search:healthy")], "find": [service("search", check=True)]})
    api = container(stack.services["api"], State.CREATED)
    assert text(stack, desire(stack, "main"), api) == "api: start (stopped: was created and never started)"


def test_an_unmanaged_dependency_delays_no_start() -> None:
    stack = a_stack({"main": [service("api", "tempo:healthy")]}, service("tempo", check=True))
    api = container(stack.services["api"], State.CREATED)
    assert text(stack, desire(stack, "main"), api) == "api: start (stopped: was created and never started)"


def test_an_optional_dependency_delays_a_start_until_it_fails() -> None:
    api = replace(service("api"), depends_on=(Dependency("db", STARTED, required=False),))
    stack = a_stack({"main": [DB, api]})
    on = desire(stack, "main")
    seen = container(DB, State.EXITED, exit_code=1), container(api, State.CREATED)
    assert "api: waits" in text(stack, on, *seen)
    assert "api: start" in text(stack, on, *seen, ledger=failing(stack, on, "db"))


def test_services_stop_in_reverse_order() -> None:
    up = container(DB), container(APP), container(WEB)
    assert text(TIERS, OFF, *up) == (
        "db: waits (stops_after: stops after app)\n"
        "app: waits (stops_after: stops after web)\n"
        "web: stop (unwanted: main is off)"
    )
    assert text(TIERS, OFF, *up[:2]) == (
        "db: waits (stops_after: stops after app)\napp: stop (unwanted: main is off)"
    )


def test_a_stop_does_not_wait_for_dependents_that_stay_on() -> None:
    stack = a_stack({"base": [DB], "top": [APP]})
    up = container(DB), container(APP)
    assert text(stack, desire(stack, "top"), *up) == "db: stop (unwanted: base is off)"


def test_a_dependent_whose_stop_keeps_failing_blocks_no_other_stop() -> None:
    up = container(DB), container(APP)
    stuck = failing(TIERS, OFF, "app", attempts=3)
    assert text(TIERS, OFF, *up, ledger=stuck) == (
        "db: stop (unwanted: main is off)\napp: waits (back_off: tried 3 times: no luck)"
    )
    still_trying = failing(TIERS, OFF, "app", attempts=2)
    assert "db: waits (stops_after" in text(TIERS, OFF, *up, ledger=still_trying)


@pytest.mark.parametrize(
    ("stack", "expected"),
    [
        (STRONG, "api: waits (group_not_ready: waits for all of base to be ready)"),
        (WEAK, "api: start (stopped: was created and never started)"),
    ],
)
def test_the_strength_of_a_group_dependency_decides_when_its_services_start(
    stack: Stack, expected: str
) -> None:
    zoo = container(stack.services["zoo"], State.CREATED)
    api = container(stack.services["api"], State.CREATED)
    assert expected in text(stack, desire(stack, "base", "top"), container(DB), zoo, api)


@pytest.mark.parametrize(
    ("stack", "base_waits"),
    [(STRONG, True), (WEAK, False)],
)
def test_the_strength_of_a_group_dependency_decides_what_stops_first(stack: Stack, base_waits: bool) -> None:
    up = [container(s) for s in stack.services.values()]
    result = planned(stack, desire(stack), look(stack, *up))
    assert ("stops after api" in str(result)) is base_waits
    assert ("api", Action.STOP) in {(s.service, s.action) for s in result.steps}


def test_a_completed_one_shot_counts_as_ready_for_dependent_groups() -> None:
    init = service("init", restart="no")
    stack = a_stack({"base": [DB, init], "top needs base:ready": [service("api")]})
    api = container(stack.services["api"], State.CREATED)
    seen = container(DB), container(init, State.EXITED), api
    assert text(stack, desire(stack, "base", "top"), *seen).startswith("api: start")


def test_a_blocked_group_is_not_changed() -> None:
    for stack in (STRONG, WEAK):
        on_top = desire(stack, "top")
        api = stack.services["api"]
        reason = "api: blocked (dependency_off: needs base, which is off)"
        for state in (State.RUNNING, State.EXITED, State.PAUSED, State.DEAD):
            assert text(stack, on_top, container(api, state)) == reason
        assert text(stack, on_top) == reason
        odd = container(api, name="odd", config_hash="old")
        assert text(stack, on_top, odd) == reason


def test_a_blocked_group_names_all_dependencies_that_are_off() -> None:
    stack = a_stack({"a": [service("x")], "b": [service("y")], "c needs a, b": [service("z")]})
    assert text(stack, desire(stack, "c")) == "z: blocked (dependency_off: needs a and b, which are off)"


def test_force_ignores_group_dependencies_but_not_those_between_services() -> None:
    stack = a_stack({"base": [DB], "top needs base:ready": [service("api"), service("ui", "api")]})
    forced = desire(stack, top=GroupState(on=True, force=True))
    assert text(stack, forced, *containers_of(stack)[1:]) == (
        "api: start (stopped: was created and never started)\n"
        "ui: waits (dependency_not_ready: waits for api to start)"
    )


def test_a_long_chain_starts_link_by_link_and_stops_link_by_link() -> None:
    links = [service("s000")] + [service(f"s{i:03}", f"s{i - 1:03}") for i in range(1, 200)]
    stack = a_stack({"main": links})
    assert len(planned(stack, desire(stack, "main"), look(stack, *containers_of(stack))).steps) == 1
    up = [container(s) for s in links]
    assert [s.service for s in planned(stack, desire(stack), look(stack, *up)).steps] == ["s199"]


# --- suspend ------------------------------------------------------------------------------------------


def test_a_suspended_group_is_not_changed_and_its_drift_is_shown() -> None:
    suspended = desire(ONE, main=GroupState(on=True, suspend=Suspension(reason="camera work")))
    for seen in (
        [],
        [kafka(State.EXITED)],
        [kafka(config_hash="old")],
        [kafka(), kafka(id="b")],
    ):
        result = planned(ONE, suspended, look(ONE, *seen))
        assert str(result) == "kafka: waits (suspended: main is suspended: camera work)"
        assert result.drifts
    off = desire(ONE, main=GroupState(on=False, suspend=Suspension()))
    assert text(ONE, off, kafka()) == "kafka: waits (suspended: main is suspended)"


def test_a_suspension_is_due_at_its_end() -> None:
    until = desire(ONE, main=GroupState(on=True, suspend=Suspension(until=NOW.wall + 30)))
    assert planned(ONE, until, look(ONE)).due == NOW.mono + 30
    later = Clock(NOW.wall + 30, NOW.mono + 30)
    result = planned(ONE, until, look(ONE), now=later)
    assert str(result) == "kafka: create (missing: has no container)"
    assert result.due is None


def test_a_suspended_group_delays_no_stop() -> None:
    stack = a_stack({"base": [DB], "top": [APP]})
    desired = desire(stack, top=GroupState(on=False, suspend=Suspension()))
    assert "db: stop (unwanted: base is off)" in text(stack, desired, container(DB), container(APP))


# --- waiting ------------------------------------------------------------------------------------------


def test_a_failed_service_is_retried_after_its_back_off() -> None:
    ledger = failing(ONE, ONE_ON, "kafka", attempts=1, due=NOW.mono + 5)
    result = planned(ONE, ONE_ON, look(ONE), ledger)
    assert str(result) == "kafka: waits (back_off: tried 1 time: no luck)"
    assert result.due == NOW.mono + 5
    later = Clock(NOW.wall + 5, NOW.mono + 5)
    assert str(planned(ONE, ONE_ON, look(ONE), ledger, later)) == "kafka: create (missing: has no container)"


@pytest.mark.parametrize(
    "change",
    [
        lambda s, d, o: (a_stack({"main": [service("kafka", definition="new")]}), d, o),
        lambda s, d, o: (s, desire(s, main=GroupState(on=True, restarted_at=1.0)), o),
        lambda s, d, o: (s, d, replace(o, images={"kafka:1": "sha-new"})),
    ],
)
def test_a_change_of_its_inputs_ends_the_back_off(change: Callable[..., Any]) -> None:
    ledger = failing(ONE, ONE_ON, "kafka", due=NOW.mono + 300)
    assert not planned(ONE, ONE_ON, look(ONE), ledger).steps
    assert planned(*change(ONE, ONE_ON, look(ONE)), ledger).steps


def test_one_failing_service_delays_only_those_that_need_it() -> None:
    stack = a_stack({"main": [DB, APP, service("other")]})
    on = desire(stack, "main")
    result = text(stack, on, *containers_of(stack), ledger=failing(stack, on, "db"))
    assert "db: waits (back_off" in result
    assert "app: waits (dependency_not_ready" in result
    assert "other: start" in result


def test_an_incomplete_observation_changes_nothing() -> None:
    result = planned(TIERS, OFF, look(TIERS, container(DB), complete=False))
    assert result == Plan(complete=False)
    assert str(result) == "nothing: the observation of the engine was incomplete"
    assert result.steps == result.drifts == ()


def test_the_earliest_of_several_times_is_due() -> None:
    stack = a_stack({"a": [service("x")], "b": [service("y")], "c": [service("z")]})
    desired = desire(
        stack,
        a=GroupState(on=True, suspend=Suspension(until=NOW.wall + 50)),
        b=GroupState(on=True, restarted_at=NOW.wall + 40),
        c=GroupState(on=True),
    )
    seen = [container(s) for s in stack.services.values()]
    assert planned(stack, desired, look(stack, *seen)).due == NOW.mono + 40


def test_every_step_carries_what_the_engine_needs() -> None:
    slow = service("db", stop_grace=90.0)
    stack = a_stack({"main": [slow]})
    (step,) = plan(stack, desire(stack), look(stack, container(slow)), Ledger(), NOW).steps
    command = step.command()
    assert (command.action, command.services, command.container) == (Action.STOP, ("db",), "id-db")
    assert command.grace == 90.0
