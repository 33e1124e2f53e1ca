"""Changes of the ledger: each function takes a ledger and returns a new one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from statistics import median
from typing import Any

from reconciler.model.backoff import HEALTHY_FOR, Failure, delay
from reconciler.model.ledger import Clock, ContainerExit, Ledger, ReadyWindow

LEARNED = 5
"""Start times to remember for each service."""

FORGET = 0.85
"""Factor that reduces the known lower bound of a start time with each start that gives none."""


def record_failure(
    ledger: Ledger,
    service: str,
    *,
    inputs: str,
    reason: str,
    error: str,
    now: Clock,
    chance: float,
    free: int = 0,
    container: str = "",
) -> Ledger:
    """Record a failed attempt; ``backoff.delay`` delays the next one.

    The first ``free`` attempts cost no delay. ``container`` is the id of the step's container.
    """
    before = ledger.failures.get(service)
    count = before.attempts + 1 if before and before.inputs == inputs else 1
    due = now.mono + delay(count - free, chance)
    entry = Failure(count, due, inputs, reason, error, now.wall, container)
    return replace(ledger, failures={**ledger.failures, service: entry})


def record_exit(
    ledger: Ledger, service: str, exit_: ContainerExit, *, inputs: str, now: Clock, chance: float
) -> Ledger:
    """Record an exit that this daemon did not cause. The first repair is immediate, later ones wait.

    Returns the same ledger if this exit (same container, same end) is recorded already.
    """
    known = ledger.exits.get(service)
    if known is not None and (known.container, known.finished_at) == (exit_.container, exit_.finished_at):
        return ledger
    before = ledger.failures.get(service)
    count = before.attempts + 1 if before and before.inputs == inputs else 1
    error = f"exited with code {exit_.code}" + (", out of memory" if exit_.oom_killed else "")
    entry = Failure(
        count,
        now.mono + delay(count - 1, chance),
        inputs,
        "out_of_memory" if exit_.oom_killed else "exited",
        error,
        now.wall,
    )
    return replace(
        ledger,
        failures={**ledger.failures, service: entry},
        exits={**ledger.exits, service: exit_},
    )


def forget_recovered(ledger: Ledger, now: Clock) -> Ledger:
    """Forget the failures of services that have been ready for ten minutes."""
    recovered = [
        service
        for service in ledger.failures
        if service in ledger.ready and now.mono - ledger.ready[service].since >= HEALTHY_FOR
    ]
    return replace(ledger, failures=omit(ledger.failures, recovered)) if recovered else ledger


def record_start_time(ledger: Ledger, service: str, *, not_at: float, at: float) -> Ledger:
    """Record a start: not ready after ``not_at`` seconds (0: no earlier probe), ready at ``at``.

    A first probe that succeeds gives no lower bound. The known lower bound is then reduced a little with
    each start, so that later starts are probed earlier.
    """
    known = ledger.brackets.get(service)
    low = not_at or (min(known.low, at) * FORGET if known else 0.0)
    durations = (*ledger.durations.get(service, ()), round(at, 3))[-LEARNED:]
    return replace(
        ledger,
        durations={**ledger.durations, service: durations},
        brackets={**ledger.brackets, service: ReadyWindow(round(low, 3), round(at, 3))},
    )


def expected_start_time(ledger: Ledger, service: str) -> float | None:
    """Return the expected seconds from start to ready; None without a recorded start."""
    seen = ledger.durations.get(service)
    return median(seen) if seen else None


def for_boot(ledger: Ledger, boot: str) -> Ledger:
    """Return the ledger for this boot; runs of an earlier boot count as interrupted."""
    if not boot or ledger.boot == boot:
        return ledger
    cut = ledger.at_work if ledger.boot else {}
    return replace(ledger, boot=boot, cut={**ledger.cut, **cut}, at_work={})


def omit(mapping: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Return a copy of ``mapping`` without ``keys``."""
    omitted = set(keys)
    return {key: value for key, value in mapping.items() if key not in omitted}
