"""The policy of the garbage collector, which the daemon sets once."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from reconciler.daemon.collector import THRESHOLDS, set_policy
from reconciler.model.ledger import Ledger
from reconciler.planning.planner import plan
from tests.support.fixtures.builders import NOW, a_stack, container, desire, look, service


@pytest.fixture
def restored() -> Iterator[None]:
    """Restore the collector of the test process."""
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.mark.usefixtures("restored")
def test_objects_of_the_start_are_frozen_and_new_ones_collected_less_often() -> None:
    set_policy()
    assert gc.get_threshold() == THRESHOLDS
    assert gc.get_freeze_count() > 0
    assert gc.isenabled()


@pytest.mark.usefixtures("restored")
def test_a_plan_makes_no_cyclic_garbage() -> None:
    web = service("web")
    stack = a_stack({"main": [service("db"), web]})
    arguments = (stack, desire(stack, "main"), look(stack, container(web, config_hash="old")), Ledger(), NOW)
    plan(*arguments)
    gc.collect()
    plan(*arguments)
    assert gc.collect() == 0
