"""Results of rounds as a table, stored in files so that several runs make one table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

from tests.chaos.harness import Read
from tests.chaos.resource_usage import ResourceUsage
from tests.chaos.rounds import Outcome

_FEW = 5
_GROWN_UP = 20
"""Rounds after which a daemon has all the memory, threads and descriptors that it needs."""


def table(outcomes: Sequence[Outcome]) -> str:
    """The results as Markdown."""
    kinds: Counter[str] = sum((outcome.kinds for outcome in outcomes), Counter())
    held = [outcome for outcome in outcomes if not outcome.complaints]
    seconds = [outcome.seconds for outcome in held] or [0.0]
    every = [read for outcome in outcomes for read in outcome.reads]
    frozen = [read.seconds for read in every if read.frozen]
    rows = [
        ("rounds held / played", f"{len(held)} / {len(outcomes)}"),
        ("faults", f"{kinds.total()}: {', '.join(f'{kind} {n}' for kind, n in kinds.most_common())}"),
        ("as desired after the last fault", f"median {median(seconds):.1f} s, worst {max(seconds):.1f} s"),
        ("acts beyond the needed", _sum(outcome.extra for outcome in outcomes)),
        ("writes acknowledged", _sum(outcome.acks for outcome in outcomes)),
        ("of them lost", _sum(outcome.lost for outcome in outcomes)),
        ("containers stopped that should run", _sum(outcome.stopped for outcome in outcomes)),
        ("foreign or suspended containers touched", _sum(outcome.touched for outcome in outcomes)),
        ("reads", f"{len(every)}, p99 {_p99([r.seconds for r in every]):.0f} ms"),
        ("reads while the engine is frozen", f"{len(frozen)}, p99 {_p99(frozen):.0f} ms"),
        *_grown(outcomes),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {what} | {value} |" for what, value in rows)])


def _grown(outcomes: Sequence[Outcome]) -> list[tuple[str, str]]:
    """The daemon with the most rounds, after its first rounds and at the end.

    Medians of a few rounds each, because a thread of an engine call ends ten seconds after it.
    """
    every = [outcome.vitals for outcome in outcomes if outcome.vitals]
    oldest = max(every, key=lambda vitals: vitals.age, default=None)
    life = [v for v in every if oldest and v.pid == oldest.pid and v.age >= _GROWN_UP]
    first, last = life[:_FEW], life[-_FEW:]
    if len(life) < 2 * _FEW:
        return []
    rows = []
    for what, of in (
        ("memory (RSS, MB)", lambda v: v.rss / 1e6),
        ("threads", lambda v: v.threads),
        ("file descriptors", lambda v: v.descriptors),
    ):
        then, now = median(map(of, first)), median(map(of, last))
        rows.append(
            (
                f"daemon's {what}, its rounds {_ages(first)} → {_ages(last)}",
                f"{then:.1f} → {now:.1f} ({now / then - 1:+.1%})",
            )
        )
    return rows


def _ages(several: Sequence[ResourceUsage]) -> str:
    return f"{several[0].age}-{several[-1].age}"


def save(outcomes: Iterable[Outcome], file: Path) -> None:
    """Store them for a common table."""
    file.write_text(json.dumps([vars(outcome) for outcome in outcomes]))


def load(file: Path) -> list[Outcome]:
    """The stored results."""
    return [_outcome(value) for value in json.loads(file.read_text())]


def _outcome(value: dict[str, object]) -> Outcome:
    outcome = Outcome(**value)  # type: ignore[arg-type]
    outcome.faults, outcome.kinds = Counter(outcome.faults), Counter(outcome.kinds)
    outcome.reads = [Read(*read) for read in outcome.reads]
    outcome.vitals = ResourceUsage(*outcome.vitals) if outcome.vitals else None
    return outcome


def _sum(counts: Iterable[int]) -> str:
    return str(sum(counts))


def _p99(seconds: Sequence[float]) -> float:
    """In milliseconds; 0 without measurements."""
    return 1000 * sorted(seconds)[int(len(seconds) * 0.99)] if seconds else 0.0
