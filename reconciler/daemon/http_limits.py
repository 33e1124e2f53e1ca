"""Limits the resources of the HTTP server that a client can hold before, during and after a request.

Neither uvicorn nor httptools limits the size of a request head or the time for it, so without a key 100 MB
of header lines cost 3 GB, and 1,009 half-sent requests used every descriptor (issue 13). ``Gate`` counts the
connections of all listeners of the process; ``LimitedProtocol`` is the common part of the two protocols
(``http_httptools``, ``http_h11``).

Addresses are those of the connection; headers that a proxy sets are not trusted here. IPv6 addresses count
by their /64, which usually belongs to one machine.
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
# uvicorn logs each malformed request and each upgrade: any client could flood the log.
_QUIET.setLevel(logging.ERROR)

_LOG_EVERY = 600.0
"""Seconds between log lines about refused connections."""

_SLICE = 16 * 1024
"""Bytes passed to a parser at once: the amount by which a head can exceed its limit unnoticed."""

_LINGER = 1.0
"""Seconds that a refused client may still send: closing at once resets the connection, and most clients
then never see the response."""

_LINGER_BYTES = 1 << 20


class Limits(NamedTuple):
    """The limits. Sizes are in bytes, times in seconds.

    ``head_*`` also apply to the trailer section of a chunked body. ``waiting``: pipelined requests behind the
    current one. ``incomplete``: connections of one address with an incomplete request. ``bodies``: the total
    size of all incomplete bodies.
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
    """Return the limits for a process with this maximum of open descriptors.

    Reserves a quarter of them, and at least 128, for engine, files, Compose, git and the audit log.
    """
    free = descriptors - max(128, min(1024, descriptors // 4))
    usual = Limits()
    connections = max(16, min(usual.connections, free))
    return usual._replace(connections=connections, incomplete=min(usual.incomplete, max(8, connections // 2)))


class Fault(NamedTuple):
    """Why a connection is refused or closed. ``lingers``: the client is probably still sending."""

    status: int
    reason: str
    detail: str
    remedy: str
    lingers: bool = True

    def body(self) -> bytes:
        """Return the problem details, in the format of all API errors."""
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
        """Return the whole response as sent over the wire."""
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
    """Counts the connections of all listeners and decides which one to close. ``clock`` is monotonic.

    A new connection is admitted if possible, and the oldest one with an incomplete request is closed for it:
    a complete request then still succeeds while a client holds half-sent ones, even from the same address.
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
        """The number of connections."""
        return len(self._all)

    def incomplete(self, address: str) -> int:
        """The number of connections of an address with an incomplete request."""
        return len(self._incomplete.get(address, ()))

    def enter(self, connection: LimitedProtocol) -> bool:
        """Admit a new connection; False if all others are being served, so there is no room."""
        if len(self._all) >= self.limits.connections and not self._make_room():
            return False
        self._all.add(connection)
        self.unfinished(connection)
        return True

    def unfinished(self, connection: LimitedProtocol) -> None:
        """Record that the connection waits for the rest of a request."""
        own = self._incomplete.setdefault(connection.address, {})
        self._idle.pop(connection, None)
        if connection in own:
            return
        own[connection] = None
        if len(own) > self.limits.incomplete:
            self._evict(next(iter(own)))

    def finished(self, connection: LimitedProtocol) -> None:
        """Record that the connection's request is complete."""
        own = self._incomplete.get(connection.address, {})
        own.pop(connection, None)
        if not own:
            self._incomplete.pop(connection.address, None)

    def idle(self, connection: LimitedProtocol) -> None:
        """Record that the connection has no request, so it can be closed to make room."""
        if connection in self._all:
            self._idle[connection] = None

    def busy(self, connection: LimitedProtocol) -> None:
        """Record that a request began on the connection."""
        self._idle.pop(connection, None)

    def leave(self, connection: LimitedProtocol) -> None:
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

    def _evict(self, victim: LimitedProtocol) -> None:
        quiet = victim in self._idle
        self.leave(victim)
        victim.make_room(quiet=quiet)


class LimitedProtocol(asyncio.Protocol):
    """Mixin for uvicorn's two HTTP protocols: adds limits of size, time and number.

    The subclass reports its parser's events: ``_begin``, ``_head_done``, ``_body_grew``, ``_message_done``.
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
        """Pass the data to the parser, in slices."""
        self._spoken = True
        for start in range(0, len(data), _SLICE):
            if self._deaf or self.transport.is_closing():
                self._discard(len(data) - start)
                return
            self._feed(data[start : start + _SLICE] if len(data) > _SLICE else data)
        if not self._complete and not self._deaf and self._deadline is None:
            self._await_client()

    def make_room(self, *, quiet: bool) -> None:
        """Close the connection at once; without a response if it has no request."""
        if quiet or self._deaf or not self._spoken:
            self._deaf = True
            self._settle()
            self.gate.note(TOO_MANY.detail, self.address)
            self.transport.close()
        else:
            self._refuse(TOO_MANY)
        if self.transport.get_write_buffer_size():
            # Closed, but the transport stays open for a client that does not read.
            self.transport.abort()

    def _feed(self, data: bytes) -> None:
        raise NotImplementedError

    def _discard(self, count: int) -> None:
        self._discarded += count
        if self._discarded > _LINGER_BYTES and self._last_words is None and self._answered():
            self.transport.close()

    # --- events of the parser ---

    def _begin(self) -> None:
        self._complete = self._in_body = False
        self.gate.busy(self)

    def _head_done(self) -> None:
        self._in_body = True
        self._stop_deadline()

    def _body_grew(self, count: int) -> bool:
        """Count a part of a body; False if all incomplete bodies together exceed the limit."""
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
        # While earlier responses are due, it can't be closed for others: only the total counts it.
        if not self._owes():
            self.gate.unfinished(self)

    def _overdue(self) -> None:
        self._deadline = None
        if self.flow.read_paused:
            # The server itself has paused reading.
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
        """Whether no response is in progress or pending."""
        return self.cycle is None or self.cycle.response_complete

    def _owes(self) -> bool:
        """Whether responses are due to requests before the incomplete one."""
        return not self._in_body and not self._answered()

    def _drop_waiting(self) -> bool:
        """Drop the newest request if it waits behind other responses; False if it does not."""
        return False

    def _refuse(self, fault: Fault) -> None:
        """Ignore further input, send the responses that are due, then this one, and close."""
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
        """See uvicorn; then send the pending refusal, if there is one."""
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
    """Return the key that an address counts under: itself, or the /64 of an IPv6 address."""
    if ":" not in host:
        return host
    try:
        address = IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) >> 64 << 64))
