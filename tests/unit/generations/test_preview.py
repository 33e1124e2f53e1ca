"""Previews: the steps that another ``groups.yaml`` would cause."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from reconciler.errors import InvalidDesiredState
from reconciler.generations.preview import Previewer, PreviewResult
from reconciler.model.accepted_state import AcceptedState
from reconciler.model.ledger import Ledger
from reconciler.model.observed import ObservedState
from tests.support.fixtures.builders import NOW, a_stack, container, desire, look, service

STACK = a_stack({"main": [service("db"), service("web", "db")], "other": [service("ui")]})
FILE = b"""
name: test
compose: [compose.yaml]
groups:
  main: {services: [db, web]}
  other: {services: [ui]}
"""


@dataclass
class CurrentState:
    target: AcceptedState | None
    observed: ObservedState
    ledger: Ledger = field(default_factory=Ledger)


async def previewed(state: Mapping[str, Any], *on: str, complete: bool = True) -> PreviewResult:
    """A preview on a stack where exactly the groups ``on`` run."""
    containers = [container(STACK.services[name]) for group in on for name in STACK.groups[group].services]
    observed = replace(look(STACK, *containers), complete=complete)
    current = CurrentState(AcceptedState(STACK, desire(STACK, *on)), observed)
    return await Previewer(current, lambda _: {"stack.yaml": FILE}, wall=lambda: NOW.wall)(state)


def steps_of(result: PreviewResult) -> list[str]:
    return [f"{step.service}: {step.action}" for step in result.steps]


async def test_preview_of_the_current_state_is_empty() -> None:
    result = await previewed({"groups": {"main": "on", "other": "off"}}, "main")
    assert (steps_of(result), str(result)) == ([], "nothing to do")


async def test_preview_lists_every_step_in_order() -> None:
    result = await previewed({"groups": {"main": "off", "other": {"state": "on"}}}, "main")
    assert sorted(steps_of(result)) == ["db: stop", "ui: create", "ui: start", "web: stop"]
    assert steps_of(result).index("web: stop") < steps_of(result).index("db: stop")
    assert str(result).splitlines()[0].startswith(steps_of(result)[0])
    assert {drift.service for drift in result.drifts} == {"db", "web", "ui"}


@pytest.mark.parametrize(
    ("groups", "steps"),
    [
        ({"main": "off"}, ["db: stop", "web: stop"]),
        ({"other": "on"}, ["ui: create", "ui: start"]),
        ({}, []),
    ],
)
async def test_groups_that_are_not_named_stay_as_they_are(groups: dict[str, str], steps: list[str]) -> None:
    assert sorted(steps_of(await previewed({"groups": groups}, "main"))) == steps


async def test_preview_lists_what_would_be_left_undone() -> None:
    held = {"state": "on", "suspend": {"reason": "camera work"}}
    result = await previewed({"groups": {"main": "off", "other": held}})
    assert steps_of(result) == []
    assert [(left.service, left.phase) for left in result.left] == [("ui", "suspended")]
    assert str(result).startswith("ui: suspended")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "groups is missing"),
        ({"groups": ["main"]}, "groups"),
        ({"groups": {"third": "on"}}, "third"),
        ({"groups": {"main": "onn", "other": "off"}}, "expected on or off"),
        ({"groups": {"main": "on", "other": "off", "third": "on"}}, "third"),
        ({"groups": {"main": "on", "other": {"state": "on", "suspend": {"reason": "\ud800"}}}}, "surrogate"),
    ],
)
async def test_preview_of_invalid_content_is_refused_with_the_reason(
    state: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidDesiredState, match=message) as caught:
        await previewed(state)
    # Positions in generated text would not help the caller.
    assert {(mistake.line, mistake.column) for mistake in caught.value.mistakes} == {(0, 0)}


async def test_preview_on_an_incomplete_observation_is_empty() -> None:
    result = await previewed({"groups": {"main": "on", "other": "on"}}, complete=False)
    assert steps_of(result) == []
    assert "incomplete" in str(result)


async def test_preview_before_the_first_desired_state_is_refused() -> None:
    previews = Previewer(CurrentState(None, ObservedState()), lambda _: {}, wall=lambda: NOW.wall)
    with pytest.raises(InvalidDesiredState, match="no valid desired state"):
        await previews({"groups": {}})
