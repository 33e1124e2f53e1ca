"""A container of a renamed service that holds the name or port of its successor."""

from __future__ import annotations

from reconciler.model.backoff import TRIES, Failure
from reconciler.model.ledger import Ledger
from reconciler.model.observed import State
from reconciler.planning.status import Phase, summarise
from tests.support.fixtures.builders import NOW, a_stack, container, desire, look, planned, service

NEW, OLD = service("frontend", container_name="front"), service("web", container_name="front")


def test_an_orphan_with_the_name_is_the_cause_and_has_a_remedy() -> None:
    stack = a_stack({"g": [NEW]})
    for state in (State.RUNNING, State.EXITED):
        result = planned(stack, desire(stack, "g"), look(stack, container(OLD, state)))
        status = summarise(result, Ledger(), {})["frontend"]
        assert (status.phase, status.reason) == (Phase.DEGRADED, "name_conflict")
        assert "front belongs to web, which is no longer in the files: set `prune: true`" in status.message


def test_with_prune_the_orphan_goes_first() -> None:
    stack = a_stack({"g": [NEW]}, prune=True)
    result = str(planned(stack, desire(stack, "g"), look(stack, container(OLD))))
    assert "waits (removing: waits until front of the former service web is removed)" in result
    assert "web: stop" in result


def test_an_orphan_with_the_port_gets_the_remedy_too() -> None:
    new = service("frontend")
    stack = a_stack({"g": [new]})
    seen = look(stack, container(new, State.CREATED), container(OLD))
    inputs = planned(stack, desire(stack, "g"), seen).services["frontend"].inputs
    error = "port 80 is taken by container front"
    ledger = Ledger(failures={"frontend": Failure(TRIES, NOW.mono + 9, inputs, "port_conflict", error, 0.0)})
    status = summarise(planned(stack, desire(stack, "g"), seen, ledger), ledger, {})["frontend"]
    assert status.reason == "port_conflict"
    assert status.message.startswith(f"{error}; front belongs to web")
    assert "prune: true" in status.message
