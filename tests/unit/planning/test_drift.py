"""Selection of a service's container, and its differences."""

from __future__ import annotations

from itertools import pairwise, permutations

import pytest

from reconciler.model.desired import GroupState
from reconciler.model.ledger import UNKNOWN, BuiltFrom, Ledger
from reconciler.model.observed import Container, Health, ObservedState, State
from reconciler.planning.comparison import same_definition, same_image, select_container
from reconciler.planning.container_state import (
    has_completed,
    is_one_shot,
    is_ready,
    stop_reason,
    stopped_by_us,
)
from reconciler.planning.drift import changed_fields, join_names
from reconciler.planning.fingerprints import attempt_fingerprint, desired_fingerprint
from tests.support.fixtures.builders import a_stack, container, look, service

A = service("a")
STACK = a_stack({"g": [A]})
ON = GroupState(on=True)


@pytest.mark.parametrize(
    ("state", "health", "probed", "ready"),
    [
        (State.RUNNING, Health.NONE, False, True),
        (State.RUNNING, Health.HEALTHY, False, True),
        (State.RUNNING, Health.STARTING, False, False),
        (State.RUNNING, Health.STARTING, True, True),
        (State.RUNNING, Health.UNHEALTHY, True, False),
        (State.PAUSED, Health.HEALTHY, False, False),
        (State.RESTARTING, Health.NONE, False, False),
        (State.EXITED, Health.HEALTHY, True, False),
    ],
)
def test_ready_means_running_and_healthy_by_the_engine_or_an_early_probe(
    state: State, health: Health, probed: bool, ready: bool
) -> None:
    assert is_ready(container(A, state, health=health, probed=probed)) is ready


BEST_FIRST: list[Container] = [
    container(A, id="right"),
    container(A, id="right-odd-name", name="x_a"),
    container(A, State.EXITED, id="right-stopped"),
    container(A, id="old", config_hash="old"),
    container(A, State.EXITED, id="old-stopped", config_hash="old"),
    container(A, State.DEAD, id="dead"),
]


def test_the_best_container_is_selected_in_any_order() -> None:
    observed = look(STACK)
    for better, worse in pairwise(BEST_FIRST):
        for pair in permutations([better, worse]):
            assert select_container(STACK, A, pair, observed, Ledger()) == better
    assert select_container(STACK, A, [], observed, Ledger()) is None


def test_the_younger_of_two_equal_containers_is_selected() -> None:
    pair = [container(A, id="x", created_at=1.0), container(A, id="y", created_at=2.0)]
    assert select_container(STACK, A, pair, look(STACK), Ledger()) == pair[1]


def test_definitions_are_equal_by_label_or_by_the_ledger() -> None:
    seen = container(A, config_hash="other")
    assert same_definition(A, container(A), None)
    assert not same_definition(A, seen, None)
    assert same_definition(A, seen, BuiltFrom("def-a", {}, ""))
    assert not same_definition(A, seen, UNKNOWN)


def test_images_are_equal_by_id_or_by_what_the_tag_named_at_creation() -> None:
    seen = container(A, image="one")
    assert same_image(seen, None, None)
    assert same_image(seen, "one", None)
    assert not same_image(seen, "two", None)
    assert same_image(seen, "two", BuiltFrom("", {}, "two"))


def test_changed_fields_are_named_if_they_are_recorded() -> None:
    assert changed_fields(A, None) == changed_fields(A, UNKNOWN) == ()
    assert changed_fields(A, BuiltFrom("", {"image": "1", "gone": "2"}, "")) == ("environment.A", "gone")


def test_a_one_shot_has_completed_if_it_exits_with_0_by_itself() -> None:
    one = service("one", restart="no")
    stack = a_stack({"g": [one, A]})
    ended = container(one, State.EXITED)
    assert has_completed(stack, Ledger(), one, ended)
    assert not has_completed(stack, Ledger(stopped={ended.id: ended.started_at}), one, ended)
    assert not has_completed(stack, Ledger(), one, container(one, State.EXITED, exit_code=1))
    assert not has_completed(stack, Ledger(), one, container(one, State.EXITED, started_at=0.0))
    assert not has_completed(stack, Ledger(), one, container(one))
    assert not has_completed(stack, Ledger(), A, container(A, State.EXITED))


def test_a_stop_counts_for_the_run_that_it_ended() -> None:
    ledger = Ledger(stopped={"id-a": 5.0})
    assert stopped_by_us(ledger, container(A, started_at=5.0))
    assert not stopped_by_us(ledger, container(A, started_at=6.0))


def test_a_service_that_others_need_to_complete_is_a_one_shot() -> None:
    stack = a_stack(
        {"g": [service("init"), service("db", restart="no"), service("x", "init:completed", "db:healthy")]}
    )
    assert is_one_shot(stack, stack.services["init"])
    assert not is_one_shot(stack, stack.services["db"])


def test_fingerprints_change_with_desired_state_and_those_of_attempts_with_the_image() -> None:
    seen, other = ObservedState(images={"a:1": "x"}), ObservedState(images={"a:1": "y"})
    assert (
        desired_fingerprint(A, GroupState(on=False)).text()
        == attempt_fingerprint(A, GroupState(on=False), seen)
        == "off"
    )
    assert desired_fingerprint(A, ON) != desired_fingerprint(A, GroupState(on=True, restarted_at=1.0))
    assert desired_fingerprint(A, ON) == desired_fingerprint(A, GroupState(on=True, force=True))
    assert attempt_fingerprint(A, ON, seen) != attempt_fingerprint(A, ON, other)


def test_a_stop_reason_is_part_of_a_sentence() -> None:
    assert stop_reason(container(A, State.CREATED)) == "was created and never started"
    assert stop_reason(container(A, State.DEAD)) == "is dead"
    assert stop_reason(container(A, State.EXITED, exit_code=3)) == "exited with code 3"


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["a"], "a"),
        (["a", "b"], "a and b"),
        (["a", "b", "c"], "a, b and c"),
        (list("abcdef"), "a, b, c, d and 2 more"),
    ],
)
def test_names_are_joined_for_a_sentence(names: list[str], text: str) -> None:
    assert join_names(names) == text
