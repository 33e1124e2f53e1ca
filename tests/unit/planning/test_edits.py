"""``resolve``: the meaning of start, stop, restart, accept and put, and the rejections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.model.desired import Desired, GroupState, Suspension
from reconciler.model.edit import Edit, Verb
from reconciler.model.ledger import Clock, Ledger
from reconciler.model.observed import ObservedState
from reconciler.model.stack import Group, Stack, Strength
from reconciler.planning.edits import Rejected, resolve
from reconciler.planning.gates import PlanInputs, group_gate
from tests.support.fixtures.api import a_stack, desired

STACK = a_stack()  # storage needs kafka, analytics needs storage, monitoring nothing
ON = GroupState(on=True)
OFF = GroupState(on=False)
FORCED = GroupState(on=True, force=True)


def an_edit(verb: Verb, group: str, **fields: Any) -> Edit:
    return Edit(verb=verb, groups=(group,), **fields)


def resolved(verb: Verb, before: Desired, group: str, **fields: Any) -> dict[str, GroupState]:
    states = resolve(an_edit(verb, group, **fields), STACK, before)
    assert not isinstance(states, Rejected), states
    return states


def rejected(verb: Verb, before: Desired, group: str, **fields: Any) -> Rejected:
    result = resolve(an_edit(verb, group, **fields), STACK, before)
    assert isinstance(result, Rejected), result
    return result


# --- start ----------------------------------------------------------------------------------------


def test_start_switches_a_group_on() -> None:
    assert resolved("start", desired(), "kafka") == {"kafka": ON}


def test_start_of_a_group_that_is_on_changes_nothing() -> None:
    assert resolved("start", desired(kafka=True), "kafka") == {}


def test_start_needs_dependencies_to_be_on_but_not_ready() -> None:
    assert resolved("start", desired(kafka=True), "storage") == {"storage": ON}


def test_start_is_rejected_while_a_dependency_is_off_and_names_the_remedy() -> None:
    assert rejected("start", desired(), "analytics") == Rejected(
        "dependency_off",
        "analytics needs storage, which is off",
        "add with_dependencies=true to start kafka and storage as well, "
        "or force=true to start analytics without",
    )


@pytest.mark.parametrize("state", [ON, FORCED, replace(ON, suspend=Suspension())])
def test_start_is_rejected_by_the_gate_that_would_hold_the_group(state: GroupState) -> None:
    before = desired(storage=state)
    result = rejected("start", before, "storage")
    after = replace(before, groups={**before.groups, "storage": ON})
    gate = group_gate(PlanInputs(STACK, after, ObservedState(), Ledger(), Clock(0.0, 0.0)), "storage")
    assert gate.hold is not None
    assert (result.reason, result.message) == (gate.hold.reason, f"storage {gate.hold.message}")


def test_start_of_a_suspended_group_is_not_rejected() -> None:
    suspended = GroupState(on=False, suspend=Suspension())
    assert resolved("start", desired(kafka=suspended), "kafka") == {"kafka": replace(suspended, on=True)}


def test_start_stores_force() -> None:
    assert resolved("start", desired(), "storage", force=True) == {"storage": FORCED}
    assert resolved("start", desired(storage=True), "storage", force=True) == {"storage": FORCED}


def test_start_without_force_removes_a_stored_one() -> None:
    assert resolved("start", desired(kafka=True, storage=FORCED), "storage") == {"storage": ON}


def test_cascade_starts_all_dependencies_in_display_order() -> None:
    states = resolved("start", desired(), "analytics", cascade=True)
    assert list(states.items()) == [("kafka", ON), ("storage", ON), ("analytics", ON)]


def test_cascade_reaches_dependencies_of_a_group_that_is_on() -> None:
    states = resolved("start", desired(storage=True), "analytics", cascade=True)
    assert states == {"kafka": ON, "analytics": ON}


def test_cascade_starts_dependencies_without_a_force_of_earlier() -> None:
    before = desired(kafka=GroupState(on=False, force=True))
    states = resolved("start", before, "storage", cascade=True, force=True)
    assert states == {"kafka": ON, "storage": FORCED}


# --- stop -----------------------------------------------------------------------------------------


def test_stop_switches_a_group_off_and_removes_force() -> None:
    assert resolved("stop", desired(storage=FORCED), "storage") == {"storage": OFF}


def test_stop_is_rejected_while_dependents_are_on() -> None:
    everything = desired(kafka=True, storage=True, analytics=True)
    assert rejected("stop", everything, "kafka") == Rejected(
        "dependents_on",
        "storage depends on kafka and is on",
        "add with_dependents=true to stop storage and analytics as well, or force=true to stop kafka alone",
    )


def test_stop_with_force_leaves_dependents_on_and_stores_no_force() -> None:
    assert resolved("stop", desired(kafka=True, storage=True), "kafka", force=True) == {"kafka": OFF}


def test_cascade_stops_all_dependents() -> None:
    everything = desired(kafka=True, storage=True, analytics=True, monitoring=True)
    states = resolved("stop", everything, "kafka", cascade=True)
    assert states == {"kafka": OFF, "storage": OFF, "analytics": OFF}


def test_stop_of_a_group_that_is_off_is_not_rejected() -> None:
    assert resolved("stop", desired(storage=True), "kafka") == {}


def test_messages_list_at_most_eight_groups() -> None:
    names = [f"g{i}" for i in range(40)]
    groups = {"base": Group(name="base", services=())}
    groups |= {n: Group(name=n, services=(), depends_on={"base": Strength.ON}) for n in names}
    stack = Stack(name="big", groups=groups, services={})
    result = resolve(an_edit("stop", "base"), stack, Desired(groups=dict.fromkeys(groups, ON)))
    assert isinstance(result, Rejected)
    assert result.message.startswith("g0, g1, g2, g3, g4, g5, g6, g7 and 32 more depend on base")


# --- restart and accept ---------------------------------------------------------------------------


def test_restart_and_accept_store_the_time_of_the_request() -> None:
    before = desired(kafka=True)
    assert resolved("restart", before, "kafka", at=5.0) == {"kafka": replace(ON, restarted_at=5.0)}
    assert resolved("accept", before, "kafka", at=5.0) == {"kafka": replace(ON, accepted_at=5.0)}


@pytest.mark.parametrize("verb", ["restart", "accept"])
def test_restart_and_accept_of_a_group_that_is_off_are_rejected(verb: Verb) -> None:
    result = rejected(verb, desired(), "kafka", at=5.0)
    assert (result.reason, result.message.partition(",")[0]) == ("group_off", "kafka is off")


# --- put ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suspend", [Suspension(), Suspension(9e9, "camera work")])
def test_put_suspends(suspend: Suspension) -> None:
    states = resolved("put", desired(kafka=True), "kafka", on=True, suspend=suspend)
    assert states == {"kafka": replace(ON, suspend=suspend)}


def test_put_of_the_same_state_changes_nothing() -> None:
    before = desired(kafka=GroupState(on=True, suspend=Suspension()))
    assert resolved("put", before, "kafka", on=True, suspend=Suspension()) == {}


def test_put_keeps_a_suspension_unless_it_ends_it() -> None:
    before = desired(kafka=GroupState(on=False, suspend=Suspension(reason="camera work")))
    assert resolved("put", before, "kafka", on=True) == {"kafka": replace(before.groups["kafka"], on=True)}
    assert resolved("put", before, "kafka", on=False, resume=True) == {"kafka": OFF}


def test_put_is_rejected_like_start_and_stop() -> None:
    assert rejected("put", desired(), "storage", on=True).reason == "dependency_off"
    assert rejected("put", desired(kafka=True, storage=True), "kafka", on=False).reason == "dependents_on"


def test_put_of_a_blocked_group_may_repeat_its_state_and_suspend_it() -> None:
    blocked = desired(storage=True)
    assert resolved("put", blocked, "storage", on=True) == {}
    states = resolved("put", blocked, "storage", on=True, suspend=Suspension())
    assert states == {"storage": replace(ON, suspend=Suspension())}


def test_put_off_with_force_stores_no_force() -> None:
    assert resolved("put", desired(kafka=True, storage=True), "kafka", on=False, force=True) == {"kafka": OFF}


# --- all verbs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["start", "stop", "restart", "accept", "put"])
def test_an_unknown_group_is_rejected(verb: Verb) -> None:
    result = rejected(verb, desired(), "kafak")
    assert (result.reason, result.message) == ("unknown_group", "there is no group 'kafak'")
    assert "kafka, storage, analytics, monitoring" in result.remedy


def test_an_edit_of_another_revision_is_rejected_first() -> None:
    before = replace(desired(), revision="0123456789abcdef0123")
    assert rejected("start", before, "kafak", if_match=("fedcba9876543210",)).reason == "revision_changed"
    assert rejected("start", before, "kafka", if_match=()).reason == "revision_changed"
    assert resolved("start", before, "kafka", if_match=("x", "0123456789abcdef")) == {"kafka": ON}


def test_several_groups_are_resolved_in_order() -> None:
    edit = Edit(verb="start", groups=("kafka", "storage"))
    assert resolve(edit, STACK, desired()) == {"kafka": ON, "storage": ON}
    wrong_order = Edit(verb="start", groups=("storage", "kafka"))
    assert isinstance(resolve(wrong_order, STACK, desired()), Rejected)


STATES = st.fixed_dictionaries(
    {name: st.builds(GroupState, on=st.booleans(), force=st.booleans()) for name in STACK.groups}
)
GROUPS = st.sampled_from(sorted(STACK.groups))


def after(before: Mapping[str, GroupState], edit: Edit) -> Desired:
    states = resolve(edit, STACK, Desired(groups=before))
    assert not isinstance(states, Rejected)
    return Desired(groups={**before, **states})


@settings(derandomize=True)
@given(STATES, GROUPS, st.booleans())
def test_after_a_start_with_cascade_every_dependency_is_on(
    states: Mapping[str, GroupState], group: str, force: bool
) -> None:
    edit = an_edit("start", group, force=force, cascade=True)
    result = after(states, edit)
    below = {"analytics": {"storage", "kafka"}, "storage": {"kafka"}}.get(group, set())
    assert all(result.groups[name].on for name in {group, *below})
    assert result.groups[group].force is force
    assert resolve(edit, STACK, result) == {}


@settings(derandomize=True)
@given(STATES, GROUPS)
def test_after_a_stop_with_cascade_every_dependent_is_off(
    states: Mapping[str, GroupState], group: str
) -> None:
    result = after(states, an_edit("stop", group, cascade=True))
    above = {"kafka": {"storage", "analytics"}, "storage": {"analytics"}}.get(group, set())
    assert not any(result.groups[name].on for name in {group, *above})
    assert not result.groups[group].force
    assert resolve(an_edit("stop", group), STACK, result) == {}


@settings(derandomize=True)
@given(STATES, GROUPS, st.booleans(), st.booleans())
def test_without_cascade_no_other_group_changes(
    states: Mapping[str, GroupState], group: str, on: bool, force: bool
) -> None:
    result = resolve(an_edit("put", group, on=on, force=force), STACK, Desired(groups=states))
    if isinstance(result, Rejected):
        assert not force
        assert result.reason in {"dependency_off", "dependents_on"}
    else:
        assert set(result) <= {group}
