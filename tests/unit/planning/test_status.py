"""Phases, reasons and the outcome of a generation, derived from a plan."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.model.backoff import Failure
from reconciler.model.desired import Desired, GroupState, Suspension
from reconciler.model.ledger import Ledger
from reconciler.model.observed import Action, Container, Health, State
from reconciler.model.stack import Stack
from reconciler.planning.fingerprints import attempt_fingerprint
from reconciler.planning.status import (
    CONVERGED,
    Phase,
    ServiceStatus,
    of_group,
    outcome,
    summarise,
    time_left,
)
from tests.support.fixtures.builders import NOW, a_stack, container, desire, look, planned, service

DB = service("db", check=True)
APP = service("app", "db:healthy")
STACK = a_stack({"main": [DB, APP]})
ON = desire(STACK, "main")


def failures(count: int, reason: str = "step_failed", name: str = "db", stack: Stack = STACK) -> Ledger:
    inputs = attempt_fingerprint(stack.services[name], GroupState(on=True), look(stack))
    return Ledger(failures={name: Failure(count, NOW.mono + 9, inputs, reason, "no luck", 0.0)})


def told(
    *containers: Container,
    desired: Desired = ON,
    ledger: Ledger | None = None,
    flying: dict[str, Action] | None = None,
    stack: Stack = STACK,
    **fields: object,
) -> dict[str, ServiceStatus]:
    result = planned(stack, desired, look(stack, *containers, **fields), ledger)
    return summarise(result, ledger or Ledger(), flying or {})


def phases(summaries: dict[str, ServiceStatus]) -> list[tuple[str, str]]:
    return [(str(s.phase), s.reason) for s in summaries.values()]


def test_a_settled_service_is_converged() -> None:
    summaries = told(container(DB), container(APP))
    assert set(summaries.values()) == {CONVERGED}
    assert outcome(summaries.values()) == "converged"


def test_a_starting_service_progresses_and_its_dependents_wait() -> None:
    summaries = told(container(DB, health=Health.STARTING), container(APP, State.CREATED))
    assert phases(summaries) == [("progressing", "starting"), ("waiting", "dependency_not_ready")]
    assert outcome(summaries.values()) == "progressing"


def test_a_step_in_flight_is_progress_even_if_nothing_differs() -> None:
    summaries = told(container(DB), container(APP), flying={"db": Action.STOP})
    assert summaries["db"] == ServiceStatus(Phase.PROGRESSING, "stop", "stopping now")
    assert outcome(summaries.values()) == "progressing"


@pytest.mark.parametrize(
    ("count", "phase"), [(1, "waiting"), (2, "waiting"), (3, "degraded"), (9, "degraded")]
)
def test_three_failures_are_degraded(count: int, phase: str) -> None:
    assert told(ledger=failures(count))["db"].phase == phase


def test_a_wait_for_a_stuck_service_is_stuck_and_ends_the_generation() -> None:
    summaries = told(container(DB, State.CREATED), container(APP, State.CREATED), ledger=failures(3))
    assert [s.stuck for s in summaries.values()] == [True, True]
    assert outcome(summaries.values()) == "degraded"


def test_a_retry_in_flight_does_not_hide_repeated_failures() -> None:
    summaries = told(container(DB, State.CREATED), ledger=failures(4), flying={"db": Action.START})
    assert summaries["db"].phase == Phase.DEGRADED


def test_failures_with_other_inputs_do_not_count() -> None:
    old = Ledger(failures={"db": Failure(9, 0.0, "other", "no", "no", 0.0)})
    assert told(ledger=old)["db"].phase == Phase.PROGRESSING


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (container(DB, State.RESTARTING), "crash_looping"),
        (container(DB, health=Health.UNHEALTHY), "unhealthy"),
        (container(DB, name="odd"), "name_conflict"),
    ],
)
def test_a_failure_that_retries_can_not_repair_is_degraded_at_once(seen: Container, reason: str) -> None:
    summary = told(seen, foreign={"db": "x"})["db"]
    assert (summary.phase, summary.reason, summary.stuck) == (Phase.DEGRADED, reason, True)


def test_an_image_that_can_not_be_pulled_is_degraded_at_the_first_attempt() -> None:
    assert told(ledger=failures(1, "image_unavailable"))["db"].phase == Phase.DEGRADED
    stack = a_stack({"main": [service("db", pull_policy="never")]})
    summary = told(stack=stack, desired=desire(stack, "main"), images={})["db"]
    assert (summary.phase, summary.reason) == (Phase.DEGRADED, "image_unavailable")


def test_needing_a_completed_service_to_be_healthy_is_degraded() -> None:
    init = service("init")
    users = [service("app", "init:healthy"), service("other", "init:completed")]
    stack = a_stack({"main": [init, *users]})
    seen = [container(init, State.EXITED), container(users[0], State.CREATED), container(users[1])]
    summaries = told(*seen, stack=stack, desired=desire(stack, "main"))
    assert outcome(summaries.values()) == "degraded"


def test_a_blocked_group_is_blocked_and_suspended_ones_do_not_count() -> None:
    stack = a_stack({"base": [DB], "top needs base": [service("api")]})
    summaries = told(stack=stack, desired=desire(stack, "top"))
    assert sorted(phases(summaries)) == [("blocked", "dependency_off"), ("converged", "as_desired")]
    assert outcome(summaries.values()) == "degraded"
    suspended = desire(stack, base=GroupState(on=True, suspend=Suspension()))
    summaries = told(stack=stack, desired=suspended)
    assert summaries["db"].phase == Phase.SUSPENDED
    assert outcome(summaries.values()) == "converged"


def test_a_group_has_the_status_of_its_worst_service() -> None:
    waits = ServiceStatus(Phase.WAITING, "w", "waits")
    bad = ServiceStatus(Phase.DEGRADED, "d", "no luck")
    pairs = [("a", CONVERGED), ("b", waits), ("c", bad)]
    assert of_group(pairs, suspended=False) == bad._replace(message="c: no luck")
    assert of_group(pairs[:2], suspended=False).message == "b: waits"
    assert of_group(pairs[:1], suspended=False) == CONVERGED
    assert of_group([], suspended=False) == CONVERGED
    blocked = ServiceStatus(Phase.BLOCKED, "dependency_off", "needs x")
    assert of_group([("a", blocked)], suspended=False).message == "needs x"


def test_a_suspended_group_names_the_services_that_differ() -> None:
    pairs = [("a", CONVERGED), ("b", ServiceStatus(Phase.SUSPENDED, "suspended", ""))]
    assert of_group(pairs, suspended=True).message == "suspended; b differs"
    assert of_group(pairs[:1], suspended=True).message == "suspended"


# --- time left ------------------------------------------------------------------------------------


def left(*containers: Container, ledger: Ledger, desired: Desired = ON) -> float | None:
    result = planned(STACK, desired, look(STACK, *containers), ledger)
    return time_left(result, ledger, summarise(result, ledger, {}), NOW)


def test_time_left_is_the_duration_of_the_longest_chain() -> None:
    ledger = Ledger(durations={"db": (10.0,), "app": (5.0,)})
    assert left(container(DB, State.CREATED), container(APP, State.CREATED), ledger=ledger) == 15.0
    begun = container(DB, health=Health.STARTING, started_at=NOW.wall - 4)
    assert left(begun, container(APP, State.CREATED), ledger=ledger) == 11.0
    late = replace(begun, started_at=NOW.wall - 40)
    assert left(late, container(APP, State.CREATED), ledger=ledger) == 5.0


def test_time_left_is_unknown_without_a_measured_start() -> None:
    assert left(ledger=Ledger(durations={"db": (1.0,)})) is None


def test_a_settled_stack_has_no_time_left() -> None:
    assert left(container(DB), container(APP), ledger=Ledger()) == 0.0
    assert left(container(DB), container(APP), ledger=Ledger(), desired=desire(STACK)) == 0.0
