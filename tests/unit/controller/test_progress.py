"""Progress and outcome of a generation."""

from __future__ import annotations

import pytest

from reconciler.controller.progress import (
    KEPT_STEPS,
    TRIAL,
    Outcome,
    Progress,
    Tracker,
    next_outcome,
)
from reconciler.controller.progress_codec import decode_progress, encode_progress
from reconciler.model.ledger import Ledger, Restarts
from reconciler.model.observed import Action, Container, Health, State
from reconciler.planning.planner import Step
from reconciler.planning.status import Phase, ServiceStatus, summarise
from tests.support.fixtures.builders import a_stack, container, desire, look, planned, service

DB = service("db", check=True)
APP = service("app", "db:healthy")
STACK = a_stack({"main": [DB, APP]})
LEDGER = Ledger()
LOOPING = Ledger(restarts={"app": Restarts("id-app", 2, (0.0, 0.1))})
START = Step("db", Action.START, "stopped", "why", "id-db")


def tracker() -> Tracker:
    return Tracker(Progress(generation=7, began_at=1.0))


def update(
    followed: Tracker,
    *seen: Container,
    on: bool = True,
    eta: float | None = None,
    ledger: Ledger = LEDGER,
    wall: float = 100.0,
) -> Progress:
    plan = planned(STACK, desire(STACK, *(["main"] if on else [])), look(STACK, *seen), ledger)
    return followed.update(plan, summarise(plan, ledger, {}), eta, wall)


def test_done_of_total_counts_the_services_that_the_generation_changes() -> None:
    t = tracker()
    first = update(t, container(DB, health=Health.STARTING), container(APP, State.CREATED))
    assert (first.done, first.total, first.percent, first.state) == (0, 2, 0, "progressing")
    second = update(t, container(DB), container(APP, State.CREATED))
    assert (second.done, second.total, second.percent) == (1, 2, 50)
    third = update(t, container(DB), container(APP))
    assert (third.done, third.total, third.percent, third.state) == (2, 2, 100, "converged")
    assert third.ended_at == 100.0


def test_generation_without_work_ends_at_once() -> None:
    progress = update(tracker(), container(DB), container(APP))
    assert (progress.state, progress.total, progress.percent) == ("converged", 0, 100)


def test_exit_after_the_end_is_a_repair_not_progress() -> None:
    t = tracker()
    update(t, container(DB), container(APP))
    later = update(t, container(DB, State.EXITED, exit_code=1), container(APP))
    assert (later.state, later.ended_at) == ("converged", 100.0)


def test_degraded_generation_that_recovers_counts_as_converged() -> None:
    t = tracker()
    bad = update(t, container(DB, health=Health.UNHEALTHY), container(APP, State.CREATED))
    assert (bad.state, bad.reason) == ("degraded", "unhealthy")
    assert bad.message == "db: runs, but its health check fails"
    assert bad.percent < 100
    assert update(t, container(DB), container(APP)).state == "converged"


def test_crash_loop_of_a_started_service_degrades_a_converged_generation() -> None:
    t = tracker()
    update(t, container(DB), container(APP, State.CREATED))
    assert update(t, container(DB), container(APP)).state == "converged"
    # A container without a health check is ready while it runs, also just before its first exit.
    late = update(t, container(DB), container(APP, State.RESTARTING), ledger=LOOPING, wall=101.0)
    assert (late.state, late.reason, late.ended_at) == ("degraded", "crash_looping", 100.0)
    assert late.message.startswith("app: ends again and again")
    assert update(t, container(DB), container(APP), wall=400.0).state == "converged"
    # With back-off the service seems to recover before every retry.
    again = update(t, container(DB), container(APP, State.RESTARTING), ledger=LOOPING, wall=402.0)
    assert (again.state, again.ended_at) == ("degraded", 100.0)


def test_crash_loop_of_another_service_or_after_the_trial_is_drift() -> None:
    looping = container(APP, State.RESTARTING)
    untouched = tracker()
    update(untouched, container(DB, health=Health.STARTING), container(APP))
    update(untouched, container(DB), container(APP))
    assert update(untouched, container(DB), looping, ledger=LOOPING, wall=101.0).state == "converged"
    long_after = tracker()
    update(long_after, container(DB), container(APP, State.CREATED))
    update(long_after, container(DB), container(APP))
    assert update(long_after, container(DB), looping, ledger=LOOPING, wall=101.0 + TRIAL).state == "converged"


