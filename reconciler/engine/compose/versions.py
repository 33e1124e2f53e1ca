"""Rates versions of Docker Compose by what the daemon relies on (measured with 21 versions, COMPAT)."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Fitness(IntEnum):
    """How well a version serves; higher is better."""

    UNUSABLE = 0
    HARMFUL = 1
    """Used only if there is nothing better."""
    FLAWED = 2
    """Used, with a warning."""
    GOOD = 3


class Verdict(NamedTuple):
    """The fitness of a version, and the reason if it is not good."""

    fitness: Fitness
    reason: str = ""


class _Range(NamedTuple):
    first: tuple[int, ...]
    last: tuple[int, ...]
    verdict: Verdict


_RANGES = (
    _Range(
        (2, 24, 0),
        (2, 24, 0),
        Verdict(Fitness.UNUSABLE, "recreates every container made by an older version (compose#11335)"),
    ),
    _Range(
        (2, 25, 0),
        (2, 25, 0),
        Verdict(Fitness.UNUSABLE, "ignores `config --format json` (compose#11627)"),
    ),
    _Range(
        (2, 26, 0),
        (2, 29, 999),
        Verdict(
            Fitness.FLAWED, "hashes depends_on, so that `up --no-deps` recreates containers (compose#12069)"
        ),
    ),
    _Range(
        (2, 34, 0),
        (2, 40, 1),
        Verdict(
            Fitness.HARMFUL,
            "has CVE-2025-62725: a Compose file included from a registry can write any file of this machine "
            "(unless your distribution has patched it)",
        ),
    ),
)
_TOO_OLD = Verdict(
    Fitness.UNUSABLE,
    "is older than 2.26, so it can't create services that have a profile and hashes them in another way",
)
_NEWEST_TRIED = 5


def judge(numbers: tuple[int, ...]) -> Verdict:
    """Rate a version by its numbers: 2.30 to 5.x are supported, except those with known holes."""
    if numbers < (2,):
        return Verdict(Fitness.UNUSABLE, "is not version 2 or later")
    for known in _RANGES:
        if known.first <= numbers <= known.last:
            return known.verdict
    if numbers < (2, 26):
        return _TOO_OLD
    if numbers[0] > _NEWEST_TRIED:
        return Verdict(Fitness.FLAWED, "is newer than what Service Manager is tested with (2.30 to 5.x)")
    return Verdict(Fitness.GOOD)
