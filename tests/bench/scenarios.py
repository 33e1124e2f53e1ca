"""The scenarios by name, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.bench import edits, idle, noop, page, planning, starts
from tests.bench import load_generator as readers
from tests.bench import restart as killed
from tests.bench.harness import Bench

from .figures import Figure


class Scenario(NamedTuple):
    """``usual``: part of a run that names none."""

    run: Callable[[Bench], Iterator[Figure]]
    usual: bool = True


SCENARIOS = {
    "warm": Scenario(starts.warm),
    "warm1": Scenario(starts.warm1, usual=False),
    "cold": Scenario(starts.cold),
    "ideal": Scenario(starts.ideal),
    "killed": Scenario(killed.scenario),
    "noop": Scenario(noop.scenario),
    "idle": Scenario(idle.scenario),
    "plan": Scenario(planning.scenario),
    "edits": Scenario(edits.scenario),
    "readers": Scenario(readers.scenario),
    "page": Scenario(page.scenario),
}
