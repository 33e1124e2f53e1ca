"""uvicorn's HTTP protocol on httptools, with limits."""

from __future__ import annotations

from typing import Any

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from reconciler.daemon.http_limits import (
    BODIES_TOO_LARGE,
    HEAD_TOO_LARGE,
    MALFORMED,
    TOO_MANY_WAITING,
    Fault,
)
from reconciler.daemon.limited_protocol import LimitedProtocol


class _Stop(Exception):
    """Stops the parser in the middle of its input."""


class LimitedHttpTools(LimitedProtocol, HttpToolsProtocol):
    """Counts in the parser's callbacks; bytes that it buffers without a callback are counted when fed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head = self._lines = self._unseen = self._events = 0
        self._fault: Fault | None = None
        self._running: RequestResponseCycle = self.cycle

    def _feed(self, data: bytes) -> None:
        events = self._events
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Ignore the upgrade and respond normally, which HTTP allows.
            return
        except httptools.HttpParserError:
            self._refuse(self._fault or MALFORMED)
            return
        self._unseen = self._unseen + len(data) if events == self._events else 0
        if self._head + self._unseen > self.gate.limits.head_bytes:
            self._refuse(HEAD_TOO_LARGE)

    def connection_lost(self, exc: Exception | None) -> None:
        """Disconnect the running request too: uvicorn disconnects only the newest, which may be waiting."""
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing: any client can request an upgrade."""

    def on_message_begin(self) -> None:
        """Handle the start of a request."""
        self._events += 1
        self._head = self._lines = 0
        self._unset_keepalive_if_required()
        self._begin()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Handle a part of the target."""
        self._grow(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Handle a header; those of a trailer section are counted and dropped."""
        self._lines += 1
        self._grow(len(name) + len(value) + 4)
        if not self._in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Handle a complete head; refuse a pipelined request above the limit, in its turn."""
        self._events += 1
        self._head = self._lines = 0
        super().on_headers_complete()
        self._head_done()
        if len(self.pipeline) > self.gate.limits.waiting:
            self._stop(TOO_MANY_WAITING)

    def on_body(self, body: bytes) -> None:
        """Handle a part of the body."""
        self._events += 1
        if not self._body_grew(len(body)):
            self._stop(BODIES_TOO_LARGE)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Handle a complete request."""
        self._events += 1
        self._head = self._lines = 0
        super().on_message_complete()
        self._message_done()

    def _grow(self, count: int) -> None:
        self._events += 1
        self._head += count
        limits = self.gate.limits
        if self._head > limits.head_bytes or self._lines > limits.head_lines:
            self._stop(HEAD_TOO_LARGE)

    def _stop(self, fault: Fault) -> None:
        self._fault = fault
        raise _Stop

    def _has_responded(self) -> bool:
        return super()._has_responded() and not self.pipeline

    def _has_due_responses(self) -> bool:
        return super()._has_due_responses() or bool(self.pipeline)

    def _drop_waiting(self) -> bool:
        if not self.pipeline or self.pipeline[0][0] is not self.cycle:
            return False
        self.pipeline.popleft()
        self.cycle = self.pipeline[0][0] if self.pipeline else self._running
        return True

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)