def test_expected_end_is_known_only_while_progressing() -> None:
    t = tracker()
    assert update(t, eta=12.34).expected_at == 112.3
    assert update(t, container(DB), container(APP), eta=0.0).expected_at is None


def test_steps_are_recorded_with_their_attempts() -> None:
    t = tracker()
    t.started(START, 1.0)
    t.finished(START, 2.0, "no")
    t.started(START, 3.0)
    (record,) = t.records.values()
    assert (record.state, record.attempts, record.error) == ("running", 2, "")
    t.finished(START, 4.0)
    (record,) = t.records.values()
    assert (record.state, record.attempts, record.started_at, record.finished_at) == ("done", 2, 3.0, 4.0)
    t.started(START, 5.0)
    assert next(iter(t.records.values())).attempts == 1


def test_result_of_an_unsent_step_is_ignored() -> None:
    t = tracker()
    t.finished(START, 1.0)
    assert t.records == {}


def test_waiting_steps_are_listed_after_sent_ones() -> None:
    t = tracker()
    t.started(START, 1.0)
    steps = update(t, container(DB, State.CREATED), container(APP, State.CREATED)).steps
    assert [(s.service, s.state) for s in steps] == [("db", "running"), ("app", "waiting")]
    down = update(tracker(), container(DB), container(APP), on=False).steps
    assert {(s.service, s.action, s.state) for s in down} == {
        ("db", "stop", "waiting"),
        ("app", "stop", "waiting"),
    }


def test_records_are_bounded() -> None:
    t = tracker()
    for number in range(KEPT_STEPS + 50):
        t.started(START._replace(service=f"s{number}"), 1.0)
    assert len(t.records) == KEPT_STEPS


def test_progress_survives_the_state_directory() -> None:
    t = tracker()
    t.started(START, 1.0)
    before = update(t, container(DB, State.CREATED))
    after = decode_progress(7, encode_progress(before))
    assert after == before


UP = ServiceStatus(Phase.CONVERGED, "as_desired", "")
STARTING = ServiceStatus(Phase.PROGRESSING, "starting", "starts")
STUCK = ServiceStatus(Phase.DEGRADED, "unhealthy", "fails", stuck=True)
LOOPS = ServiceStatus(Phase.DEGRADED, "crash_looping", "ends again and again", stuck=True)
OPEN, CONVERGED = Outcome("progressing"), Outcome("converged", converged_at=50.0)
DEGRADED = Outcome("degraded", "unhealthy", "web: fails", 7.0)


@pytest.mark.parametrize(
    ("before", "now", "wall", "after"),
    [
        (OPEN, STARTING, 60.0, OPEN),
        (OPEN, UP, 60.0, Outcome("converged", converged_at=60.0)),
        (OPEN, STUCK, 60.0, Outcome("degraded", "unhealthy", "web: fails")),
        (DEGRADED, STUCK, 60.0, DEGRADED),
        (DEGRADED, STARTING, 60.0, DEGRADED),
        (DEGRADED, UP, 60.0, Outcome("converged", converged_at=60.0)),
        (CONVERGED, STUCK, 60.0, CONVERGED),
        (CONVERGED, LOOPS, 60.0, Outcome("degraded", "crash_looping", "web: ends again and again", 50.0)),
        (
            CONVERGED,
            LOOPS,
            50.0 + TRIAL,
            Outcome("degraded", "crash_looping", "web: ends again and again", 50.0),
        ),
        (CONVERGED, LOOPS, 50.1 + TRIAL, CONVERGED),
        (CONVERGED, LOOPS, 49.0, CONVERGED),  # the clock was set back
        (Outcome("superseded"), UP, 60.0, Outcome("superseded")),
    ],
)
def test_outcome_follows_the_table(before: Outcome, now: ServiceStatus, wall: float, after: Outcome) -> None:
    assert next_outcome(before, {"web": now}, {"web"}, fresh=True, wall=wall) == after


def test_an_observation_from_before_a_generation_does_not_end_it() -> None:
    assert next_outcome(OPEN, {"web": UP}, {"web"}, fresh=False, wall=60.0) == OPEN


def test_a_crash_loop_of_a_service_that_the_generation_did_not_start_is_drift() -> None:
    assert next_outcome(CONVERGED, {"web": LOOPS}, set(), fresh=True, wall=60.0) == CONVERGED
