"""Limits on what a client may hold of the HTTP server before, beside and after its request is complete.

Neither uvicorn nor httptools limits the head of a request or waits for it only so long, so without a key
100 MB of header lines cost 3 GB, and 1,009 half-sent requests used every descriptor (issue 13). ``Gate``
counts the connections of all listeners of the process; ``LimitedProtocol`` is what the two protocols
(``http_httptools``, ``http_h11``) have in common.

Addresses are those of the connection; headers that a proxy sets are not trusted here. IPv6 addresses count
by their /64, which one machine usually has to itself.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from http import HTTPStatus
from ipaddress import IPv6Address
from typing import Any, NamedTuple

log = logging.getLogger(__name__)

_QUIET = logging.getLogger("reconciler.http")
# uvicorn warns of each malformed request and each upgrade: a line for every one that a stranger sends.
_QUIET.setLevel(logging.ERROR)

_LOG_EVERY = 600.0
"""Seconds between log lines about refused connections."""

_SLICE = 16 * 1024
"""Bytes given to a parser at once: how far a head can grow beyond its limit before that is noticed."""

_LINGER = 1.0
"""Seconds that a refused client may still send: closing at once would reset the connection, and most
clients then never see the answer."""

_LINGER_BYTES = 1 << 20


class Limits(NamedTuple):
    """How much is allowed. Sizes are in bytes, times in seconds.

    ``head_*`` also hold for the trailer section of a chunked body. ``waiting``: pipelined requests behind the
    one being answered. ``incomplete``: connections of one address whose request is not complete.
    ``bodies``: what all unfinished bodies may hold together.
    """

    head_bytes: int = 64 * 1024
    head_lines: int = 100
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    waiting: int = 16
    connections: int = 1024
    incomplete: int = 256
    bodies: int = 32 << 20


def limits_for(descriptors: int) -> Limits:
    """The limits for a process that may have so many descriptors open.

    A quarter of them, and at least 128, stays for the loop: engine, files, Compose, git and the audit log.
    """
    free = descriptors - max(128, min(1024, descriptors // 4))
    usual = Limits()
    connections = max(16, min(usual.connections, free))
    return usual._replace(connections=connections, incomplete=min(usual.incomplete, max(8, connections // 2)))


class Fault(NamedTuple):
    """Why a connection is refused or cut off. ``lingers``: the client is probably still sending."""

    status: int
    reason: str
    detail: str
    remedy: str
    lingers: bool = True

    def body(self) -> bytes:
        """Problem details as all answers of the API have them."""
        told = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "reason": self.reason,
            "remedy": self.remedy,
        }
        return json.dumps(told).encode()

    def answer(self) -> bytes:
        """The whole answer as it goes over the wire."""
        body = self.body()
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            "content-type: application/problem+json",
            f"content-length: {len(body)}",
            "cache-control: no-store",
            "x-content-type-options: nosniff",
            *(["retry-after: 1"] if self.status == HTTPStatus.SERVICE_UNAVAILABLE else []),
            "connection: close",
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body


HEAD_TOO_LARGE = Fault(
    431, "head_too_large", "the head of the request is larger than 64 kB or 100 lines", "send fewer headers"
)
MALFORMED = Fault(400, "malformed_request", "this is not a request of HTTP/1.1", "see to the client")
TOO_SLOW = Fault(
    408, "request_timeout", "the request was not complete in time", "send it faster, or again", lingers=False
)
TOO_MANY = Fault(
    503, "too_many_connections", "too many connections are open", "close some, or try again", lingers=False
)
TOO_MANY_WAITING = Fault(
    503, "too_many_requests_waiting", "too many requests wait on this connection", "wait for the answers"
)
BODIES_TOO_LARGE = Fault(
    503, "too_many_bodies", "too many bodies are being received at once", "try again in a moment"
)


class Gate:
    """Counts the connections of all listeners and decides which one has to go. ``clock`` is monotonic.

    A newcomer is let in where possible, and the oldest connection whose request is not complete goes for it:
    a complete request then still gets through while somebody holds half-sent ones, from the same address too.
    """

    def __init__(self, limits: Limits | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits or Limits()
        self.bodies = 0
        self._clock = clock
        self._all: set[LimitedProtocol] = set()
        self._incomplete: dict[str, dict[LimitedProtocol, None]] = {}
        self._idle: dict[LimitedProtocol, None] = {}
        self._logged_at = float("-inf")
        self._unlogged = 0

    def __len__(self) -> int:
        """How many connections there are."""
        return len(self._all)

    def incomplete(self, address: str) -> int:
        """How many connections of an address have no complete request."""
        return len(self._incomplete.get(address, ()))

    def enter(self, connection: LimitedProtocol) -> bool:
        """Let a new connection in; False: every other one is being served, so there is no room."""
        if len(self._all) >= self.limits.connections and not self._make_room():
            return False
        self._all.add(connection)
        self.unfinished(connection)
        return True

    def unfinished(self, connection: LimitedProtocol) -> None:
        """The connection waits for the rest of a request."""
        own = self._incomplete.setdefault(connection.address, {})
        self._idle.pop(connection, None)
        if connection in own:
            return
        own[connection] = None
        if len(own) > self.limits.incomplete:
            self._evict(next(iter(own)))

    def finished(self, connection: LimitedProtocol) -> None:
        """The request of the connection is complete."""
        own = self._incomplete.get(connection.address, {})
        own.pop(connection, None)
        if not own:
            self._incomplete.pop(connection.address, None)

    def idle(self, connection: LimitedProtocol) -> None:
        """No request is on the connection, so it can be closed for the sake of others."""
        if connection in self._all:
            self._idle[connection] = None

    def busy(self, connection: LimitedProtocol) -> None:
        """A request began on the connection."""
        self._idle.pop(connection, None)

    def leave(self, connection: LimitedProtocol) -> None:
        """The connection is closed, or about to be."""
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

    def _evict(self, victim: LimitedProtocol) -> None:
        quiet = victim in self._idle
        self.leave(victim)
        victim.make_room(quiet=quiet)


class LimitedProtocol(asyncio.Protocol):
    """What uvicorn's two HTTP protocols lack: limits of size, time and number. Put before one of them.

    The subclass says what its parser found: ``_begin``, ``_head_done``, ``_body_grew``, ``_message_done``.
    """

    gate: Gate
    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop
    flow: Any
    cycle: Any
    client: tuple[str, int] | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = _QUIET
        self.address = ""
        self._complete = False
        self._in_body = False
        self._deaf = False
        self._spoken = False
        self._discarded = 0
        self._body_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._last_words: Fault | None = None

    # --- the connection ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection, or refuse it."""
        super().connection_made(transport)
        self.address = _network(self.client[0] if self.client else "")
        if self.gate.enter(self):
            self._await_client()
        else:
            self._deaf = True
            self.gate.note(TOO_MANY.detail, self.address)
            self._say(TOO_MANY)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._settle()
        self.gate.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Give the parser what came, in slices."""
        self._spoken = True
        for start in range(0, len(data), _SLICE):
            if self._deaf or self.transport.is_closing():
                self._discard(len(data) - start)
                return
            self._feed(data[start : start + _SLICE] if len(data) > _SLICE else data)
        if not self._complete and not self._deaf and self._deadline is None:
            self._await_client()

    def make_room(self, *, quiet: bool) -> None:
        """Close the connection at once; without a word if no request is on it."""
        if quiet or self._deaf or not self._spoken:
            self._deaf = True
            self._settle()
            self.gate.note(TOO_MANY.detail, self.address)
            self.transport.close()
        else:
            self._refuse(TOO_MANY)
        if self.transport.get_write_buffer_size():
            # Closed, but kept open for a client that takes nothing.
            self.transport.abort()

    def _feed(self, data: bytes) -> None:
        raise NotImplementedError

    def _discard(self, count: int) -> None:
        self._discarded += count
        if self._discarded > _LINGER_BYTES and self._last_words is None and self._answered():
            self.transport.close()

    # --- what the parser found ---

    def _begin(self) -> None:
        self._complete = self._in_body = False
        self.gate.busy(self)

    def _head_done(self) -> None:
        self._in_body = True
        self._stop_deadline()

    def _body_grew(self, count: int) -> bool:
        """False: all unfinished bodies together are too large by now."""
        if self.cycle.response_complete:
            return True
        self._body_bytes += count
        self.gate.bodies += count
        return self.gate.bodies <= self.gate.limits.bodies

    def _message_done(self) -> None:
        self._complete = True
        self._in_body = False
        self._settle()
        self._note_idle()

    def _note_idle(self) -> None:
        if self._complete and self._answered() and not self.transport.is_closing():
            self.gate.idle(self)

    # --- deadlines ---

    def _await_client(self) -> None:
        limits = self.gate.limits
        seconds = limits.body_seconds if self._in_body else limits.head_seconds
        self._deadline = self.loop.call_later(seconds, self._overdue)
        self._note_unfinished()

    def _note_unfinished(self) -> None:
        # While answers to earlier requests are due, it can't be closed for others: only the total counts it.
        if not self._owes():
            self.gate.unfinished(self)

    def _overdue(self) -> None:
        self._deadline = None
        if self.flow.read_paused:
            # It is this server that does not read at present.
            self._await_client()
        elif self._spoken:
            self._refuse(TOO_SLOW)
        else:
            self._deaf = True
            self.transport.close()

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _settle(self) -> None:
        self._stop_deadline()
        self.gate.finished(self)
        self.gate.bodies -= self._body_bytes
        self._body_bytes = 0

    # --- refusing ---

    def _answered(self) -> bool:
        """Whether no answer is under way or waiting."""
        return self.cycle is None or self.cycle.response_complete

    def _owes(self) -> bool:
        """Whether answers are due to requests before the one that is not complete."""
        return not self._in_body and not self._answered()

    def _drop_waiting(self) -> bool:
        """Forget the newest request if it still waits for answers before its own; False: it does not wait."""
        return False

    def _refuse(self, fault: Fault) -> None:
        """Hear nothing more from the client, give the answers that are due, then this one, and close."""
        if self._deaf:
            return
        in_body = self._in_body
        self._deaf = True
        self._settle()
        self.gate.note(fault.detail, self.address)
        if self._drop_waiting() if in_body else not self._answered():
            self._last_words = fault
        elif in_body and self.cycle.response_started:
            self.transport.close()
        else:
            if in_body:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            self._say(fault)

    def on_response_complete(self) -> None:
        """See uvicorn; afterwards a client that was refused meanwhile gets its answer."""
        super().on_response_complete()  # type: ignore[misc]  # of the class behind
        if self._last_words is not None and self._answered() and not self.transport.is_closing():
            fault, self._last_words = self._last_words, None
            self._say(fault)
        elif not self._deaf:
            self._note_idle()
            if self._deadline is not None:
                self._note_unfinished()

    def _say(self, fault: Fault) -> None:
        self.transport.write(fault.answer())
        if not fault.lingers or self.flow.read_paused:
            self.transport.close()
            return
        try:
            self.transport.write_eof()
        except OSError:
            # The client is gone already.
            self.transport.close()
        else:
            self.gate.idle(self)
            self.loop.call_later(_LINGER, self.transport.close)


def _network(host: str) -> str:
    """What an address counts as: itself, or the /64 of an IPv6 address."""
    if ":" not in host:
        return host
    try:
        address = IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) >> 64 << 64))
