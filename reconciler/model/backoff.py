"""When to try a service again: state and arithmetic, never a sleep.

The rule is CONTRACT section 3's: the first repair is immediate, then exponential with jitter from
1 s to at most 5 min, reset after 10 min of health and by any change of the service's inputs.
"""

from __future__ import annotations

from typing import NamedTuple

FIRST = 1.0
LONGEST = 300.0
HEALTHY_FOR = 600.0
JITTER = 0.2

TRIES = 3
"""Attempts after which a service counts as degraded, no longer on its way, and holds up nobody else."""


class Failure(NamedTuple):
    """How a service has been failing.

    ``attempts`` failed in a row; ``due`` is the monotonic second before which nothing is tried;
    ``inputs`` is what the attempts were made with (other inputs: a fresh start); ``at`` is wall time,
    ``container`` the id of the one that the last step that failed was about, empty if it was about none.
    """

    attempts: int
    due: float
    inputs: str
    reason: str
    error: str
    at: float
    container: str = ""


def delay(count: int, chance: float) -> float:
    """Seconds to wait before the next attempt, after ``count`` failures in a row.

    0 for none; then 1, 2, 4 … 300, spread by 20 % either way with ``chance`` in [0, 1), so that
    services which failed together do not come back together.
    """
    if count <= 0:
        return 0.0
    # The exponent is bounded first: 2.0 ** 2000 is an error, not a long wait.
    plain = min(LONGEST, FIRST * 2.0 ** min(count - 1, 16))
    return min(LONGEST, plain * (1 - JITTER + 2 * JITTER * chance))
