"""What another ``groups.yaml`` would lead to."""

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
class Standing:
    target: AcceptedState | None
    observed: ObservedState
    ledger: Ledger = field(default_factory=Ledger)


async def previewed(state: Mapping[str, Any], *on: str, complete: bool = True) -> PreviewResult:
    """Everything that is on runs, and nothing else is there."""
    there = [container(STACK.services[name]) for group in on for name in STACK.groups[group].services]
    observed = replace(look(STACK, *there), complete=complete)
    standing = Standing(AcceptedState(STACK, desire(STACK, *on)), observed)
    return await Previewer(standing, lambda _: {"stack.yaml": FILE}, wall=lambda: NOW.wall)(state)


def told(found: PreviewResult) -> list[str]:
    return [f"{step.service}: {step.action}" for step in found.steps]


async def test_what_is_desired_already_leads_to_nothing() -> None:
    found = await previewed({"groups": {"main": "on", "other": "off"}}, "main")
    assert (told(found), str(found)) == ([], "nothing to do")


async def test_every_step_is_told_to_the_end_and_in_order() -> None:
    found = await previewed({"groups": {"main": "off", "other": {"state": "on"}}}, "main")
    assert sorted(told(found)) == ["db: stop", "ui: create", "ui: start", "web: stop"]
    assert told(found).index("web: stop") < told(found).index("db: stop")
    assert str(found).splitlines()[0].startswith(told(found)[0])
    assert {drift.service for drift in found.drifts} == {"db", "web", "ui"}


async def test_what_would_be_left_undone_is_told() -> None:
    held = {"state": "on", "suspend": {"reason": "camera work"}}
    found = await previewed({"groups": {"main": "off", "other": held}})
    assert told(found) == []
    assert [(left.service, left.phase) for left in found.left] == [("ui", "suspended")]
    assert str(found).startswith("ui: suspended")


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({}, "groups is missing"),
        ({"groups": {"main": "on"}}, "missing: other"),
        ({"groups": {"main": "onn", "other": "off"}}, "expected on or off"),
        ({"groups": {"main": "on", "other": "off", "third": "on"}}, "third"),
        ({"groups": {"main": "on", "other": {"state": "on", "suspend": {"reason": "\ud800"}}}}, "surrogate"),
    ],
)
async def test_what_would_not_be_accepted_is_refused_with_the_reason(
    state: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidDesiredState, match=says) as caught:
        await previewed(state)
    # Positions in generated text would not help the caller.
    assert {(mistake.line, mistake.column) for mistake in caught.value.mistakes} == {(0, 0)}


async def test_without_a_whole_look_it_promises_nothing() -> None:
    found = await previewed({"groups": {"main": "on", "other": "on"}}, complete=False)
    assert told(found) == []
    assert "incomplete" in str(found)


async def test_before_the_first_desired_state_there_is_nothing_to_compare_with() -> None:
    previews = Previewer(Standing(None, ObservedState()), lambda _: {}, wall=lambda: NOW.wall)
    with pytest.raises(InvalidDesiredState, match="no valid desired state"):
        await previews({"groups": {}})
