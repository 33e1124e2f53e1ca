"""A container that another client paused is repaired after a while."""

from __future__ import annotations

from reconciler.model.ledger import Clock, Ledger
from reconciler.model.observed import State
from reconciler.planning.drift import DriftKind
from reconciler.planning.record_observation import record_observation
from tests.support.fixtures.builders import NOW, a_stack, container, desire, look, planned, service

A = service("a")
STACK = a_stack({"g": [A]})
ON = desire(STACK, "g")
PAUSED = look(STACK, container(A, State.PAUSED))


def after(seconds: float) -> Clock:
    return Clock(NOW.wall + seconds, NOW.mono + seconds)


def test_it_is_unpaused_after_30_seconds_and_is_drift_until_then() -> None:
    ledger = record_observation(STACK, ON, PAUSED, Ledger(), NOW, chance=0.5)
    early = planned(STACK, ON, PAUSED, ledger, after(29))
    assert str(early).startswith("a: waits (paused: is paused")
    assert early.due == NOW.mono + 30
    assert [drift.kind for drift in early.drifts] == [DriftKind.PAUSED]
    assert str(planned(STACK, ON, PAUSED, ledger, after(30))) == "a: unpause (paused: is paused)"


def test_each_pause_counts_for_itself() -> None:
    ledger = record_observation(STACK, ON, PAUSED, Ledger(), NOW, chance=0.5)
    ledger = record_observation(STACK, ON, look(STACK, container(A)), ledger, after(5), chance=0.5)
    assert ledger.paused == {}
    ledger = record_observation(STACK, ON, PAUSED, ledger, after(20), chance=0.5)
    assert "waits" in str(planned(STACK, ON, PAUSED, ledger, after(45)))


def test_a_stop_does_not_wait() -> None:
    ledger = record_observation(STACK, ON, PAUSED, Ledger(), NOW, chance=0.5)
    assert str(planned(STACK, desire(STACK), PAUSED, ledger)) == "a: unpause (unwanted: g is off)"
