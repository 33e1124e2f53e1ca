"""Repeats made into one: whoever is refused a thousand times a minute gets two entries, not a thousand.

The first of its kind is recorded at once, later ones are counted and recorded together. New kinds are
rationed, whoever they come from: else many addresses could push everything else out of the log.
"""

from __future__ import annotations

from typing import NamedTuple

from reconciler.audit.chain import AuditEvent


class Rates(NamedTuple):
    """``window``: seconds that repeats are gathered for. ``most`` kinds are gathered side by side.

    Of all their entries there may be ``burst`` at once, then one per ``refill`` seconds: 3 MB a day.
    """

    window: float = 60.0
    most: int = 256
    burst: float = 100.0
    refill: float = 10.0


DEFAULT = Rates()


class _Gathered:
    __slots__ = ("fact", "more", "until")

    def __init__(self, fact: AuditEvent, until: float) -> None:
        self.fact = fact
        self.more = 0
        self.until = until


class Coalescer:
    """Gathers facts by a key. Times are monotonic seconds. Not safe for several threads."""

    def __init__(self, rates: Rates = DEFAULT) -> None:
        self._rates = rates
        self._gathered: dict[tuple[str, ...], _Gathered] = {}
        self._others = 0
        self._others_until = 0.0
        self._tokens = rates.burst
        self._filled_at = 0.0

    def add(self, key: tuple[str, ...], fact: AuditEvent, now: float) -> AuditEvent | None:
        """The fact where it is to be recorded now; None: it was counted, see ``due``."""
        held = self._gathered.get(key)
        if held is not None:
            held.fact = fact
            held.more += fact.times
            return None
        if len(self._gathered) < self._rates.most and self._token(now):
            self._gathered[key] = _Gathered(fact, now + self._rates.window)
            return fact
        if not self._others:
            self._others_until = now + self._rates.window
        self._others += fact.times
        return None

    def due(self, now: float, wall: float, *, everything: bool = False) -> list[AuditEvent]:
        """What was gathered and is to be recorded now. ``wall``: the time of day, in seconds."""
        found = []
        for key, held in list(self._gathered.items()):
            if held.until > now and not everything:
                continue
            if not held.more:
                del self._gathered[key]
            elif everything or self._token(now):
                found.append(_summed(held))
                held.more = 0
                held.until = now + self._rates.window
            else:
                held.until = now + self._rates.refill
        if self._others and (everything or self._others_until <= now):
            found.append(
                AuditEvent(
                    "refusals",
                    result="refused",
                    reason="many",
                    message=f"{self._others} further refusals, from too many places to tell them apart",
                    times=self._others,
                    at=wall,
                )
            )
            self._others = 0
        return found

    def next(self) -> float | None:
        """When ``due`` should be asked again; None while there is nothing to wait for."""
        times = [held.until for held in self._gathered.values()]
        return min([*times, self._others_until] if self._others else times, default=None)

    def _token(self, now: float) -> bool:
        earned = (now - self._filled_at) / self._rates.refill
        self._tokens, self._filled_at = min(self._rates.burst, self._tokens + earned), now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def _summed(held: _Gathered) -> AuditEvent:
    fact = held.fact
    if held.more == 1:
        return fact
    message = f"{held.more} times more, last now" + (f": {fact.message}" if fact.message else "")
    return fact._replace(times=held.more, message=message)
