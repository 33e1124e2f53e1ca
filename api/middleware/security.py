"""Checks of every request before any other code handles it, and security headers of every response.

A daemon on loopback is reachable from every web page that its user opens. Two checks keep such pages out: a
foreign Host header indicates DNS rebinding, and a write with a foreign Origin comes from a foreign page.
Written against ASGI for speed: it runs for every request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import ip_address

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.wire.problems import Problem, from_error

MAX_BODY = 2**20
"""Bytes; a groups.yaml of ten thousand groups is half of this."""

READS = frozenset({"GET", "HEAD", "OPTIONS"})
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
"""Paths that monitoring reads by address, or without a Host header."""

_CLOSED = b"default-src 'none'; frame-ancestors 'none'"
_OWN = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
# The documentation is Swagger UI, which writes styles into its elements.
_FOREIGN = (
    b"default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    b"base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-cache"),
]
_POLICIES = {"/docs": _FOREIGN, "/services/dashboard": _OWN}


Authorise = Callable[[Scope], Problem | None]
"""Returns why a request is refused, or None; called before the body is read."""
OnRefusal = Callable[[Scope, Problem], None]
"""Called for every request that ended with a problem."""


class SecurityMiddleware:
    """ASGI middleware: checks Host, Origin, caller and size of the body, and adds security headers.

    ``host`` is the bound address, ``own`` the machine's names, ``names`` those of proxies in front of it: a
    name with a port allows writes from pages at that port only.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        host: str,
        own: Iterable[str] = (),
        names: Iterable[str] = (),
        authorise: Authorise = lambda _: None,
        on_refusal: OnRefusal = lambda *_: None,
    ) -> None:
        self._app = app
        self._authorise = authorise
        self._on_refusal = on_refusal
        self._any_address = _is_wildcard(host)
        self._names = frozenset(name.lower() for name in names)
        named = (_hostname(name) for name in self._names)
        self._hosts = frozenset({"localhost", host.lower().strip("[]"), *own, *named})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or respond why it is refused."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            await self._headed(scope, receive, send)
            return
        fields = _fields(scope)
        send = _with_headers(send, scope["path"])
        write = scope["method"] not in READS
        probe = scope["path"] in PROBES and not write
        problem = (
            self._foreign(fields, write=write, probe=probe) or self._authorise(scope) or _too_large(fields)
        )
        if problem is None and write:
            try:
                receive = await _read_body(receive)
            except Problem as error:
                problem = error
        if problem is not None:
            await problem.response()(scope, receive, send)
        else:
            await self._app(scope, receive, send)
            problem = from_error(scope)
        if problem is not None:
            self._on_refusal(scope, problem)

    async def _headed(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a HEAD as a GET; the server drops the body of any response to a HEAD."""
        inner = {**scope, "method": "GET"}

        async def sent(message: Message) -> None:
            # The metrics middleware reads the route from the outer scope.
            scope.update((key, inner[key]) for key in ("route", "endpoint") if key in inner)
            await send(message)

        await self(inner, receive, sent)

    def _foreign(self, fields: dict[bytes, list[bytes]], *, write: bool, probe: bool) -> Problem | None:
        hosts = [value.decode("latin-1").lower() for value in fields.get(b"host", [])]
        if probe and all(not host or _is_address(_hostname(host)) for host in hosts):
            # HTTP/1.0 has no Host, and load balancers send the address that they probe. Neither is a name
            # that a foreign name server could have pointed here.
            return None
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return Problem(
                421,
                "foreign_host",
                f"this daemon does not answer to the name {', '.join(hosts)[:200] or '(missing)'}",
                "use the address that it is bound to, or start it with --allowed-host for this name",
            )
        for origin in fields.get(b"origin", []) if write else ():
            if not self._is_same(origin.decode("latin-1").lower(), hosts[0]):
                return Problem(
                    403,
                    "foreign_origin",
                    "a page of another origin may not change desired state",
                    "write from the dashboard of this daemon, or from a program that sends no Origin; for a "
                    "dashboard behind a proxy, name the host of its address with --allowed-host",
                )
        return None

    def _is_ours(self, host: str) -> bool:
        name = _hostname(host)
        if name in self._hosts:
            return True
        # Bound to all addresses, any of them is valid: DNS rebinding needs a name, not an address.
        return _is_address(name) and (self._any_address or _is_loopback(name))

    def _is_same(self, origin: str, host: str) -> bool:
        scheme, separator, netloc = origin.partition("://")
        if not separator:  # "null": a sandboxed or local page
            return False
        default = {"http": ":80", "https": ":443"}.get(scheme, "")
        explicit = netloc if _has_port(netloc) else netloc + default
        netloc = netloc.removesuffix(default)
        # A proxy may have rewritten the Host, or dropped the port from it as nginx's $host does; then its
        # own name must be configured (``names``).
        named = {netloc, explicit, _hostname(netloc)}
        return netloc == host.removesuffix(default) or not self._names.isdisjoint(named)


def _is_wildcard(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        return host == ""


@lru_cache(maxsize=64)
def _is_loopback(address: str) -> bool:
    return ip_address(address).is_loopback


@lru_cache(maxsize=64)  # every request has a Host; parsing an address takes 3 µs
def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _has_port(netloc: str) -> bool:
    return ":" in netloc.rpartition("]")[2]


def _hostname(host: str) -> str:
    """Strip port and trailing dot: ``[::1]:8000`` to ``::1``, ``box:8000`` to ``box``."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].removesuffix(".")


def _fields(scope: Scope) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        if name in {b"host", b"origin", b"content-length"}:
            found.setdefault(name, []).append(value)
    return found


def _too_large(fields: dict[bytes, list[bytes]]) -> Problem | None:
    sizes = fields.get(b"content-length", ())
    if any(not size.isdigit() or len(size) > 7 or int(size) > MAX_BODY for size in sizes):
        return _large()
    return None


def _large() -> Problem:
    return Problem(
        413, "body_too_large", f"the body is larger than {MAX_BODY} bytes", "no endpoint accepts more"
    )


async def _read_body(receive: Receive) -> Receive:
    """Read the whole body, up to the limit, and return a receive function that replays it in one piece.

    Raises:
        Problem: 413 as soon as the limit is exceeded, whatever the Content-Length header says.
    """
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return _first(message, receive)
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MAX_BODY:
            raise _large()
    return _first({"type": "http.request", "body": bytes(body), "more_body": False}, receive)


def _first(message: Message, receive: Receive) -> Receive:
    replayed = [message]

    async def replay() -> Message:
        return replayed.pop() if replayed else await receive()

    return replay


def _with_headers(send: Send, path: str) -> Send:
    policy = next((policy for start, policy in _POLICIES.items() if path.startswith(start)), _CLOSED)
    extra = [*_HEADERS, (b"content-security-policy", policy)]

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = {name for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *(e for e in extra if e[0] not in given)]
        await send(message)

    return sent
