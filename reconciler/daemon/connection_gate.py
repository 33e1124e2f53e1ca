"""Counts the connections of all HTTP listeners of the process and decides which one to close."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

from reconciler.daemon.http_limits import Limits

log = logging.getLogger(__name__)

_LOG_EVERY = 600.0
"""Seconds between log lines about refused connections."""


class Connection(Protocol):
    """One connection, as the gate sees it. ``address`` is that of the client."""

    address: str

    def make_room(self, *, quiet: bool) -> None:
        """Close the connection at once; without a response if ``quiet``."""


class Gate:
    """Counts the connections of all listeners and decides which one to close. ``clock`` is monotonic.

    At the limit, the gate closes an idle connection, or else the oldest with an incomplete request, to admit
    a new one. A complete request succeeds even while a client at the same address holds many half-sent ones.
    """

    def __init__(self, limits: Limits | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits or Limits()
        self.bodies = 0
        self._clock = clock
        self._all: set[Connection] = set()
        self._incomplete: dict[str, dict[Connection, None]] = {}
        self._idle: dict[Connection, None] = {}
        self._logged_at = float("-inf")
        self._unlogged = 0

    def __len__(self) -> int:
        """The number of connections."""
        return len(self._all)

    def incomplete(self, address: str) -> int:
        """The number of connections of an address with an incomplete request."""
        return len(self._incomplete.get(address, ()))

    def enter(self, connection: Connection) -> bool:
        """Admit a new connection; False if all others are being served, so there is no room."""
        if len(self._all) >= self.limits.connections and not self._make_room():
            return False
        self._all.add(connection)
        self.unfinished(connection)
        return True

    def unfinished(self, connection: Connection) -> None:
        """Record that the connection waits for the rest of a request."""
        own = self._incomplete.setdefault(connection.address, {})
        self._idle.pop(connection, None)
        if connection in own:
            return
        own[connection] = None
        if len(own) > self.limits.incomplete:
            self._evict(next(iter(own)))

    def finished(self, connection: Connection) -> None:
        """Record that the connection's request is complete."""
        own = self._incomplete.get(connection.address, {})
        own.pop(connection, None)
        if not own:
            self._incomplete.pop(connection.address, None)

    def idle(self, connection: Connection) -> None:
        """Record that the connection has no request, so it can be closed to make room."""
        if connection in self._all:
            self._idle[connection] = None

    def busy(self, connection: Connection) -> None:
        """Record that a request began on the connection."""
        self._idle.pop(connection, None)

    def leave(self, connection: Connection) -> None:
        """Record that the connection is closed or closing."""
        self._all.discard(connection)
        self._idle.pop(connection, None)
        self.finished(connection)

    def note(self, what: str, address: str = "") -> None:
        """Log that clients are refused, at most once in ten minutes."""
        now = self._clock()
        self._unlogged += 1
        if now - self._logged_at >= _LOG_EVERY:
            extra = {"why": what, "address": address, "count": self._unlogged}
            log.warning("refusing HTTP connections", extra=extra)
            self._logged_at, self._unlogged = now, 0

    def _make_room(self) -> bool:
        if self._idle:
            victim = next(iter(self._idle))
        elif self._incomplete:
            victim = next(iter(self._incomplete[max(self._incomplete, key=self.incomplete)]))
        else:
            return False
        self._evict(victim)
        return True

    def _evict(self, victim: Connection) -> None:
        quiet = victim in self._idle
        self.leave(victim)
        victim.make_room(quiet=quiet)
