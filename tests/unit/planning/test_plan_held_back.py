"""``on_change: report``: a change waits to be accepted, and everything else is repaired."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.controller.ledger_codec import decode_ledger, encode_ledger
from reconciler.model.desired import Desired, GroupState
from reconciler.model.ledger import Clock, Ledger
from reconciler.model.observed import Action, Container, HostPath, ObservedState, State
from reconciler.model.stack import Mount, Stack
from reconciler.planning.drift import DriftKind
from reconciler.planning.planner import Plan, plan
from reconciler.planning.record_observation import record_observation
from reconciler.planning.status import outcome, summarise
from tests.support.fixtures.builders import NOW, a_stack, container, desire, look, service

A = service("a", mounts=(Mount("bind", "/etc/conf", "/box/conf"),))
WEB = service("web", "a:healthy")


def reporting(stack: Stack) -> Stack:
    groups = {n: replace(g, on_change="report") for n, g in stack.groups.items()}
    return replace(stack, groups=groups)


STACK = reporting(a_stack({"main": [A, WEB]}))
FILE = HostPath("file", "one", "1:1", 1.0)
LATER = Clock(NOW.wall + 60, NOW.mono + 60)


def on(accepted_at: float | None = None) -> Desired:
    return desire(STACK, main=GroupState(on=True, accepted_at=accepted_at))


def seen(*containers: Container, **fields: Any) -> ObservedState:
    values: dict[str, Any] = {"sources": {"/box/conf": FILE}, **fields}
    return look(STACK, *containers, container(WEB), **values)


def decide(
    observed: ObservedState, desired: Desired, ledger: Ledger | None = None, now: Clock = NOW
) -> tuple[Plan, Ledger]:
    """Record the observation, then plan, as a pass does."""
    ledger = record_observation(STACK, desired, observed, ledger or Ledger(), now, chance=0.5)
    return plan(STACK, desired, observed, ledger, now), ledger


HELD = (
    "a: blocked (held_back: a: was created from another definition: waits to be accepted "
    "(`service-manager accept main`))"
)
OLD = container(A, config_hash="old")


def test_a_changed_definition_waits_and_the_running_container_counts_as_ready() -> None:
    result, ledger = decide(seen(OLD), on())
    assert str(result) == HELD
    assert result.services["a"].ready
    assert result.services["web"].settled
    assert [d.kind for d in result.drifts] == [DriftKind.DEFINITION]
    assert outcome(summarise(result, ledger, {}).values()) == "degraded"


@pytest.mark.parametrize(
    ("containers", "fields", "kind"),
    [
        ((container(A),), {"images": {"a:1": "newer", "web:1": "sha-web:1"}}, DriftKind.IMAGE),
        ((container(A),), {"sources": {"/box/conf": FILE._replace(digest="two")}}, DriftKind.MOUNTS),
    ],
)
def test_an_image_and_a_mounted_file_wait_as_well(
    containers: tuple[Container, ...], fields: dict[str, Any], kind: DriftKind
) -> None:
    _, ledger = decide(seen(container(A)), on())
    result, _ = decide(seen(*containers, **fields), on(), ledger)
    assert not result.steps
    assert result.services["a"].block is not None
    assert [d.kind for d in result.drifts] == [kind]


def test_accepting_covers_earlier_changes_and_no_later_one() -> None:
    _, ledger = decide(seen(OLD), on())
    assert str(decide(seen(OLD), on(NOW.wall - 5), ledger)[0]) == HELD
    # Saved and accepted before the next observation.
    assert decide(seen(OLD), on(NOW.wall - 1), ledger)[0].steps
    accepted = on(NOW.wall + 30)
    result, ledger = decide(seen(OLD), accepted, ledger, LATER)
    assert str(result) == "a: stop (definition: was created from another definition)"
    another = replace(STACK.services["a"], definition="def-new", config_hash="new")
    stack = replace(STACK, services={**STACK.services, "a": another})
    ledger = record_observation(stack, accepted, seen(OLD), ledger, LATER, chance=0.5)
    assert not plan(stack, accepted, seen(OLD), ledger, LATER).steps


def test_an_acceptance_in_the_future_is_due_then() -> None:
    result, ledger = decide(seen(OLD), on(NOW.wall + 30))
    assert (str(result), result.due) == (HELD, NOW.mono + 30)
    assert decide(seen(OLD), on(NOW.wall + 30), ledger, LATER)[0].steps


def test_drift_is_repaired_without_acceptance() -> None:
    def text(*containers: Container) -> str:
        return str(decide(seen(*containers), on())[0])

    assert text() == "a: create (missing: has no container)"
    assert text(replace(OLD, state=State.EXITED)) == "a: start (stopped: exited with code 0)"
    assert text(replace(OLD, state=State.PAUSED)).startswith("a: waits (paused: is paused")
    assert text(replace(OLD, name="odd")) == "a: rename a (altered: was changed by hand: name)"
    assert text(container(A, networks=())) == "a: stop (altered: was changed by hand: networks.net)"


def test_a_restart_keeps_the_held_change_back() -> None:
    desired = desire(STACK, main=GroupState(on=True, restarted_at=NOW.wall - 10))
    ledger = Ledger(restarted={"web": NOW.wall - 10})
    result, ledger = decide(seen(OLD), desired, ledger)
    assert [(s.action, s.cause) for s in result.steps] == [(Action.STOP, "restart")]
    stopped = replace(OLD, state=State.EXITED)
    assert [s.action for s in decide(seen(stopped), desired, ledger)[0].steps] == [Action.START]


def test_a_reverted_change_leaves_nothing_to_accept() -> None:
    _, ledger = decide(seen(OLD), on())
    assert "a" in ledger.changes
    assert decode_ledger(encode_ledger(ledger), NOW).changes == ledger.changes
    result, ledger = decide(seen(container(A)), on(), ledger)
    assert (str(result), ledger.changes) == ("nothing to do", {})


@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    state=st.sampled_from([s for s in State if s is not State.DEAD]),
    config_hash=st.sampled_from(["hash-a", "old"]),
    image=st.sampled_from(["sha-a:1", "older"]),
    digest=st.sampled_from(["one", "two"]),
)
def test_no_held_change_is_carried_out(state: State, config_hash: str, image: str, digest: str) -> None:
    _, ledger = decide(seen(container(A)), on())
    there = container(A, state, config_hash=config_hash, image=image)
    observed = seen(there, sources={"/box/conf": FILE._replace(digest=digest)})
    unlike = ledger.made["id-a"]._replace(definition="x", image="x")
    result, _ = decide(observed, on(), replace(ledger, made={"id-a": unlike}))
    actions = {s.action for s in result.steps if s.service == "a"}
    assert not actions & {Action.STOP, Action.RECREATE, Action.REMOVE}
