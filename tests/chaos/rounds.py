"""One round: settle, some edits, some faults, quiet, check. Everything in it follows from its seed."""

from __future__ import annotations

import heapq
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.chaos import checks
from tests.chaos.edits import EDITS, Edit
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.world import Read, World

SPAN = 3.0
"""Seconds over which edits and faults begin."""
_SUSPENDS = 0.3


@dataclass(kw_only=True)
class Outcome:
    """What came of a round. ``seconds``: from the end of the last fault to being as desired."""

    seed: int
    faults: Counter[str]
    kinds: Counter[str]
    seconds: float = 0.0
    extra: int = 0
    acks: int = 0
    complaints: list[str] = field(default_factory=list)
    story: list[str] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join([f"seed {self.seed}:", *self.story, *(f"  ✗ {text}" for text in self.complaints)])


def choose(seed: int, faults: Sequence[Fault]) -> tuple[list[Fault], list[Edit], bool]:
    """Which faults and edits, and whether a group is suspended; by the seed alone."""
    chance = random.Random(f"choice {seed}")
    several = chance.choices(faults, [fault.share for fault in faults], k=chance.choice([1, 2, 2, 3]))
    edits = chance.choices(EDITS, k=chance.choice([0, 1, 2, 3]))
    return several, edits, chance.random() < _SUSPENDS


def play(world: World, seed: int, faults: Sequence[Fault] = FAULTS, within: float = checks.QUIET) -> Outcome:
    """Play one round and check everything; ``within``: seconds to be as desired after the last fault."""
    several, edits, suspends = choose(seed, faults)
    outcome = Outcome(
        seed=seed, faults=Counter(f.name for f in several), kinds=Counter(f.kind for f in several)
    )
    world.begin(seed)
    if suspends:
        world.account.suspended = frozenset({"extra"})
        world.yard.save("groups.yaml", checks.suspended_yaml(world.account.suspended))
        checks.settled(world)
        world.account.acked = {}
    generation = int(world.daemon.get("/services/status")["generation"])
    mark, calls = world.recorder.mark(), world.proxy.mark()
    strangers, suspended = world.yard.others(), checks.suspended_entries(world)
    try:
        _storm(world, several, edits)
        outcome.seconds, outcome.complaints = checks.settled(world, within)
        if not outcome.complaints:
            _examine(world, outcome, mark, calls, generation, strangers, suspended)
    finally:
        outcome.story, outcome.reads = world.account.story, list(world.reads)
        outcome.acks = world.account.acks
    return outcome


def _storm(world: World, faults: Sequence[Fault], edits: Sequence[Edit]) -> None:
    """Begin everything at its moment, and take each fault back at its moment."""
    order = itertools.count()
    agenda: list[tuple[float, int, Callable[[], Callable[[], None] | None]]] = []
    began = time.monotonic()
    ends = {id(fault): 0.0 for fault in faults}
    for fault in faults:
        ends[id(fault)] = world.chance.uniform(*fault.lasts)
        heapq.heappush(
            agenda, (world.chance.uniform(0, SPAN), next(order), lambda fault=fault: fault.begin(world))
        )
    lasts = {number: fault.lasts for number, fault in enumerate(faults)}
    for edit in edits:
        heapq.heappush(agenda, (world.chance.uniform(0, SPAN), next(order), lambda edit=edit: edit.do(world)))
    try:
        while agenda:
            at, number, deed = heapq.heappop(agenda)
            time.sleep(max(0.0, began + at - time.monotonic()))
            undo = deed()
            if undo is not None:
                pause = world.chance.uniform(*lasts[number])
                heapq.heappush(agenda, (time.monotonic() - began + pause, next(order), undo))
    except BaseException:
        # What was not taken back would outlive the round.
        for _, number, undo in agenda:
            if number >= len(faults) + len(edits):
                undo()
        raise
    finally:
        world.calm()


def _examine(
    world: World,
    outcome: Outcome,
    mark: int,
    calls: int,
    generation: int,
    strangers: dict[str, tuple[str, str]],
    suspended: dict[str, tuple[str, str]],
) -> None:
    complaints = outcome.complaints
    events, asked = world.recorder.since(mark), world.proxy.calls[calls:]
    complaints += checks.stays_quiet(world)
    complaints += checks.nothing_left(world)
    complaints += checks.untouched(world, strangers, world.yard.others())
    complaints += checks.untouched(world, suspended, checks.suspended_entries(world))
    complaints += checks.one_at_a_time(events)
    complaints += checks.one_compose_at_a_time(asked)
    complaints += checks.reads_never_hang(world)
    outcome.extra, found = checks.beyond(world, events, asked)
    complaints += found
    complaints += checks.durable(world, generation)
