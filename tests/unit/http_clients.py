"""A server's protocol with a transport in memory: what a client sends and gets, without sockets."""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from reconciler.http_limits import Gate, LimitedProtocol
from reconciler.serving import server


class Transport(asyncio.Transport):
    """Keeps what is written; ``closed`` once the server closed it."""

    def __init__(self, address: str) -> None:
        super().__init__({"peername": (address, 40000), "sockname": ("127.0.0.1", 8000)})
        self.protocol: LimitedProtocol | None = None
        self.sent = b""
        self.closed = False
        self.reading = True
        self.stuck = 0

    def write(self, data: Any) -> None:
        self.sent += bytes(data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.sent += b"<end>"

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return self.stuck

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            assert self.protocol is not None
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close


class Server:
    """Makes connections to an application, all of them counted by one gate."""

    def __init__(self, app: ASGIApp, gate: Gate, http: str) -> None:
        self.gate = gate
        self.config: uvicorn.Config = server(app, 1.0, lifespan=False, gate=gate, http=http).config
        self.config.load()
        self.state = ServerState()

    def connect(self, address: str = "192.0.2.1") -> Client:
        """A new connection."""
        return Client(self, address)


class Client:
    """One connection."""

    def __init__(self, server: Server, address: str) -> None:
        kind: Any = server.config.http_protocol_class
        self.protocol: LimitedProtocol = kind(config=server.config, server_state=server.state, app_state={})
        self.transport = Transport(address)
        self.transport.protocol = self.protocol
        self.protocol.connection_made(self.transport)

    def send(self, data: bytes) -> None:
        """Send bytes, as far as the server still takes them."""
        if not self.transport.closed:
            self.protocol.data_received(data)

    def leave(self) -> None:
        """Close the connection from this side."""
        self.transport.close()

    @property
    def closed(self) -> bool:
        """Whether the server closed the connection."""
        return self.transport.closed

    @property
    def statuses(self) -> list[int]:
        """The status of each answer."""
        return [int(part[:3]) for part in self.transport.sent.split(b"HTTP/1.1 ")[1:]]
