"""The scenarios by name, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.bench import edits, idle, load_generator, noop, page, planning, restart, starts
from tests.bench.harness import BenchHarness

from .figures import Figure


class Scenario(NamedTuple):
    """``usual``: part of a run that names none."""

    run: Callable[[BenchHarness], Iterator[Figure]]
    usual: bool = True


SCENARIOS = {
    "warm": Scenario(starts.warm),
    "warm1": Scenario(starts.warm1, usual=False),
    "cold": Scenario(starts.cold),
    "ideal": Scenario(starts.ideal),
    "killed": Scenario(restart.scenario),
    "noop": Scenario(noop.scenario),
    "idle": Scenario(idle.scenario),
    "plan": Scenario(planning.scenario),
    "edits": Scenario(edits.scenario),
    "readers": Scenario(load_generator.scenario),
    "page": Scenario(page.scenario),
}
