"""Plans for engines that lack an action: the planner finds another way, or asks a person."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.model.capabilities import ALL, Capability
from reconciler.model.observed import Action, Container, State
from tests.support.fixtures.builders import desire, look, planned
from tests.support.fixtures.plans import ONE, ONE_ON, kafka
from tests.unit.planning.test_plan_properties import Case, cases

MANAGED = replace(ONE, restart="managed")


def text(without: Capability, *containers: Container, on: bool = True, **fields: object) -> str:
    seen = replace(look(ONE, *containers), capabilities=ALL - {without}, **fields)  # type: ignore[arg-type]
    return str(planned(ONE, ONE_ON if on else desire(ONE), seen))


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (State.RUNNING, "kafka: stop (altered: was changed by hand: name)"),
        (State.EXITED, "kafka: recreate (altered: was changed by hand: name)"),
    ],
)
def test_without_rename_a_renamed_container_is_recreated(state: State, expected: str) -> None:
    assert text(Capability.RENAME, kafka(state, name="other")) == expected


def test_without_rename_a_container_is_not_stopped_while_its_name_is_taken() -> None:
    result = text(Capability.RENAME, kafka(name="other"), foreign={"kafka": "id-foreign"})
    assert "waits (name_conflict" in result


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (State.RUNNING, "kafka: stop (altered: was changed by hand: restart)"),
        (State.EXITED, "kafka: recreate (altered: was changed by hand: restart)"),
    ],
)
def test_without_update_a_container_with_another_policy_is_recreated(state: State, expected: str) -> None:
    assert text(Capability.UPDATE, kafka(state, restart="no")) == expected


def test_without_update_a_stopped_container_of_an_off_group_is_left_alone() -> None:
    seen = replace(look(MANAGED, kafka(State.EXITED)), capabilities=ALL - {Capability.UPDATE})
    assert str(planned(MANAGED, desire(MANAGED), seen)) == "nothing to do"


@pytest.mark.parametrize("on", [True, False])
def test_without_unpause_a_paused_container_waits_for_a_person(on: bool) -> None:
    result = text(Capability.UNPAUSE, kafka(State.PAUSED), on=on)
    assert result.startswith("kafka: blocked (unpause_unsupported: a container is paused")


@given(cases(), st.sets(st.sampled_from(list(Capability))))
def test_no_plan_has_a_step_that_the_engine_lacks(case: Case, lacking: set[Capability]) -> None:
    able = replace(case, observed=replace(case.observed, capabilities=ALL - lacking))
    missing = {Action(one) for one in lacking if one in set(Action)}
    assert not missing & {step.action for step in able.plan().steps}
