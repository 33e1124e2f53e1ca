"""Computes when to retry a service. Arithmetic only; never sleeps.

The rule (CONTRACT section 3): the first repair is immediate, later ones follow an exponential back-off with
jitter from 1 s to at most 5 min; 10 min of health or a change of the service's inputs resets it.
"""

from __future__ import annotations

from typing import NamedTuple

FIRST = 1.0
"""Seconds of the first delay."""

LONGEST = 300.0
"""Seconds of the longest delay."""

HEALTHY_FOR = 600.0
"""Seconds of health that reset the back-off."""

JITTER = 0.2
"""The largest change of a delay by jitter, as a share of it."""

TRIES = 3
"""Failed attempts after which a service counts as degraded and no longer blocks others."""


class Failure(NamedTuple):
    """The consecutive failures of a service.

    ``attempts`` is the number of failures in a row; ``due`` the monotonic second of the next attempt;
    ``inputs`` what the attempts used (other inputs reset the back-off); ``at`` the wall time of the last
    failure; ``container`` the id of the last failed step's container, empty if it had none.
    """

    attempts: int
    due: float
    inputs: str
    reason: str
    error: str
    at: float
    container: str = ""


def delay(count: int, chance: float) -> float:
    """Return the seconds to wait before the next attempt, after ``count`` failures in a row.

    0 without failures; then 1, 2, 4 … 300, with a jitter of 20 % from ``chance`` in [0, 1), so that
    services which failed together do not retry together.
    """
    if count <= 0:
        return 0.0
    # Bound the exponent first: 2.0 ** 2000 raises OverflowError.
    plain = min(LONGEST, FIRST * 2.0 ** min(count - 1, 16))
    return min(LONGEST, plain * (1 - JITTER + 2 * JITTER * chance))
