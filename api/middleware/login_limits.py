"""How often an address may be wrong. Whoever has a right key is never asked."""

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
    """Wrong keys by address. Forgets the address that was longest quiet when there are too many."""

    def __init__(self, allowed: AttemptLimits = DEFAULT, clock: Callable[[], float] = time.monotonic) -> None:
        self._allowed = allowed
        self._clock = clock
        # By address: when it will have earned back all that it used up.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def failed(self, address: str) -> int:
        """Count a wrong key; the seconds that the address should wait, 0 while it is within bounds."""
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
