"""Another Docker Compose hashes the same files differently: that is no change, and remakes nothing."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.assembly import inputs_digest
from reconciler.ledger import Ledger
from reconciler.observed import State
from reconciler.plan import plan
from reconciler.stack import Stack
from reconciler.witness import witness
from tests.builders import NOW, a_stack, container, desire, look, service

A = service("a")


def resolved(version: str, inputs: str = "files", definition: str = "def-a") -> Stack:
    """The same service, as this version of Compose sees it."""
    one = replace(
        A, config_hash=f"hash of {version} {inputs}", definition=definition, fields={"x": definition}
    )
    return a_stack({"main": [one]}, inputs=inputs, compose=version)


OLD = resolved("2.20")
MADE = container(OLD.services["a"], compose="2.20")


def after(*stacks: Stack, on: bool = True) -> Ledger:
    ledger = Ledger()
    for stack in stacks:
        desired = desire(stack, *(["main"] if on else []))
        ledger = witness(stack, desired, look(stack, MADE), ledger, NOW, chance=0.5)
    return ledger


def text(stack: Stack, ledger: Ledger) -> str:
    return str(plan(stack, desire(stack, "main"), look(stack, MADE), ledger, NOW))


def test_the_same_files_resolved_by_another_version_are_the_same_definition() -> None:
    for definition in ("def-a", "other fields for the same bytes"):
        new = resolved("2.40", definition=definition)
        assert text(new, after(OLD, new)) == "nothing to do"


def test_an_edit_counts_whatever_the_version() -> None:
    new = resolved("2.40", "edited", "edited")
    assert text(new, after(OLD, new)) == "a: stop (definition: differs in x)"
    # First the upgrade, then the edit.
    upgraded = resolved("2.40", definition="other fields")
    assert text(new, after(OLD, upgraded, new)) == "a: stop (definition: differs in x)"


def test_an_edit_of_a_service_that_is_off_is_not_lost() -> None:
    new = resolved("2.40", "edited", "edited")
    assert text(new, after(OLD, on=False)) == "a: stop (definition: differs in x)"


def test_a_container_of_another_version_of_which_nothing_is_known_is_taken_as_it_is() -> None:
    new = resolved("2.40")
    assert text(new, after(new)) == "nothing to do"
    same = replace(MADE, compose="2.40")
    ledger = witness(new, desire(new, "main"), look(new, same), Ledger(), NOW, chance=0.5)
    found = plan(new, desire(new, "main"), look(new, same), ledger, NOW)
    assert str(found) == "a: stop (definition: was made from another definition)"


def test_what_is_ours_alone_is_no_input_of_compose() -> None:
    sources = {"compose.yaml": "1", "a.env": "2", "groups.yaml": "3", "stack.yaml": "4"}
    same = {**sources, "groups.yaml": "x", "stack.yaml": "y"}
    assert inputs_digest("p", sources) == inputs_digest("p", same)
    assert inputs_digest("p", sources) != inputs_digest("p", {**sources, "a.env": "x"})
    assert inputs_digest("p", sources) != inputs_digest("q", sources)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(versions=st.lists(st.sampled_from(["2.20", "2.29", "2.40", "5.1"]), min_size=1, max_size=6))
def test_however_often_compose_is_exchanged_nothing_is_remade(versions: list[str]) -> None:
    stacks = [resolved(version, definition=f"def of {version}") for version in versions]
    ledger = after(OLD, *stacks)
    assert text(stacks[-1], ledger) == "nothing to do"
    stopped = look(stacks[-1], replace(MADE, state=State.EXITED))
    found = plan(stacks[-1], desire(stacks[-1], "main"), stopped, ledger, NOW)
    assert [str(s.action) for s in found.steps] == ["start"]
