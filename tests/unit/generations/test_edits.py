"""What start, stop, restart and PUT mean as edits of desired state, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.errors import UnknownGroup, WriteRefused
from reconciler.generations.edits import Changes, GroupEdit, accept, put, restart, start, stop
from reconciler.model.desired import Desired, GroupState, Suspension
from reconciler.model.stack import Group, Stack, Strength
from tests.support.fixtures.api import a_stack, desired, edited

STACK = a_stack()  # storage needs kafka, analytics needs storage, monitoring nothing
ON = GroupEdit(on=True)
OFF = GroupEdit(on=False)


def test_start_switches_on_what_is_off() -> None:
    assert start(STACK, desired(), "kafka") == {"kafka": ON}


def test_start_of_what_is_on_changes_nothing() -> None:
    assert start(STACK, desired(kafka=True), "kafka") == {}


def test_a_dependency_that_is_on_is_enough_however_far_it_is() -> None:
    assert start(STACK, desired(kafka=True), "storage") == {"storage": ON}


def test_start_is_refused_while_a_dependency_is_off_and_says_what_to_do() -> None:
    with pytest.raises(WriteRefused) as refused:
        start(STACK, desired(), "analytics")
    assert refused.value.reason == "dependency_off"
    assert str(refused.value) == "analytics needs storage, which is off"
    assert refused.value.remedy == (
        "add with_dependencies=true to start kafka and storage as well, "
        "or force=true to start analytics without"
    )


def test_start_of_a_blocked_group_is_refused_too() -> None:
    with pytest.raises(WriteRefused, match="storage needs kafka"):
        start(STACK, desired(storage=True), "storage")


def test_force_is_stored() -> None:
    assert start(STACK, desired(), "storage", force=True) == {"storage": GroupEdit(on=True, force=True)}


def test_force_is_stored_on_a_group_that_is_on() -> None:
    assert start(STACK, desired(storage=True), "storage", force=True) == {"storage": GroupEdit(force=True)}


def test_a_start_without_force_takes_it_away() -> None:
    forced = desired(kafka=True, storage=GroupState(on=True, force=True))
    assert start(STACK, forced, "storage") == {"storage": GroupEdit(force=False)}


def test_a_start_without_force_is_refused_where_only_force_held_it_up() -> None:
    with pytest.raises(WriteRefused):
        start(STACK, desired(storage=GroupState(on=True, force=True)), "storage")


def test_with_dependencies_reaches_all_the_way_down_in_display_order() -> None:
    changes = start(STACK, desired(), "analytics", with_dependencies=True)
    assert list(changes.items()) == [("kafka", ON), ("storage", ON), ("analytics", ON)]


def test_with_dependencies_reaches_through_a_group_that_is_on() -> None:
    changes = start(STACK, desired(storage=True), "analytics", with_dependencies=True)
    assert changes == {"kafka": ON, "analytics": ON}


def test_with_dependencies_starts_them_without_a_force_left_over() -> None:
    left = desired(kafka=GroupState(on=False, force=True))
    changes = start(STACK, left, "storage", with_dependencies=True, force=True)
    assert changes == {
        "kafka": GroupEdit(on=True, force=False),
        "storage": GroupEdit(on=True, force=True),
    }


def test_stop_switches_off_and_takes_force_away() -> None:
    forced = desired(storage=GroupState(on=True, force=True))
    assert stop(STACK, forced, "storage") == {"storage": GroupEdit(on=False, force=False)}


def test_stop_is_refused_while_dependents_are_on() -> None:
    everything = desired(kafka=True, storage=True, analytics=True)
    with pytest.raises(WriteRefused) as refused:
        stop(STACK, everything, "kafka")
    assert refused.value.reason == "dependents_on"
    assert str(refused.value) == "storage depends on kafka and is on"
    assert refused.value.remedy == (
        "add with_dependents=true to stop storage and analytics as well, or force=true to stop kafka alone"
    )


def test_a_forced_stop_leaves_the_dependents_on_and_stores_no_force() -> None:
    assert stop(STACK, desired(kafka=True, storage=True), "kafka", force=True) == {"kafka": OFF}


def test_with_dependents_reaches_all_the_way_up() -> None:
    everything = desired(kafka=True, storage=True, analytics=True, monitoring=True)
    changes = stop(STACK, everything, "kafka", with_dependents=True)
    assert changes == {"kafka": OFF, "storage": OFF, "analytics": OFF}


def test_stop_may_be_repeated_also_after_a_forced_one() -> None:
    assert stop(STACK, desired(storage=True), "kafka") == {}


def test_restart_sets_the_moment() -> None:
    assert restart(STACK, desired(kafka=True), "kafka", at=5.0) == {"kafka": GroupEdit(restarted_at=5.0)}


def test_accept_sets_the_moment_for_a_group_that_is_on() -> None:
    assert accept(STACK, desired(kafka=True), "kafka", at=5.0) == {"kafka": GroupEdit(accepted_at=5.0)}
    with pytest.raises(WriteRefused) as refused:
        accept(STACK, desired(), "kafka", at=5.0)
    assert refused.value.reason == "group_off"


def test_restart_of_a_group_that_is_off_is_refused() -> None:
    with pytest.raises(WriteRefused, match="kafka is off") as refused:
        restart(STACK, desired(), "kafka", at=5.0)
    assert refused.value.reason == "group_off"


@pytest.mark.parametrize("suspend", [True, Suspension(), Suspension(9e9, "camera work")])
def test_put_suspends(suspend: Suspension | bool) -> None:
    changes = put(STACK, desired(kafka=True), "kafka", on=True, suspend=suspend)
    assert changes == {"kafka": GroupEdit(suspend=suspend)}


def test_put_again_changes_nothing() -> None:
    held = desired(kafka=GroupState(on=True, suspend=Suspension()))
    assert put(STACK, held, "kafka", on=True, suspend=True) == {}


def test_put_without_a_word_of_suspend_leaves_it() -> None:
    held = desired(kafka=GroupState(on=False, suspend=Suspension(reason="camera work")))
    assert put(STACK, held, "kafka", on=True) == {"kafka": ON}
    assert put(STACK, held, "kafka", on=False, suspend=False) == {"kafka": GroupEdit(suspend=False)}


def test_put_is_refused_as_start_and_stop_are() -> None:
    with pytest.raises(WriteRefused, match="storage needs kafka"):
        put(STACK, desired(), "storage", on=True)
    with pytest.raises(WriteRefused, match="depends on kafka"):
        put(STACK, desired(kafka=True, storage=True), "kafka", on=False)


def test_put_says_again_of_a_blocked_group_what_holds_and_may_suspend_it() -> None:
    blocked = desired(storage=True)
    assert put(STACK, blocked, "storage", on=True) == {}
    assert put(STACK, blocked, "storage", on=True, suspend=True) == {"storage": GroupEdit(suspend=True)}


def test_put_off_by_force_stores_no_force() -> None:
    assert put(STACK, desired(kafka=True, storage=True), "kafka", on=False, force=True) == {"kafka": OFF}


def test_a_long_list_is_cut_short_for_people() -> None:
    names = [f"g{i}" for i in range(40)]
    groups = {"base": Group(name="base", services=())}
    groups |= {n: Group(name=n, services=(), depends_on={"base": Strength.ON}) for n in names}
    stack = Stack(name="big", groups=groups, services={})
    on = Desired(groups={name: GroupState(on=True) for name in groups})
    with pytest.raises(WriteRefused, match=r"g0, g1, g2, g3, g4, g5, g6, g7 and 32 more depend on base"):
        stop(stack, on, "base")


@pytest.mark.parametrize("decide", ["start", "stop", "restart", "put"])
def test_a_group_that_is_not_there(decide: str) -> None:
    calls = {
        "start": lambda: start(STACK, desired(), "kafak"),
        "stop": lambda: stop(STACK, desired(), "kafak"),
        "restart": lambda: restart(STACK, desired(), "kafak", at=1.0),
        "put": lambda: put(STACK, desired(), "kafak", on=True),
    }
    with pytest.raises(UnknownGroup, match="kafak") as refused:
        calls[decide]()
    assert "kafka, storage, analytics, monitoring" in refused.value.remedy


# --- laws -----------------------------------------------------------------------------------------

STATES = st.fixed_dictionaries(
    {name: st.builds(GroupState, on=st.booleans(), force=st.booleans()) for name in STACK.groups}
)
GROUPS = st.sampled_from(sorted(STACK.groups))


def carried_out(before: Desired, changes: Changes) -> Desired:
    groups = {n: edited(s, changes[n]) if n in changes else s for n, s in before.groups.items()}
    return replace(before, groups=groups)


@settings(derandomize=True)
@given(STATES, GROUPS, st.booleans())
def test_after_a_start_with_dependencies_nothing_below_is_off(
    states: Mapping[str, GroupState], group: str, force: bool
) -> None:
    after = carried_out(
        Desired(groups=states),
        start(STACK, Desired(groups=states), group, force=force, with_dependencies=True),
    )
    below = {"analytics": {"storage", "kafka"}, "storage": {"kafka"}}.get(group, set())
    assert all(after.groups[name].on for name in {group, *below})
    assert after.groups[group].force is force
    assert start(STACK, after, group, force=force, with_dependencies=True) == {}


@settings(derandomize=True)
@given(STATES, GROUPS)
def test_after_a_stop_with_dependents_nothing_above_is_on(
    states: Mapping[str, GroupState], group: str
) -> None:
    after = carried_out(
        Desired(groups=states), stop(STACK, Desired(groups=states), group, with_dependents=True)
    )
    above = {"kafka": {"storage", "analytics"}, "storage": {"analytics"}}.get(group, set())
    assert not any(after.groups[name].on for name in {group, *above})
    assert not after.groups[group].force
    assert stop(STACK, after, group) == {}


@settings(derandomize=True)
@given(STATES, GROUPS, st.booleans(), st.booleans())
def test_other_groups_are_left_alone_unless_asked_for(
    states: Mapping[str, GroupState], group: str, on: bool, force: bool
) -> None:
    try:
        changes = put(STACK, Desired(groups=states), group, on=on, force=force)
    except WriteRefused as refused:
        assert not force
        assert refused.reason in {"dependency_off", "dependents_on"}
    else:
        assert set(changes) <= {group}
