"""The limits of the HTTP server on what a client can hold before, during and after a request.

Neither uvicorn nor httptools limits the size of a request head or the time for it, so without a key 100 MB
of header lines cost 3 GB, and 1,009 half-sent requests used every descriptor (issue 13). ``connection_gate``
counts the connections of all listeners of the process; ``limited_protocol`` is the common part of the two
protocols (``http_httptools``, ``http_h11``).
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import NamedTuple


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
        problem = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "reason": self.reason,
            "remedy": self.remedy,
        }
        return json.dumps(problem).encode()

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
MALFORMED = Fault(400, "malformed_request", "the request is not valid HTTP", "correct the client")
TOO_SLOW = Fault(
    408,
    "request_timeout",
    "the request was not complete in time",
    "send it faster, or try again",
    lingers=False,
)
TOO_MANY = Fault(
    503, "too_many_connections", "too many connections are open", "close some, or try again", lingers=False
)
TOO_MANY_WAITING = Fault(
    503, "too_many_requests_waiting", "too many requests wait on this connection", "wait for the responses"
)
BODIES_TOO_LARGE = Fault(
    503, "too_many_bodies", "too many bodies are being received at once", "try again in a moment"
)
