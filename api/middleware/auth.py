"""Authentication and authorisation: keys in headers, sessions of the dashboard, roles.

Runs for every request before its body is read. Presented credentials are never stored or shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import NamedTuple

from starlette.types import Scope

from api.middleware.forwarded import forwarded, normalise_address
from api.middleware.login_limits import FailedLogins
from api.middleware.security import READS
from api.middleware.sessions import COOKIE, HEADER, Sessions
from api.wire.problems import Problem
from reconciler.auth.keys import OPERATOR, Key, KeyRing

ANONYMOUS = "anonymous"
SCOPE = "service_manager.caller"
"""Key of the caller in the ASGI scope."""

SESSION = "/services/session"
_READ_ONLY_POSTS = frozenset({"/services/plan"})
"""POST requests that change nothing."""

_MOST_COOKIES = 8

_OPEN = frozenset(
    {
        "/",
        "/healthz",
        "/readyz",
        "/docs",
        "/openapi.json",
        "/services/dashboard",
        "/services/hooks/git",
        SESSION,
        "/favicon.ico",
    }
)
_OPEN_BELOW = ("/docs/", "/services/dashboard/")

_HOW = "send a key in the header X-API-Key or Authorization: Bearer; `service-manager key add` creates one"
_HOW_FIRST = (
    "no key exists yet: create one with `service-manager key add NAME --role operator`; without a key and "
    "without --insecure the daemon serves this machine only, not a proxy (--allowed-host)"
)


class Caller(NamedTuple):
    """The caller: name and role of the key, source address. ``digest`` is empty if no key is needed."""

    name: str
    role: str
    source: str
    digest: bytes = b""


class Auth:
    """Authorises callers by the keys of ``ring``. ``clock`` is monotonic."""

    def __init__(self, ring: KeyRing | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._ring = ring or KeyRing()
        self._attempts = FailedLogins(clock=clock)
        self.sessions = Sessions(clock)

    @property
    def required(self) -> bool:
        """Whether a key is needed at all."""
        return self._ring.required

    def authorise(self, scope: Scope) -> Problem | None:
        """Store the caller in the scope, or return why the request is refused.

        Host and Origin of the request have been checked before.
        """
        source = source_of(scope)
        scope[SCOPE] = Caller(ANONYMOUS, "", source)
        if not self._ring.required:
            scope[SCOPE] = Caller(ANONYMOUS, OPERATOR, source)
            return None
        path, write = scope["path"], scope["method"] not in READS
        if is_open(path):
            return None
        key = self._identified(scope, source, write=write)
        if isinstance(key, Problem):
            return key
        scope[SCOPE] = Caller(key.name, key.role, source, key.digest)
        if write and key.role != OPERATOR and path not in _READ_ONLY_POSTS:
            return Problem(
                403,
                "role_too_low",
                f"the key {key.name} can read but not write",
                "use a key with the role operator",
            )
        return None

    def credentials(self, scope: Scope) -> Key | Problem:
        """Return the key in the headers, for signing in, or why the request has no valid one."""
        source = source_of(scope)
        given = _given(scope)
        if given is None:
            return self._missing()
        return self._ring.find(given) or self._wrong(source)

    def is_valid(self, scope: Scope) -> bool:
        """Return whether the caller may still read; for streaming responses."""
        caller = caller_of(scope)
        if not caller.digest:
            return not self._ring.required
        return self._ring.find_by_digest(caller.digest) is not None

    def session(self, scope: Scope) -> Key | None:
        """Return the key of the request's session; None if it has ended, or only its cookie was sent."""
        page = next((value for name, value in scope["headers"] if name == HEADER), b"").decode("latin-1")
        # A page at another port of this host can plant a cookie of the same name: look at all of them.
        found = (self.sessions.digest(cookie, page) for cookie in session_cookies(scope))
        digest = next(filter(None, found), None)
        return self._ring.find_by_digest(digest) if digest else None

    def _identified(self, scope: Scope, source: str, *, write: bool) -> Key | Problem:
        given = _given(scope)
        if given is not None:
            return self._ring.find(given) or self._wrong(source)
        key = self.session(scope)
        if key is None:
            return self._missing()
        if write and not _same_origin(scope):
            # A browser adds the cookie to requests from any page, also a foreign one.
            return Problem(
                403,
                "foreign_origin",
                "with a session only pages of this daemon can write",
                "send the header Origin, as browsers do, or use a key in programs",
            )
        return key

    def _missing(self) -> Problem:
        how = _HOW_FIRST if self._ring.empty else _HOW
        return Problem(
            401, "missing_key", "an API key is needed", how, headers={"www-authenticate": "Bearer"}
        )

    def _wrong(self, source: str) -> Problem:
        wait = self._attempts.failed(rate_limit_key(source))
        if wait:
            return Problem(
                429,
                "too_many_attempts",
                "too many wrong keys from this address",
                f"try again in {wait} s; a correct key is always accepted",
                headers={"retry-after": str(wait)},
            )
        return Problem(
            403, "invalid_key", "Invalid API key", "`service-manager key list` shows the valid keys"
        )


def caller_of(scope: Scope) -> Caller:
    """Return the caller of a request; anonymous if it has not been authorised yet."""
    caller = scope.get(SCOPE)
    return caller if isinstance(caller, Caller) else Caller(ANONYMOUS, "", source_of(scope))


def source_of(scope: Scope) -> str:
    """Return the source address; behind a named proxy also the client that the proxy reports."""
    client = scope.get("client")
    peer = normalise_address(client[0]) if client else "local"
    behind = forwarded(scope).client
    return f"{behind} via {peer}" if behind else peer


def rate_limit_key(source: str) -> str:
    """Return the key for rate limits: for IPv6 the /64, since a host with one address there has them all."""
    text, via, peer = source.partition(" via ")
    try:
        address = ip_address(text)
    except ValueError:
        return source
    if isinstance(address, IPv6Address) and not address.is_loopback:
        text = str(IPv6Network((int(address) >> 64 << 64, 64)))
    return text + via + peer


def is_https(scope: Scope) -> bool:
    """Return whether the browser's connection is encrypted, directly or up to a named proxy."""
    return scope.get("scheme") == "https" or forwarded(scope).https


def is_open(path: str) -> bool:
    """Return whether a path needs no key."""
    return path in _OPEN or path.startswith(_OPEN_BELOW)


def _given(scope: Scope) -> str | None:
    """Return the key in the headers, None without one; empty if there are several different ones."""
    keys = [value for name, value in scope["headers"] if name == b"x-api-key"] or list(_bearers(scope))
    if not keys:
        return None
    values = {value.decode("latin-1").strip() for value in keys}
    return values.pop() if len(values) == 1 else ""


def _bearers(scope: Scope) -> Iterator[bytes]:
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            # Other schemes, such as Basic, are meant for a proxy in front of the daemon.
            if scheme.lower() == b"bearer":
                yield token


def session_cookies(scope: Scope) -> tuple[str, ...]:
    """Return the values of all session cookies of the request."""
    pairs = (
        part.strip().partition("=")
        for name, value in scope["headers"]
        if name == b"cookie"
        for part in value.decode("latin-1").split(";")
    )
    return tuple(text for key, _, text in pairs if key == COOKIE)[:_MOST_COOKIES]


def _same_origin(scope: Scope) -> bool:
    # A foreign Origin was refused before, so any Origin left is this daemon's.
    headers = {name: value for name, value in scope["headers"] if name in {b"origin", b"sec-fetch-site"}}
    return b"origin" in headers or headers.get(b"sec-fetch-site") == b"same-origin"
