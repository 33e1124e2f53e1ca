"""Rate limit for wrong keys, per address. A correct key is always accepted."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple


class AttemptLimits(NamedTuple):
    """``burst`` wrong keys at once, then one per ``refill`` seconds. ``most`` addresses are remembered."""

    burst: int = 10
    refill: float = 6.0
    most: int = 1024


DEFAULT = AttemptLimits()


class FailedLogins:
    """Counts wrong keys by address. Evicts the least recently failed address when there are too many."""

    def __init__(self, allowed: AttemptLimits = DEFAULT, clock: Callable[[], float] = time.monotonic) -> None:
        self._allowed = allowed
        self._clock = clock
        # By address: when its token bucket will be full again.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def failed(self, address: str) -> int:
        """Count a wrong key; return the seconds that the address has to wait, 0 within the limit."""
        now, allowed = self._clock(), self._allowed
        full_at = max(self._full_at.get(address, now), now)
        wait = full_at + allowed.refill - (now + allowed.burst * allowed.refill)
        if wait <= 0:
            self._full_at[address] = full_at + allowed.refill
            wait = 0.0
        else:
            self._full_at[address] = full_at
        self._full_at.move_to_end(address)
        while len(self._full_at) > allowed.most:
            self._full_at.popitem(last=False)
        return math.ceil(wait)

    def __len__(self) -> int:
        return len(self._full_at)
