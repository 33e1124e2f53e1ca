"""Creates listening sockets and the HTTP servers behind them; the daemon owns both."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib.util
import logging
import resource
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from reconciler.daemon.accept import Acceptor
from reconciler.daemon.connection_gate import Gate
from reconciler.daemon.limited_protocol import LimitedProtocol
from reconciler.errors import ServiceManagerError
from reconciler.options import Address

log = logging.getLogger(__name__)

_IP_FREEBIND = 15
"""Linux: bind to an address that no interface has yet; the socket module lacks it before Python 3.12."""


_MOST_DESCRIPTORS = 65536
"""Enough for all limits here. Children inherit it, and some close every descriptor up to it."""


class PortTaken(ServiceManagerError):
    """The listen address is in use or can't be bound."""


class Server(uvicorn.Server):
    """A server that leaves signals to the daemon and reports when it serves."""

    serving: Callable[[], None] = staticmethod(lambda: None)
    gate: Gate

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start serving."""
        await super().startup([])

        def protocol() -> Any:
            return self.config.http_protocol_class(  # type: ignore[call-arg]  # any of several classes
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )

        # asyncio's accept loop logs a traceback for each of 2,048 attempts when descriptors run out.
        acceptors = [Acceptor(listener, protocol, self.gate.note) for listener in sockets or ()]
        self.servers = [*acceptors]  # type: ignore[list-item]  # what uvicorn uses of asyncio.Server
        for acceptor in acceptors:
            acceptor.start()
        self.serving()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture no signals."""
        yield


def local_host_names(hostname: str = "") -> tuple[str, ...]:
    """Return this machine's names in the local network: its host name and its mDNS name.

    A foreign name server can't point them at this machine, which is what the Host check protects against.
    """
    full = (hostname or socket.gethostname()).lower()
    short = full.partition(".")[0]
    return tuple(dict.fromkeys((full, short, f"{short}.local")))


def listen(address: Address, option: str = "--port", *, ahead: bool = False) -> socket.socket:
    """Return a socket bound to the address. Errors suggest changing ``option``.

    ``ahead`` binds even if no interface has the address yet: the engine's bridge appears only with the
    engine, and the daemon may start before it.

    Raises:
        PortTaken: the address is in use or can't be bound.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    # Name the protocol, or asyncio does not disable Nagle's algorithm and each response takes 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        _bind(listener, address, ahead=ahead)
    except OSError as error:
        listener.close()
        raise PortTaken(
            f"can't listen on {address}: {error.strerror}; choose another with {option}"
        ) from error
    listener.set_inheritable(False)
    return listener


def _bind(listener: socket.socket, address: Address, *, ahead: bool) -> None:
    try:
        listener.bind((address.host, address.port))
    except OSError as error:
        if not ahead or error.errno != errno.EADDRNOTAVAIL:
            raise
        level = socket.IPPROTO_IPV6 if listener.family == socket.AF_INET6 else socket.IPPROTO_IP
        option = 78 if listener.family == socket.AF_INET6 else _IP_FREEBIND
        listener.setsockopt(level, option, 1)
        listener.bind((address.host, address.port))
        log.warning("no interface has this address yet", extra={"address": str(address)})


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one; return the resulting limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            return most
    return most if soft == resource.RLIM_INFINITY else soft


def server(
    app: ASGIApp, grace: float, *, lifespan: bool = True, gate: Gate | None = None, http: str = ""
) -> Server:
    """Return a server for an application; open responses get ``grace`` seconds at its end.

    ``gate`` limits the connections of all servers that share it. ``http`` is ``httptools`` or ``h11``; by
    default httptools if installed: it serves 1.4 times as many requests as h11.
    """
    gate = Gate() if gate is None else gate
    config = uvicorn.Config(
        app,
        http=_protocol(http, gate),
        ws="none",
        log_config=None,
        access_log=False,
        # X-Forwarded-For is logged, never trusted.
        proxy_headers=False,
        lifespan="on" if lifespan else "off",
        server_header=False,
        timeout_graceful_shutdown=int(grace),
    )
    made = Server(config)
    made.gate = gate
    return made


def _protocol(name: str, gate: Gate) -> type[LimitedProtocol]:
    name = name or ("httptools" if importlib.util.find_spec("httptools") else "h11")
    base: type[LimitedProtocol]
    if name == "httptools":
        from reconciler.daemon.http_httptools import LimitedHttpTools as base
    else:
        from reconciler.daemon.http_h11 import LimitedH11 as base
    return type(base.__name__, (base,), {"gate": gate})


async def serve(servers: Sequence[tuple[Server, socket.socket]]) -> None:
    """Run all servers until one ends, then end the others."""
    tasks = [asyncio.create_task(one.serve(sockets=[listener])) for one, listener in servers]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for one, _ in servers:
            one.should_exit = True
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
