"""Compose is called so that it creates what is missing and removes or recreates nothing else."""

from __future__ import annotations

import pytest

from reconciler.engine.docker.creation import Creation, creation
from reconciler.model.observed import Action, Command
from tests.support.fixtures.builders import a_stack, service

STACK = a_stack({"main": [service("web", replicas=3), service("db")]})


def create(here: dict[str, dict[str, int]], *services: str) -> Creation:
    return creation(Command(Action.CREATE, services), STACK, here)


@pytest.mark.parametrize(
    ("here", "number"),
    [
        ({}, 3),
        ({"a": 1}, 3),
        ({"a": 1, "b": 2, "c": 7}, 3),
        ({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}, 5),
        # Both containers of an interrupted recreation are one replica.
        ({"a": 1, "b": 1, "c": 2}, 4),
    ],
)
def test_the_scale_is_never_below_the_number_of_existing_containers(
    here: dict[str, int], number: int
) -> None:
    call = create({"web": here}, "web", "db")
    assert call.scale == {"web": number, "db": 1}
    assert (call.services, call.recreate, call.hidden) == (("web", "db"), False, frozenset())


def test_compose_sees_only_the_containers_to_replace() -> None:
    here = {"web": {"a": 1, "b": 2, "c": 3}, "db": {"d": 1}}
    call = creation(Command(Action.RECREATE, ("web", "db"), replaces=("b", "d")), STACK, here)
    assert (call.services, call.scale) == (("web", "db"), {"web": 1, "db": 1})
    assert call.hidden == {"a", "c"}
    assert not call.is_done("web", here["web"])
    assert call.is_done("web", {"a": 1, "new": 2, "c": 3})


def test_without_names_all_of_the_service_are_recreated() -> None:
    call = creation(Command(Action.RECREATE, ("web",)), STACK, {"web": {"a": 1, "b": 2}})
    assert (call.scale, call.hidden) == ({"web": 2}, frozenset())


def test_a_missing_container_is_recreated_only_if_no_other_is_left() -> None:
    order = Command(Action.RECREATE, ("web",), replaces=("b",))
    assert creation(order, STACK, {"web": {"a": 1}}).services == ()
    alone = creation(order, STACK, {})
    assert (alone.services, alone.scale) == (("web",), {"web": 1})
