"""Services that share a container name: one of their groups can be on, and the name moves with it."""

from __future__ import annotations

from dataclasses import replace

from reconciler.model.capabilities import Capability
from reconciler.model.desired import Desired
from reconciler.model.edit import Edit
from reconciler.model.observed import ObservedState, State
from reconciler.model.stack import Stack
from reconciler.planning.edits import Rejected, resolve
from tests.support.fixtures.builders import a_stack, container, desire, look, planned, service

CPU = service("cpu", container_name="llm", named=True)
GPU = service("gpu", container_name="llm", named=True)
STACK = a_stack({"one": [CPU], "two": [GPU], "other": [service("db")]})


def shown(stack: Stack, desired: Desired, observed: ObservedState) -> str:
    return str(planned(stack, desired, observed))


def test_a_start_is_rejected_in_both_directions_while_the_alternative_is_on() -> None:
    for start, on in (("one", "two"), ("two", "one")):
        edit = Edit(verb="start", groups=(start,), force=True)
        assert resolve(edit, STACK, desire(STACK, on)) == Rejected(
            "alternative_on",
            f"{start} has the container name llm in common with {on}, which is on",
            f"stop {on} first",
        )
    assert not isinstance(resolve(Edit(verb="start", groups=("one",)), STACK, desire(STACK)), Rejected)


def test_a_file_with_both_on_holds_back_the_one_that_does_not_run() -> None:
    both = desire(STACK, "one", "two", "other")
    assert shown(STACK, both, look(STACK, container(GPU), container(service("db")))).splitlines() == [
        "cpu: blocked (alternative_on: has the container name llm in common with two, which is on)"
    ]
    assert shown(STACK, both, look(STACK, container(service("db")))).splitlines() == [
        "cpu: create (missing: has no container)",
        "gpu: blocked (alternative_on: has the container name llm in common with one, which is on)",
    ]


def test_the_stopped_container_gives_up_its_name_first() -> None:
    stopped = container(CPU, State.EXITED)
    seen = look(STACK, stopped)
    assert shown(STACK, desire(STACK, "two"), seen).splitlines() == [
        "cpu: rename id-cpu_llm (alternative: llm is the container name of an alternative that is on)",
        "gpu: waits (name_conflict: waits for the name llm, which the container of cpu still has)",
    ]
    renamed = replace(stopped, name="id-cpu_llm")
    free = shown(STACK, desire(STACK, "two"), look(STACK, renamed))
    assert free == "gpu: create (missing: has no container)"


def test_a_container_gets_its_name_back_when_it_is_free() -> None:
    renamed = container(CPU, State.EXITED, name="id-cpu_llm")
    gpu = container(GPU, State.EXITED)
    lines = shown(STACK, desire(STACK, "one"), look(STACK, renamed, gpu)).splitlines()
    assert lines[0].startswith("cpu: waits (name_conflict")
    assert lines[1].startswith("gpu: rename")
    freed = look(STACK, renamed, replace(gpu, name="id-gpu_llm"))
    assert shown(STACK, desire(STACK, "one"), freed).startswith("cpu: rename llm (altered")


def test_without_rename_the_stopped_container_is_removed() -> None:
    seen = look(STACK, container(CPU, State.EXITED))
    seen = replace(seen, capabilities=seen.capabilities - {Capability.RENAME})
    assert shown(STACK, desire(STACK, "two"), seen).startswith("cpu: remove (alternative")


def test_nothing_is_renamed_while_no_alternative_is_on() -> None:
    assert shown(STACK, desire(STACK), look(STACK, container(CPU, State.EXITED))) == "nothing to do"
