"""Coalesces repeated events: a thousand refusals of one client in a minute make two entries.

The first event of a key is recorded at once; repeats are counted and recorded together. New keys share a rate
limit: otherwise requests from many addresses could push all other entries out of the log. Reads, writes and
sign-ins have one limit each, so that a flood of refused reads hides neither a refused write nor a sign-in.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from reconciler.audit.chain import AuditEvent


class Rates(NamedTuple):
    """``window``: seconds in which repeats are counted together. ``most``: keys counted at the same time.

    All keys of one kind together may record ``burst`` entries at once, then one per ``refill`` seconds: 3 MB
    a day for each kind.
    """

    window: float = 60.0
    most: int = 256
    burst: float = 100.0
    refill: float = 10.0


DEFAULT = Rates()


_READS = frozenset({"read", "request", "metrics"})
"""Actions of requests that would change nothing."""


def _kind(event: AuditEvent) -> str:
    if event.result == "accepted":
        return "accepted"
    return "read" if event.action in _READS else "write"


class _Limit:
    __slots__ = ("filled_at", "keys", "tokens")

    def __init__(self, tokens: float) -> None:
        self.keys = 0
        self.tokens = tokens
        self.filled_at = 0.0


class _Repeats:
    __slots__ = ("count", "event", "kind", "until")

    def __init__(self, event: AuditEvent, kind: str, until: float) -> None:
        self.event = event
        self.kind = kind
        self.count = 0
        self.until = until


class Coalescer:
    """Counts repeated events by key. Times are monotonic seconds. Not thread-safe."""

    def __init__(self, rates: Rates = DEFAULT) -> None:
        self._rates = rates
        self._by_key: dict[tuple[str, ...], _Repeats] = {}
        self._others = 0
        self._others_until = 0.0
        self._limits: defaultdict[str, _Limit] = defaultdict(lambda: _Limit(rates.burst))

    def add(self, key: tuple[str, ...], event: AuditEvent, now: float) -> AuditEvent | None:
        """Return the event if it should be recorded now; None if it was only counted (see ``due``)."""
        repeats = self._by_key.get(key)
        if repeats is not None:
            repeats.event = event
            repeats.count += event.times
            return None
        kind = _kind(event)
        limit = self._limits[kind]
        if limit.keys < self._rates.most and self._take_token(limit, now):
            limit.keys += 1
            self._by_key[key] = _Repeats(event, kind, now + self._rates.window)
            return event
        if not self._others:
            self._others_until = now + self._rates.window
        self._others += event.times
        return None

    def due(self, now: float, wall: float, *, everything: bool = False) -> list[AuditEvent]:
        """Return the counted events that are due, or ``everything``; ``wall`` is wall time in seconds."""
        summed = []
        for key, repeats in list(self._by_key.items()):
            if repeats.until > now and not everything:
                continue
            if not repeats.count:
                del self._by_key[key]
                self._limits[repeats.kind].keys -= 1
            elif everything or self._take_token(self._limits[repeats.kind], now):
                summed.append(_summed(repeats))
                repeats.count = 0
                repeats.until = now + self._rates.window
            else:
                repeats.until = now + self._rates.refill
        if self._others and (everything or self._others_until <= now):
            summed.append(
                AuditEvent(
                    "refusals",
                    result="refused",
                    reason="many",
                    message=f"{self._others} further refusals, from too many sources to list",
                    times=self._others,
                    at=wall,
                )
            )
            self._others = 0
        return summed

    def next_due(self) -> float | None:
        """Return the monotonic time of the next ``due``; None when nothing is counted."""
        times = [repeats.until for repeats in self._by_key.values()]
        return min([*times, self._others_until] if self._others else times, default=None)

    def _take_token(self, limit: _Limit, now: float) -> bool:
        earned = (now - limit.filled_at) / self._rates.refill
        limit.tokens, limit.filled_at = min(self._rates.burst, limit.tokens + earned), now
        if limit.tokens < 1:
            return False
        limit.tokens -= 1
        return True


def _summed(repeats: _Repeats) -> AuditEvent:
    event = repeats.event
    if repeats.count == 1:
        return event
    message = f"{repeats.count} more times, the last one now" + (
        f": {event.message}" if event.message else ""
    )
    return event._replace(times=repeats.count, message=message)
