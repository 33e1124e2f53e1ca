"""The limits of one HTTP connection, on top of uvicorn's protocols.

Addresses are those of the connection; headers that a proxy sets are not trusted here. IPv6 addresses count
by their /64, which usually belongs to one machine.
"""

from __future__ import annotations

import asyncio
import logging
from ipaddress import IPv6Address
from typing import Any

from reconciler.daemon.connection_gate import Gate
from reconciler.daemon.http_limits import TOO_MANY, TOO_SLOW, Fault

_QUIET = logging.getLogger("reconciler.http")
# uvicorn logs each malformed request and each upgrade: any client could flood the log.
_QUIET.setLevel(logging.ERROR)

_SLICE = 16 * 1024
"""Bytes passed to a parser at once: the amount by which a head can exceed its limit unnoticed."""

_LINGER = 1.0
"""Seconds that a refused client may still send: closing at once resets the connection, and most clients
then never see the response."""

_LINGER_BYTES = 1 << 20


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
        self._ignores_input = False
        self._received = False
        self._discarded = 0
        self._body_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._pending_refusal: Fault | None = None

    # --- the connection ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection, or refuse it."""
        super().connection_made(transport)
        self.address = _network(self.client[0] if self.client else "")
        if self.gate.enter(self):
            self._await_client()
        else:
            self._ignores_input = True
            self.gate.note(TOO_MANY.detail, self.address)
            self._send_refusal(TOO_MANY)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._settle()
        self.gate.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass the data to the parser, in slices."""
        self._received = True
        for start in range(0, len(data), _SLICE):
            if self._ignores_input or self.transport.is_closing():
                self._discard(len(data) - start)
                return
            self._feed(data[start : start + _SLICE] if len(data) > _SLICE else data)
        if not self._complete and not self._ignores_input and self._deadline is None:
            self._await_client()

    def make_room(self, *, quiet: bool) -> None:
        """Close the connection at once; without a response if it has no request."""
        if quiet or self._ignores_input or not self._received:
            self._ignores_input = True
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
        if self._discarded > _LINGER_BYTES and self._pending_refusal is None and self._has_responded():
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
        if self._complete and self._has_responded() and not self.transport.is_closing():
            self.gate.idle(self)

    # --- deadlines ---

    def _await_client(self) -> None:
        limits = self.gate.limits
        seconds = limits.body_seconds if self._in_body else limits.head_seconds
        self._deadline = self.loop.call_later(seconds, self._overdue)
        self._note_unfinished()

    def _note_unfinished(self) -> None:
        # A connection with earlier responses due is not closed to make room, so only the total counts it.
        if not self._has_due_responses():
            self.gate.unfinished(self)

    def _overdue(self) -> None:
        self._deadline = None
        if self.flow.read_paused:
            # The server itself has paused reading.
            self._await_client()
        elif self._received:
            self._refuse(TOO_SLOW)
        else:
            self._ignores_input = True
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

    def _has_responded(self) -> bool:
        """Whether no response is in progress or pending."""
        return self.cycle is None or self.cycle.response_complete

    def _has_due_responses(self) -> bool:
        """Whether responses are due to requests before the incomplete one."""
        return not self._in_body and not self._has_responded()

    def _drop_waiting(self) -> bool:
        """Drop the newest request if it waits behind other responses; False if it does not."""
        return False

    def _refuse(self, fault: Fault) -> None:
        """Ignore further input, send the responses that are due, then this one, and close."""
        if self._ignores_input:
            return
        in_body = self._in_body
        self._ignores_input = True
        self._settle()
        self.gate.note(fault.detail, self.address)
        if self._drop_waiting() if in_body else not self._has_responded():
            self._pending_refusal = fault
        elif in_body and self.cycle.response_started:
            self.transport.close()
        else:
            if in_body:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            self._send_refusal(fault)

    def on_response_complete(self) -> None:
        """See uvicorn; then send the pending refusal, if there is one."""
        super().on_response_complete()  # type: ignore[misc]  # of the class behind
        if self._pending_refusal is not None and self._has_responded() and not self.transport.is_closing():
            fault, self._pending_refusal = self._pending_refusal, None
            self._send_refusal(fault)
        elif not self._ignores_input:
            self._note_idle()
            if self._deadline is not None:
                self._note_unfinished()

    def _send_refusal(self, fault: Fault) -> None:
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
