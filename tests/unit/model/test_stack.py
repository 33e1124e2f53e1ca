"""Values derived from the stack alone: order, dependents, length of the chain behind a service."""

from __future__ import annotations

import itertools
from graphlib import CycleError

import pytest

from reconciler.model.dependency_order import find_cycle, sorted_by_dependency
from tests.support.fixtures.builders import a_stack, service

STACK = a_stack(
    {
        "base": [service("db"), service("zoo")],
        "top needs base:ready": [service("api", "db"), service("init")],
        "extra needs base, top": [service("ui", "api:healthy", "init:completed", "stranger")],
    },
    service("stranger", "db"),
)


def test_order_puts_dependencies_first_and_omits_unmanaged_services() -> None:
    order = STACK.order
    assert set(order) == {"db", "zoo", "api", "init", "ui"}
    assert order.index("zoo") < order.index("init")
    assert order.index("api") < order.index("ui")


def test_order_does_not_depend_on_the_order_in_the_files() -> None:
    groups = {"b": [service("y"), service("x")], "a": [service("w")]}
    turned = dict(reversed([(k, list(reversed(v))) for k, v in groups.items()]))
    assert a_stack(groups).order == a_stack(turned).order


def test_needs_lists_dependencies_on_managed_services() -> None:
    assert [d.service for d in STACK.needs["ui"]] == ["api", "init"]
    assert "stranger" not in STACK.needs


def test_dependents_is_the_reverse_of_needs() -> None:
    assert STACK.dependents["db"] == ("api",)
    assert STACK.dependents["ui"] == ()
    assert STACK.group_dependents["base"] == ("top", "extra")
    assert STACK.ready_dependents["base"] == ("top",)


def test_the_chain_counts_through_groups_that_wait_for_whole_groups() -> None:
    assert STACK.chain == {"db": 2, "zoo": 2, "api": 1, "init": 1, "ui": 0}
    assert STACK.depth == {"db": 0, "zoo": 0, "api": 1, "init": 1, "ui": 2}


def test_the_chain_counts_through_services() -> None:
    stack = a_stack({"g": [service("a"), service("b", "a"), service("c", "b"), service("d", "a")]})
    assert stack.chain == {"a": 2, "b": 1, "c": 0, "d": 0}
    assert stack.depth == {"a": 0, "b": 1, "c": 2, "d": 1}


def test_dependents_decide_which_services_are_one_shots_or_lasting() -> None:
    assert STACK.one_shots == {"init"}
    assert STACK.lasting == {"api"}


def test_unmanaged_services_are_those_in_no_group() -> None:
    assert STACK.unmanaged == ("stranger",)
    assert "stranger" not in STACK.group_of


def test_by_image_maps_images_to_services() -> None:
    stack = a_stack({"g": [service("a", image="x"), service("b", image="x"), service("c")]})
    assert stack.by_image == {"x": ("a", "b"), "c:1": ("c",)}


def test_a_cycle_lists_its_members_in_order() -> None:
    cycle = find_cycle({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]})
    assert cycle[0] == cycle[-1]
    assert set(cycle) == {"a", "b", "c"}
    edges = {"a": "b", "b": "c", "c": "a"}
    assert all(edges[one] == other for one, other in itertools.pairwise(cycle))
    assert find_cycle({"a": ["b"], "b": []}) == ()
    with pytest.raises(CycleError):
        sorted_by_dependency({"a": ["a"]})
