"""One round: settle, edits, faults, quiet, checks. All of it follows from the seed."""

from __future__ import annotations

import heapq
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from tests.chaos import checks, history
from tests.chaos.edits import EDITS, Edit
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.harness import ChaosHarness, Read
from tests.chaos.resource_usage import ResourceUsage, vitals_of
from tests.support.harness.sandbox import GROUP_OF, PROJECT

SPAN = 3.0
"""Seconds over which edits and faults begin."""
_SUSPENDS = 0.3
_AGAIN = 0.3


@dataclass(kw_only=True)
class Outcome:
    """The result of a round. ``seconds``: from the end of the last fault until converged.

    ``lost``, ``stopped``, ``touched`` count lost acknowledged writes, containers stopped that should run, and
    foreign containers touched.
    """

    seed: int
    faults: Counter[str]
    kinds: Counter[str]
    seconds: float = 0.0
    extra: int = 0
    acks: int = 0
    lost: int = 0
    stopped: int = 0
    touched: int = 0
    vitals: ResourceUsage | None = None
    complaints: list[str] = field(default_factory=list)
    story: list[str] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join([f"seed {self.seed}:", *self.story, *(f"  ✗ {text}" for text in self.complaints)])


def choose(seed: int, faults: Sequence[Fault]) -> tuple[list[Fault], list[Edit], bool]:
    """The faults, edits and suspension of a round, determined by the seed."""
    chance = random.Random(f"choice {seed}")
    several = chance.choices(faults, [fault.share for fault in faults], k=chance.choice([1, 2, 2, 3]))
    edits = chance.choices(EDITS, k=chance.choice([0, 1, 2, 3]))
    return several, edits, chance.random() < _SUSPENDS


def play(
    world: ChaosHarness, seed: int, faults: Sequence[Fault] = FAULTS, within: float = checks.QUIET
) -> Outcome:
    """Run one round with all checks; ``within``: most seconds to converge after the last fault."""
    several, edits, suspends = choose(seed, faults)
    outcome = Outcome(
        seed=seed, faults=Counter(f.name for f in several), kinds=Counter(f.kind for f in several)
    )
    world.begin(seed)
    if suspends:
        world.account.suspended = frozenset({"extra"})
        world.sandbox.save("groups.yaml", checks.suspended_yaml(world.account.suspended))
        checks.settled(world)
        world.account.acked = {}
    before = _Before(
        int(world.daemon.get("/services/status")["generation"]),
        world.recorder.mark(),
        world.proxy.mark(),
        world.sandbox.others(),
        checks.suspended_entries(world),
        {id_: service for service, id_ in world.sandbox.ids().items()},
    )
    try:
        _storm(world, several, edits)
        outcome.seconds, outcome.complaints = checks.settled(world, within)
        if not outcome.complaints:
            outcome.complaints += _at_quiet(world)
            outcome.vitals = vitals_of(world.daemon.pid, world.ages[world.daemon.pid])
        _always(world, outcome, before)
    finally:
        outcome.story, outcome.reads = world.account.story, list(world.reads)
        outcome.acks = world.account.acks
    return outcome


class _Before(NamedTuple):
    """The state before the faults: foreign and suspended containers, services by container."""

    generation: int
    event: int
    call: int
    strangers: dict[str, tuple[str, str]]
    suspended: dict[str, tuple[str, str]]
    services: dict[str, str]


class _Action(NamedTuple):
    """An action ``at`` seconds after the start of the faults; without ``lasts`` it ends a fault."""

    at: float
    order: int
    do: Callable[[], Any]
    lasts: tuple[float, float] | None


def _storm(world: ChaosHarness, faults: Sequence[Fault], edits: Sequence[Edit]) -> None:
    """Start every action and revert every fault at its time."""
    order = itertools.count()
    begins: list[tuple[Callable[[], Any], tuple[float, float]]]
    begins = [(partial(fault.begin, world), fault.lasts) for fault in faults]
    begins += [(partial(edit.do, world), (0.0, 0.0)) for edit in edits]
    agenda = [_Action(world.chance.uniform(0, SPAN), next(order), do, lasts) for do, lasts in begins]
    heapq.heapify(agenda)
    began = time.monotonic()
    try:
        while agenda:
            deed = heapq.heappop(agenda)
            time.sleep(max(0.0, began + deed.at - time.monotonic()))
            try:
                undo, pause = deed.do(), world.chance.uniform(*deed.lasts or (0.0, 0.0))
            except OSError as error:
                # Another fault removed the disk: skip starts, retry reverts.
                world.tell(f"not done: {error}")
                undo, pause = None if deed.lasts else deed.do, _AGAIN
            if undo is not None:
                heapq.heappush(agenda, _Action(time.monotonic() - began + pause, next(order), undo, None))
    except BaseException:
        # Faults that were not reverted would outlive the round.
        for deed in agenda:
            if deed.lasts is None:
                deed.do()
        raise
    finally:
        world.calm()


def _at_quiet(world: ChaosHarness) -> list[str]:
    return [
        *checks.stays_quiet(world),
        *checks.nothing_left(world),
        *checks.tells_the_truth(world),
    ]


def _always(world: ChaosHarness, outcome: Outcome, before: _Before) -> None:
    account = world.account
    events, calls = world.recorder.since(before.event), world.proxy.calls[before.call :]
    services = before.services | {
        e.id: e.service for e in events if e.project == PROJECT and e.service in GROUP_OF
    }
    touched = checks.untouched(world, before.strangers, world.sandbox.others())
    touched += checks.untouched(world, before.suspended, checks.suspended_entries(world))
    stopped = history.needless_stops(account, calls, services)
    silent = checks.answers(world)
    lost = [] if silent else checks.lost(world)
    outcome.touched, outcome.stopped, outcome.lost = len(touched), len(stopped), len(lost)
    outcome.extra, beyond = checks.beyond(world, events, calls)
    outcome.complaints += [
        *touched,
        *stopped,
        *lost,
        *beyond,
        *account.complaints,
        *history.early_starts(account, events, calls, services),
        *checks.one_at_a_time(events),
        *checks.one_compose_at_a_time(calls),
        *checks.reads_never_hang(world),
        *(silent or checks.lasting(world, before.generation)),
    ]
