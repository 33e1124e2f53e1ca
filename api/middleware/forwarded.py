"""The headers that a reverse proxy adds to a request, and the path below which it serves the daemon.

``X-Forwarded-For``, ``-Proto`` and ``-Prefix`` count only if the connection comes from a named proxy: all
other clients can send any value.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

Network = IPv4Network | IPv6Network

SCOPE = "service_manager.forwarded"
"""Key of the ``Forwarded`` in the ASGI scope."""

_HEADERS = frozenset({b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-prefix"})
_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~!$&'()*+,;=:@%-]+)+")
_LONGEST_PREFIX = 200
_PAGES = ("/docs/", "/services/dashboard/")


class Forwarded(NamedTuple):
    """``client`` is the address that a named proxy reports, empty: none. ``prefix`` has no final slash."""

    client: str = ""
    https: bool = False
    prefix: str = ""


def forwarded(scope: Scope) -> Forwarded:
    """Return what a named proxy reports about a request."""
    found = scope.get(SCOPE)
    return found if isinstance(found, Forwarded) else Forwarded()


class ForwardedMiddleware:
    """ASGI middleware: reads the headers of named ``proxies``, and takes the prefix off the path.

    ``root_path`` is the prefix if no proxy names another one; requests without it are served too, so that
    local clients need not know it. A slash at the end of a path is dropped.
    """

    def __init__(self, app: ASGIApp, *, proxies: Iterable[Network] = (), root_path: str = "") -> None:
        self._app = app
        self._proxies = tuple(proxies)
        self._root_path = root_path
        self._warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] == "http":
            # In place: the metrics middleware, further out, reads the route from the same scope.
            found = self._read(scope)
            scope[SCOPE] = found
            scope["path"] = _path(scope, found.prefix)
            if found.prefix:
                send = _with_prefix(send, found.prefix.encode("latin-1"))
        await self._app(scope, receive, send)

    def _read(self, scope: Scope) -> Forwarded:
        named = [(name, value.decode("latin-1")) for name, value in scope["headers"] if name in _HEADERS]
        if not named:
            return Forwarded(prefix=self._root_path)
        peer = scope["client"][0] if scope.get("client") else ""
        if not self._is_proxy(peer):
            self._warn(peer)
            return Forwarded(prefix=self._root_path)
        chain = [part for name, value in named if name == b"x-forwarded-for" for part in value.split(",")]
        protos = [value for name, value in named if name == b"x-forwarded-proto"]
        prefixes = [value.rstrip("/") for name, value in named if name == b"x-forwarded-prefix"]
        prefix = prefixes[-1] if prefixes else ""
        valid = len(prefix) <= _LONGEST_PREFIX and _PREFIX.fullmatch(prefix)
        return Forwarded(
            client=self._client(chain),
            https=bool(protos) and protos[-1].rpartition(",")[2].strip().lower() == "https",
            prefix=prefix if valid else self._root_path,
        )

    def _client(self, chain: list[str]) -> str:
        """Return the last address that is not a named proxy; a client can forge those before it."""
        client = ""
        for text in reversed(chain):
            address = normalise_address(text.strip())
            if not address:
                break
            client = address
            if not self._is_proxy(address):
                break
        return client

    def _is_proxy(self, peer: str) -> bool:
        address = normalise_address(peer)
        return bool(address) and any(ip_address(address) in network for network in self._proxies)

    def _warn(self, peer: str) -> None:
        # Once: every request behind such a proxy has these headers, and any client can send them.
        if not self._warned:
            self._warned = True
            log.warning(
                "X-Forwarded-* headers are ignored: their sender is not a named proxy; "
                "if it is one, name it with --trusted-proxy",
                extra={"sender": normalise_address(peer) or "unknown"},
            )


def _with_prefix(send: Send, prefix: bytes) -> Send:
    """Add the prefix to the redirects and addresses of responses."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                (name, prefix + value if name == b"location" and value.startswith(b"/") else value)
                for name, value in message["headers"]
            ]
        await send(message)

    return sent


def _path(scope: Scope, prefix: str) -> str:
    """Return the path below the prefix."""
    path: str = scope["path"]
    if prefix and (path == prefix or path.startswith(f"{prefix}/")):
        path = path[len(prefix) :] or "/"
    # An encoded slash belongs to the name of a group.
    slash = scope.get("raw_path", b"").endswith(b"/") and path.endswith("/")
    return path if not slash or path in _PAGES else path.rstrip("/") or "/"


def normalise_address(text: str) -> str:
    """Normalise an IP address, also ``[::1]:80``; return an empty string if it is not valid."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)
