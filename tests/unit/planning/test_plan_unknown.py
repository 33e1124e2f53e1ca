"""A container whose state can't be read: its service gets no step, all others do."""

from __future__ import annotations

from dataclasses import replace

from reconciler.model.desired import GroupState
from reconciler.model.ledger import BuiltFrom, Ledger
from reconciler.model.observed import State
from reconciler.planning.record_observation import record_observation
from reconciler.planning.status import Phase, outcome, summarise
from tests.support.fixtures.builders import NOW, a_stack, container, desire, look, planned, service
from tests.support.fixtures.plans import (
    ALONE,
    APP,
    DB,
    OFF,
    ON,
    ONE,
    ONE_ON,
    TIERS,
    WEB,
    kafka,
    text,
)

ODD = kafka(State.UNKNOWN, error="the engine reports the state 'odd'", started_at=0.0)
LEFT = "blocked (state_unknown: kafka is left alone: the engine reports the state 'odd')"


def test_it_is_left_alone_whether_its_group_is_on_or_off() -> None:
    assert text(ONE, ONE_ON, ODD) == f"kafka: {LEFT}"
    assert text(ONE, desire(ONE), ODD) == f"kafka: {LEFT}"


def test_no_second_container_is_created_started_or_removed_beside_it() -> None:
    for state in (State.CREATED, State.RUNNING, State.EXITED, State.DEAD):
        for desired in (ONE_ON, desire(ONE)):
            assert text(ONE, desired, ODD, kafka(state, id="second")) == f"kafka: {LEFT}"


def test_changes_and_restarts_wait_too() -> None:
    restart = desire(ONE, main=GroupState(on=True, restarted_at=NOW.wall - 1))
    assert text(ONE, restart, replace(ODD, config_hash="old", image="old", restart="no")) == f"kafka: {LEFT}"


def test_its_service_is_degraded_with_a_stable_reason() -> None:
    plan = planned(ONE, ONE_ON, look(ONE, ODD))
    summaries = summarise(plan, Ledger(), {})
    assert (summaries["kafka"].phase, summaries["kafka"].reason) == (Phase.DEGRADED, "state_unknown")
    assert outcome(summaries.values()) == "degraded"


def test_other_services_are_repaired_and_its_dependents_wait() -> None:
    odd = container(APP, State.UNKNOWN, error="odd")
    assert text(TIERS, ON, container(DB, State.EXITED), odd, container(WEB, State.EXITED)) == (
        "db: start (stopped: exited with code 0)\n"
        "app: blocked (state_unknown: app is left alone: odd)\n"
        "web: waits (dependency_not_ready: waits for app to start)"
    )


def test_its_dependencies_stop_without_it() -> None:
    odd = container(APP, State.UNKNOWN, error="odd")
    seen = text(TIERS, OFF, container(DB), odd, container(APP, id="second"), container(WEB))
    assert seen == (
        "db: stop (unwanted: main is off)\n"
        "app: blocked (state_unknown: app is left alone: odd)\n"
        "web: stop (unwanted: main is off)"
    )


def test_an_orphan_in_this_state_is_not_pruned() -> None:
    stack = a_stack({"main": [ALONE]}, prune=True)
    orphan = container(service("gone"), State.UNKNOWN, error="odd")
    seen = text(stack, desire(stack, "main"), kafka(), orphan)
    assert seen == "gone: blocked (state_unknown: gone is left alone: odd)"


def test_its_ledger_entries_stay() -> None:
    known = BuiltFrom("d", {}, "i", mounts={})
    ledger = Ledger(
        made={ODD.id: known},
        stopped={ODD.id: 5.0},
        cut={ODD.id: 5.0},
        at_work={ODD.id: 5.0},
        live={"kafka": ODD.id},
        settled={"kafka": "x"},
    )
    assert record_observation(ONE, ONE_ON, look(ONE, ODD), ledger, NOW, chance=0.5) == ledger


def test_a_container_that_shares_its_network_is_not_recreated() -> None:
    vpn, guest = service("vpn"), service("guest", shares=("vpn",), networks=())
    stack = a_stack({"main": [vpn, guest]})
    seen = [container(vpn, State.UNKNOWN, id="1", error="odd"), container(guest, joins=("1",))]
    plan = planned(stack, desire(stack, "main"), look(stack, *seen, container(vpn, id="2")))
    assert plan.steps == ()
