"""Sockets to listen on and servers to put behind them; used by the daemon, which owns both."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Callable, Iterator, Sequence

import uvicorn
from starlette.types import ASGIApp

from reconciler.errors import ServiceManagerError
from reconciler.options import Address

log = logging.getLogger(__name__)

_IP_FREEBIND = 15
"""Linux: bind to an address that no interface has yet; Python has no name for it before 3.12."""


class PortTaken(ServiceManagerError):
    """The address to listen on is not to be had."""


class Server(uvicorn.Server):
    """A server that leaves signals to the daemon, and says when it answers."""

    serving: Callable[[], None] = staticmethod(lambda: None)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        self.serving()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing to capture."""
        yield


def own_names(hostname: str = "") -> tuple[str, ...]:
    """How people on the same network name this machine: as it names itself, and as mDNS has it.

    None of them can be bent towards us by a stranger's name server, which the check of Host is about.
    """
    whole = (hostname or socket.gethostname()).lower()
    short = whole.partition(".")[0]
    return tuple(dict.fromkeys((whole, short, f"{short}.local")))


def listen(address: Address, option: str = "--port", *, ahead: bool = False) -> socket.socket:
    """A socket bound to the address. ``option`` is what to change where that can't be.

    ``ahead``: also where no interface has the address yet. A bridge of the engine's is not there before
    the engine is, and the daemon may well start first.

    Raises:
        PortTaken: somebody else has it, or it may not be bound.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    # With its protocol named, or asyncio does not switch Nagle's algorithm off, and each answer takes 40 ms.
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


def server(app: ASGIApp, grace: float, *, lifespan: bool = True) -> Server:
    """A server for an application; open answers get ``grace`` seconds at its end."""
    return Server(
        uvicorn.Config(
            app,
            # Named, so that a missing one fails at once and not at the first load: 1.4 times what h11 serves.
            http="httptools",
            log_config=None,
            access_log=False,
            # Whom a proxy names is noted beside the proxy, not believed in its place.
            proxy_headers=False,
            lifespan="on" if lifespan else "off",
            server_header=False,
            timeout_graceful_shutdown=int(grace),
        )
    )


async def serve(servers: Sequence[tuple[Server, socket.socket]]) -> None:
    """Serve until one of them ends, which ends the others as well."""
    tasks = [asyncio.create_task(one.serve(sockets=[listener])) for one, listener in servers]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for one, _ in servers:
            one.should_exit = True
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
