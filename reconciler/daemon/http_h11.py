"""uvicorn's HTTP protocol on h11, with limits: for machines without a wheel of httptools (32-bit ARM)."""

from __future__ import annotations

from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from reconciler.daemon.http_limits import BODIES_TOO_LARGE, HEAD_TOO_LARGE, MALFORMED, Fault
from reconciler.daemon.limited_protocol import LimitedProtocol

_TOO_LARGE = 431


class LimitedH11(LimitedProtocol, H11Protocol):
    """Counts h11's events. Pipelined requests wait as bytes and are parsed one at a time."""

    conn: h11.Connection

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = _Connection(self)
        self._fault: Fault | None = None
        self._ahead = self._lines = 0

    def _feed(self, data: bytes) -> None:
        if self._complete and self.conn.their_state is h11.IDLE:
            self._begin()
            self._lines = 0
        if self._complete:
            # Reading is paused after a complete request; only bytes already in transit arrive now.
            self._ahead += len(data)
            if self._ahead > 8 * self.gate.limits.head_bytes:
                self._refuse(MALFORMED)
                return
        else:
            self._unset_keepalive_if_required()
        self.conn.receive_data(data)
        self.handle_events()
        # h11 parses a head only when it is complete, so count its lines before that.
        self._lines += data.count(b"\n")
        if not self._complete and not self._in_body and self._lines > self.gate.limits.head_lines + 1:
            self._refuse(HEAD_TOO_LARGE)

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing: any client can request an upgrade."""

    def send_400_response(self, msg: str) -> None:
        """Refuse a malformed request."""
        self._refuse(self._fault or MALFORMED)

    def on_response_complete(self) -> None:
        """See uvicorn."""
        self._ahead = 0
        super().on_response_complete()

    def refuse_event(self, fault: Fault) -> h11.RemoteProtocolError:
        """Return the error that ends event parsing with this response."""
        self._fault = fault
        return h11.RemoteProtocolError(fault.detail)

    def on_request(self, lines: int, size: int) -> None:
        """Handle a complete head."""
        if self._complete:
            self._begin()
        if self._beyond(lines, size):
            raise self.refuse_event(HEAD_TOO_LARGE)
        self._head_done()

    def on_data(self, size: int) -> None:
        """Handle a part of a body."""
        if not self._body_grew(size):
            raise self.refuse_event(BODIES_TOO_LARGE)

    def on_end(self, lines: int, size: int) -> None:
        """Handle the end of a message; ``lines`` and ``size`` are those of its trailer section."""
        if self._beyond(lines, size):
            raise self.refuse_event(HEAD_TOO_LARGE)
        self._message_done()

    def on_error(self, error: h11.RemoteProtocolError) -> None:
        """Handle a parse error."""
        self._fault = HEAD_TOO_LARGE if error.error_status_hint == _TOO_LARGE else MALFORMED

    def _beyond(self, lines: int, size: int) -> bool:
        return lines > self.gate.limits.head_lines or size > self.gate.limits.head_bytes


class _Connection(h11.Connection):
    """Passes each event to the protocol before uvicorn handles it."""

    def __init__(self, owner: LimitedH11) -> None:
        super().__init__(h11.SERVER, owner.gate.limits.head_bytes)
        self._owner = owner

    def next_event(self) -> Any:
        """See h11."""
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            self._owner.on_error(error)
            raise
        if isinstance(event, h11.Request):
            self._owner.on_request(len(event.headers), len(event.target) + _size(event.headers))
        elif isinstance(event, h11.Data):
            self._owner.on_data(len(event.data))
        elif isinstance(event, h11.EndOfMessage):
            self._owner.on_end(len(event.headers), _size(event.headers))
        return event


def _size(headers: Any) -> int:
    return sum(len(name) + len(value) + 4 for name, value in headers)
