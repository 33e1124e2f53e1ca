"""A container whose state can't be read: nothing is done to it or for its service, all others go on."""

from __future__ import annotations

from dataclasses import replace

from reconciler.model.desired import GroupState
from reconciler.model.ledger import BuiltFrom, Ledger
from reconciler.model.observed import State
from reconciler.planning.record_observation import record_observation
from reconciler.planning.status import Phase, outcome, summarise
from tests.support.fixtures.builders import NOW, a_stack, container, desire, look, planned, service
from tests.support.fixtures.plans import ALONE, APP, DB, OFF, ON, ONE, ONE_ON, TIERS, WEB, alone, text

ODD = alone(State.UNKNOWN, error="the engine reports the state 'odd'", started_at=0.0)
LEFT = "blocked (state_unknown: kafka is left alone: the engine reports the state 'odd')"


def test_it_is_left_alone_whether_its_group_is_on_or_off() -> None:
    assert text(ONE, ONE_ON, ODD) == f"kafka: {LEFT}"
    assert text(ONE, desire(ONE), ODD) == f"kafka: {LEFT}"


def test_no_second_one_is_made_started_or_removed_beside_it() -> None:
    for state in (State.CREATED, State.RUNNING, State.EXITED, State.DEAD):
        for desired in (ONE_ON, desire(ONE)):
            assert text(ONE, desired, ODD, alone(state, id="second")) == f"kafka: {LEFT}"


def test_a_change_and_a_restart_that_are_due_wait_as_well() -> None:
    restart = desire(ONE, main=GroupState(on=True, restarted_at=NOW.wall - 1))
    assert text(ONE, restart, replace(ODD, config_hash="old", image="old", restart="no")) == f"kafka: {LEFT}"


def test_its_service_is_degraded_with_a_stable_reason() -> None:
    plan = planned(ONE, ONE_ON, look(ONE, ODD))
    summaries = summarise(plan, Ledger(), {})
    assert (summaries["kafka"].phase, summaries["kafka"].reason) == (Phase.DEGRADED, "state_unknown")
    assert outcome(summaries.values()) == "degraded"


def test_other_services_are_repaired_and_what_depends_on_it_waits() -> None:
    odd = container(APP, State.UNKNOWN, error="odd")
    assert text(TIERS, ON, container(DB, State.EXITED), odd, container(WEB, State.EXITED)) == (
        "db: start (stopped: exited with code 0)\n"
        "app: blocked (state_unknown: app is left alone: odd)\n"
        "web: waits (dependency_not_ready: waits for app to start)"
    )


def test_what_others_need_stops_though_it_does_not() -> None:
    odd = container(APP, State.UNKNOWN, error="odd")
    seen = text(TIERS, OFF, container(DB), odd, container(APP, id="second"), container(WEB))
    assert seen == (
        "db: stop (unwanted: main is off)\n"
        "app: blocked (state_unknown: app is left alone: odd)\n"
        "web: stop (unwanted: main is off)"
    )


def test_an_orphan_that_is_to_be_pruned_is_left_alone() -> None:
    stack = a_stack({"main": [ALONE]}, prune=True)
    orphan = container(service("gone"), State.UNKNOWN, error="odd")
    seen = text(stack, desire(stack, "main"), alone(), orphan)
    assert seen == "gone: blocked (state_unknown: gone is left alone: odd)"


def test_what_is_remembered_of_it_stays() -> None:
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


def test_what_shares_its_network_is_not_remade_for_it() -> None:
    vpn, guest = service("vpn"), service("guest", shares=("vpn",), networks=())
    stack = a_stack({"main": [vpn, guest]})
    seen = [container(vpn, State.UNKNOWN, id="1", error="odd"), container(guest, joins=("1",))]
    plan = planned(stack, desire(stack, "main"), look(stack, *seen, container(vpn, id="2")))
    assert plan.steps == ()
