"""Services with several or no containers, and with more or fewer than the Compose file declares."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconciler.controller.ledger_codec import decode_ledger, encode_ledger
from reconciler.model.backoff import Failure
from reconciler.model.desired import Desired, GroupState, Suspension
from reconciler.model.ledger import Clock, Ledger, Restarts
from reconciler.model.observed import Action, Container, State
from reconciler.model.stack import Service, Stack
from reconciler.planning.drift import DriftKind
from reconciler.planning.planner import Plan, ServicePlan
from reconciler.planning.record_observation import mark_settled, record_observation
from reconciler.planning.status import outcome, summarise
from tests.support.fixtures.builders import NOW, a_stack, container, desire, look, planned, service

WEB = service("web", replicas=3)
APP = service("app", "web:healthy")
STACK = a_stack({"main": [WEB, APP]})
ON, OFF = desire(STACK, "main"), desire(STACK)
SEED = service("seed", replicas=0, restart="no")
JOBS = a_stack({"main": [SEED, service("app", "seed:completed", "web"), WEB]})
LATER = Clock(NOW.wall + 60, NOW.mono + 60)


def replica(number: int, state: State = State.RUNNING, of: Service = WEB, **fields: Any) -> Container:
    values = {"id": f"id-{of.name}-{number}", "name": of.name_of(number), "number": number, **fields}
    return container(of, state, **values)


def three(*states: State) -> list[Container]:
    chosen = states or (State.RUNNING,) * 3
    return [replica(number, state) for number, state in enumerate(chosen, 1)]


def text(*containers: Container, desired: Desired = ON, stack: Stack = STACK, **more: Any) -> str:
    return str(planned(stack, desired, look(stack, *containers), **more))


def steps(plan: Plan) -> list[tuple[str, str]]:
    return [(str(step.action), step.container) for step in plan.steps]


def one_pass(
    *containers: Container,
    desired: Desired = ON,
    stack: Stack = STACK,
    ledger: Ledger | None = None,
    now: Clock = NOW,
) -> tuple[Plan, Ledger]:
    """Record the observation, plan, record what settled, as a pass does."""
    observed = look(stack, *containers)
    ledger = record_observation(stack, desired, observed, ledger or Ledger(), now, chance=0.5)
    plan = planned(stack, desired, observed, ledger, now)
    return plan, mark_settled(ledger, plan)


# --- none -----------------------------------------------------------------------------------------


def test_a_service_scaled_to_zero_creates_nothing_and_delays_nothing() -> None:
    result = planned(JOBS, desire(JOBS, "main"), look(JOBS, *three()))
    assert str(result) == "app: create (missing: has no container)"
    seed = result.services["seed"]
    assert (seed.settled, seed.wanted, seed.ready, seed.drifts) == (True, False, False, ())
    summaries = summarise(result, Ledger(), {})
    assert summaries["seed"][1:3] == ("scaled_to_zero", "scaled to zero in the Compose file")
    done = planned(JOBS, desire(JOBS, "main"), look(JOBS, *three(), container(JOBS.services["app"])))
    assert str(done) == "nothing to do"
    assert outcome(summarise(done, Ledger(), {}).values()) == "converged"
    assert text(desired=desire(JOBS), stack=JOBS) == "nothing to do"


def test_a_group_scaled_to_zero_delays_no_group() -> None:
    stack = a_stack({"base": [SEED], "top needs base:ready": [service("api")]})
    assert (
        text(desired=desire(stack, "base", "top"), stack=stack) == "api: create (missing: has no container)"
    )


def test_sharing_the_network_of_a_service_scaled_to_zero_is_blocked() -> None:
    stack = a_stack({"main": [service("vpn", replicas=0), service("guest", shares=("vpn",))]})
    assert text(desired=desire(stack, "main"), stack=stack) == (
        "guest: blocked (dependency_scaled_to_zero: shares the network or processes of vpn, "
        "which is scaled to zero)"
    )


def test_a_container_of_a_service_scaled_to_zero_is_reported_until_accepted() -> None:
    ran = replica(1, State.EXITED, SEED)
    result, ledger = one_pass(
        *three(), ran, container(JOBS.services["app"]), stack=JOBS, desired=desire(JOBS, "main")
    )
    assert str(result) == "nothing to do"
    assert [(d.kind, d.detail) for d in result.drifts] == [
        (DriftKind.DUPLICATE, "seed is more than wanted: 1 container here, 0 in the Compose file")
    ]
    accepted = desire(JOBS, main=GroupState(on=True, accepted_at=NOW.wall + 1))
    result, _ = one_pass(
        *three(), ran, container(JOBS.services["app"]), stack=JOBS, desired=accepted, ledger=ledger, now=LATER
    )
    assert (
        str(result)
        == "seed#1: remove (duplicate: seed is more than wanted: 1 container here, 0 in the Compose file)"
    )
    running, _ = one_pass(replica(1, of=SEED), stack=JOBS, desired=desire(JOBS))
    assert str(running) == "seed: stop (unwanted: main is off)"


# --- missing ones ---------------------------------------------------------------------------------


def test_all_missing_replicas_are_created_and_started() -> None:
    assert text() == (
        "web#1: create (missing: has no container)\n"
        "web#2: create (missing: has no container)\n"
        "web#3: create (missing: has no container)\n"
        "app: create (missing: has no container)"
    )
    result = planned(STACK, ON, look(STACK, *three(*[State.CREATED] * 3)))
    assert steps(result) == [
        ("start", "id-web-1"),
        ("start", "id-web-2"),
        ("start", "id-web-3"),
        ("create", ""),
    ]
    assert {step.service for step in result.steps} == {"web", "app"}


def test_a_service_is_ready_when_all_replicas_are() -> None:
    app = container(APP, State.CREATED)
    waiting = planned(STACK, ON, look(STACK, *three(State.RUNNING, State.CREATED, State.RUNNING), app))
    assert not waiting.services["web"].ready
    assert "app: waits (dependency_not_ready: waits for web#2 to be running)" in str(waiting)
    assert waiting.services["app"].wait
    assert waiting.services["app"].wait.on == ("web",)
    ready = planned(STACK, ON, look(STACK, *three(), app))
    assert ready.services["web"].ready
    assert str(ready) == "app: start (stopped: was created and never started)"


def test_a_missing_replica_gets_the_next_number_as_with_compose() -> None:
    first, _, third = three()
    result, ledger = one_pass(*three(), container(APP))
    assert str(result) == "nothing to do"
    result, _ = one_pass(first, third, container(APP), ledger=ledger)
    assert str(result) == "web#4: create (missing: has no container)"
    assert [(d.service, d.kind, d.pending, d.detail) for d in result.drifts] == [
        ("web", DriftKind.MISSING, False, "replica 4 has no container")
    ]
    assert not result.services["web"].settled


def test_each_exited_replica_is_started_and_no_other_changed() -> None:
    plan = planned(STACK, ON, look(STACK, *three(State.RUNNING, State.EXITED, State.EXITED), container(APP)))
    assert steps(plan) == [("start", "id-web-2"), ("start", "id-web-3")]
    assert [d.detail for d in plan.drifts] == [
        "replica 2 exited with code 0",
        "replica 3 exited with code 0",
    ]


def test_the_back_off_of_a_replica_delays_no_other() -> None:
    dead = three(State.EXITED, State.EXITED, State.RUNNING)
    first = planned(STACK, ON, look(STACK, *dead, container(APP)))
    inputs = first.services["web"].units[0].inputs
    ledger = Ledger(failures={"web#1": Failure(3, NOW.mono + 9, inputs, "exited", "exited with code 1", 0.0)})
    result = planned(STACK, ON, look(STACK, *dead, container(APP)), ledger)
    assert steps(result) == [("start", "id-web-2")]
    assert result.due == NOW.mono + 9


def test_a_crash_looping_replica_makes_the_service_degraded() -> None:
    ledger = Ledger(restarts={"web#2": Restarts("id-web-2", 3, (NOW.mono - 3, NOW.mono - 1))})
    result = planned(STACK, ON, look(STACK, *three(), container(APP)), ledger)
    assert not result.services["web"].ready
    summary = summarise(result, ledger, {})["web"]
    assert (summary.phase, summary.reason) == ("degraded", "crash_looping")
    assert summary.message.startswith("replica 2: ends again and again")


def test_exits_are_recorded_per_replica() -> None:
    _, ledger = one_pass(*three(), container(APP))
    killed = replica(2, State.EXITED, exit_code=137, finished_at=NOW.wall)
    _, ledger = one_pass(replica(1), killed, replica(3), container(APP), ledger=ledger, now=LATER)
    assert {name: end.container for name, end in ledger.exits.items()} == {"web#2": "id-web-2"}
    assert ledger.failures.keys() == {"web#2"}
    _, ledger = one_pass(replica(1), replica(3), replica(4), container(APP), ledger=ledger, now=LATER)
    assert not ledger.failures


# --- together -------------------------------------------------------------------------------------


def test_all_replicas_stop_with_the_group_after_their_dependents() -> None:
    first = planned(STACK, OFF, look(STACK, *three(), container(APP)))
    assert steps(first) == [("stop", "id-app")]
    assert first.services["web"].wait
    then = planned(STACK, OFF, look(STACK, *three(), container(APP, State.EXITED)))
    assert steps(then) == [("stop", f"id-web-{number}") for number in (1, 2, 3)]
    assert {step.grace for step in then.steps} == {WEB.stop_grace}


def test_surplus_containers_stop_with_the_group() -> None:
    result = planned(STACK, OFF, look(STACK, *three(), replica(4)))
    assert len(result.steps) == 4
    one = a_stack({"main": [service("web")]})
    single = planned(one, desire(one), look(one, replica(1), replica(2)))
    assert str(single) == "web: stop (unwanted: main is off)"


def test_a_restart_restarts_each_replica_once() -> None:
    asked = desire(STACK, main=GroupState(on=True, restarted_at=NOW.wall - 1))
    result = planned(STACK, asked, look(STACK, *three(), container(APP)))
    assert steps(result) == [("stop", "id-app")]
    result = planned(STACK, asked, look(STACK, *three(), container(APP, started_at=NOW.wall)))
    assert [step.cause for step in result.steps] == ["restart"] * 3
    again = [replica(number, started_at=NOW.wall) for number in (1, 2, 3)]
    assert text(*again, container(APP, started_at=NOW.wall), desired=asked) == "nothing to do"


def test_a_blocked_or_suspended_group_has_one_reason_and_no_steps() -> None:
    suspended = desire(STACK, main=GroupState(on=True, suspend=Suspension()))
    result = planned(STACK, suspended, look(STACK, replica(1), replica(2), replica(3), replica(4)))
    assert not result.steps
    assert summarise(result, Ledger(), {})["web"].phase == "suspended"


# --- recreation -----------------------------------------------------------------------------------


def old(number: int, state: State = State.RUNNING, **fields: Any) -> Container:
    return replica(number, state, **{"config_hash": "old", **fields})


def test_a_new_definition_recreates_one_replica_at_a_time() -> None:
    app = container(APP)
    first = planned(STACK, ON, look(STACK, old(1), old(2), old(3), app))
    assert str(first) == (
        "web#1: stop (definition: was created from another definition)\n"
        "web#2: waits (replica_first: waits for web#1 to be recreated and ready)\n"
        "web#3: waits (replica_first: waits for web#1 to be recreated and ready)"
    )
    assert steps(first) == [("stop", "id-web-1")]
    ended = planned(STACK, ON, look(STACK, old(1, State.EXITED), old(2), old(3), app))
    assert [(str(step.action), step.unit, step.container) for step in ended.steps] == [
        ("recreate", "web#1", "id-web-1")
    ]
    made = planned(STACK, ON, look(STACK, replica(1, State.CREATED), old(2), old(3), app))
    assert steps(made) == [("start", "id-web-1")]
    assert steps(planned(STACK, ON, look(STACK, replica(1), old(2), old(3), app))) == [("stop", "id-web-2")]
    last = planned(STACK, ON, look(STACK, replica(1), replica(2), old(3), app))
    assert steps(last) == [("stop", "id-web-3")]


def test_a_broken_definition_leaves_the_other_replicas_running() -> None:
    ledger = Ledger(restarts={"web#1": Restarts("id-web-1", 3, (NOW.mono - 3, NOW.mono - 1))})
    result = planned(STACK, ON, look(STACK, replica(1), old(2), old(3), container(APP)), ledger)
    assert not result.steps
    assert outcome(summarise(result, ledger, {}).values()) == "degraded"


def test_replicas_that_are_not_ready_are_recreated_at_once() -> None:
    result = planned(
        STACK, ON, look(STACK, old(1), old(2, State.EXITED), old(3, State.EXITED), container(APP))
    )
    assert [(str(step.action), step.unit) for step in result.steps] == [
        ("recreate", "web#2"),
        ("recreate", "web#3"),
    ]


def test_only_the_outdated_replica_is_recreated() -> None:
    app = container(APP)
    result = planned(STACK, ON, look(STACK, old(1), replica(2), replica(3), app))
    assert steps(result) == [("stop", "id-web-1")]
    ended = planned(STACK, ON, look(STACK, old(1, State.EXITED), replica(2), replica(3), app))
    assert steps(ended) == [("recreate", "id-web-1")]


def test_an_interrupted_recreation_of_a_replica_is_cleaned_up() -> None:
    left = replica(2, State.CREATED, id="new", name="ab12_web-2", created_at=NOW.wall - 60)
    result = planned(STACK, ON, look(STACK, replica(1), old(2), left, replica(3), container(APP)))
    assert steps(result) == [("stop", "id-web-2")]
    result = planned(
        STACK, ON, look(STACK, replica(1), old(2, State.EXITED), left, replica(3), container(APP))
    )
    assert steps(result) == [("remove", "id-web-2")]
    result = planned(STACK, ON, look(STACK, replica(1), left, replica(3), container(APP)))
    assert str(result) == "web#2: rename web-2 (altered: was changed by hand: name)"


def test_a_renamed_or_disconnected_replica_is_repaired() -> None:
    renamed = text(replica(1), replica(2, name="odd"), replica(3), container(APP))
    assert renamed == "web#2: rename web-2 (altered: was changed by hand: name)"
    cut = planned(STACK, ON, look(STACK, replica(1), replica(2, networks=()), replica(3), container(APP)))
    assert steps(cut) == [("stop", "id-web-2")]


# --- surplus containers ---------------------------------------------------------------------------

HELD = (
    "web#{number}: blocked (held_back: {name} is more than wanted: {here} containers here, "
    "{wanted} in the Compose file: waits to be accepted (`service-manager accept main`))"
)


def test_surplus_containers_are_reported_and_left_alone() -> None:
    result, ledger = one_pass(*three(), replica(4), container(APP))
    assert str(result) == HELD.format(number=4, name="web-4", here=4, wanted=3)
    assert [(d.kind, d.container) for d in result.drifts] == [(DriftKind.DUPLICATE, "id-web-4")]
    assert result.services["web"].ready
    summaries = summarise(result, ledger, {})
    assert (summaries["web"].phase, summaries["web"].reason) == ("blocked", "held_back")
    assert outcome(summaries.values()) == "degraded"
    # Only the number in the file counts, so this is also the case of a reduced number.
    one = a_stack({"main": [service("web"), APP]})
    reduced, _ = one_pass(*three(), container(APP), stack=one, desired=desire(one, "main"))
    assert str(reduced).splitlines() == [
        HELD.format(number=number, name=f"web-{number}", here=3, wanted=1) for number in (3, 2)
    ]


def test_accepted_surplus_is_stopped_then_removed_as_by_compose() -> None:
    accepted = desire(STACK, main=GroupState(on=True, accepted_at=NOW.wall + 1))
    _, ledger = one_pass(*three(), replica(4), replica(5), container(APP))
    ledger = decode_ledger(encode_ledger(ledger), NOW)
    result, ledger = one_pass(
        *three(), replica(4), replica(5), container(APP), desired=accepted, ledger=ledger, now=LATER
    )
    assert steps(result) == [("stop", "id-web-5"), ("stop", "id-web-4")]
    result, ledger = one_pass(
        *three(),
        replica(4),
        replica(5, State.EXITED),
        container(APP),
        desired=accepted,
        ledger=ledger,
        now=LATER,
    )
    assert steps(result) == [("remove", "id-web-5"), ("stop", "id-web-4")]
    # One container less needs no further acceptance.
    result, ledger = one_pass(
        *three(), replica(4), container(APP), desired=accepted, ledger=ledger, now=LATER
    )
    assert steps(result) == [("stop", "id-web-4")]
    result, ledger = one_pass(*three(), container(APP), desired=accepted, ledger=ledger, now=LATER)
    assert str(result) == "nothing to do"
    assert not ledger.surplus
    # A later container does.
    result, _ = one_pass(*three(), replica(6), container(APP), desired=accepted, ledger=ledger, now=LATER)
    assert not result.steps


def test_outdated_containers_then_the_highest_numbers_are_surplus() -> None:
    two = a_stack({"main": [service("web", replicas=2)]})
    result = planned(two, desire(two, "main"), look(two, old(1), replica(2), replica(3)))
    assert [d.container for d in result.drifts if d.kind is DriftKind.DUPLICATE] == ["id-web-1"]


def test_the_last_replica_keeps_its_name() -> None:
    one = a_stack({"main": [service("web")]})
    assert text(replica(2), stack=one, desired=desire(one, "main")) == "nothing to do"


def test_replicas_are_recreated_beside_the_surplus() -> None:
    one = a_stack({"main": [service("web")]})
    result = planned(one, desire(one, "main"), look(one, old(1), old(2)))
    assert steps(result) == [("stop", "id-web-1")]
    ended = planned(one, desire(one, "main"), look(one, old(1, State.EXITED), old(2)))
    assert steps(ended) == [("recreate", "id-web-1")]


def test_a_stopped_surplus_container_stays_down_and_is_not_degraded() -> None:
    result, ledger = one_pass(*three(), replica(4, State.EXITED), container(APP))
    assert str(result) == "nothing to do"
    assert [d.kind for d in result.drifts] == [DriftKind.DUPLICATE]
    assert outcome(summarise(result, ledger, {}).values()) == "converged"


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_any_number_of_replicas_is_reached_by_accepting(number: int) -> None:
    stack = a_stack({"main": [service("web", replicas=number)]})
    accepted = desire(stack, main=GroupState(on=True, accepted_at=NOW.wall + 1))
    containers: dict[str, Container] = {c.id: c for c in three()}
    _, ledger = one_pass(*containers.values(), stack=stack, desired=desire(stack, "main"))
    for _ in range(9):
        result, ledger = one_pass(
            *containers.values(), stack=stack, desired=accepted, ledger=ledger, now=LATER
        )
        for step in result.steps:
            if step.action is Action.STOP:
                containers[step.container] = replace(containers[step.container], state=State.EXITED)
            elif step.action is Action.REMOVE:
                del containers[step.container]
    assert sorted(c.number for c in containers.values()) == list(range(1, number + 1))
    assert all(one.settled for one in result.services.values())


def test_the_plan_of_a_replica_is_found_by_its_unit() -> None:
    result = planned(STACK, ON, look(STACK, *three(), container(APP)))
    unit = result.unit("web#2")
    assert isinstance(unit, ServicePlan)
    assert unit.container
    assert (unit.container.id, unit.container.service) == ("id-web-2", "web")
