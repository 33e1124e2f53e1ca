"""Who asks, and whether they may: keys in headers, sessions of the dashboard, roles.

Decided for every request before its body is read. Nothing of what was presented is kept or told anywhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import NamedTuple

from starlette.types import Scope

from api.middleware.login_limits import FailedLogins
from api.middleware.sessions import COOKIE, Sessions
from api.wire.problems import Problem
from reconciler.auth.keys import OPERATOR, Key, KeyRing

ANONYMOUS = "anonymous"
SCOPE = "service_manager.caller"
"""Where in the ASGI scope the caller stands."""

SESSION = "/services/session"
READS = frozenset({"GET", "HEAD", "OPTIONS"})
_LOOKS = frozenset({"/services/plan"})
"""What is sent with POST and changes nothing all the same."""

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

_HOW = "send a key in the header X-API-Key, or as Authorization: Bearer; `service-manager key add` makes one"


class Caller(NamedTuple):
    """Who asks: the name of the key, its role, the address. ``digest`` is empty where no key is needed."""

    name: str
    role: str
    source: str
    digest: bytes = b""


class Auth:
    """Admits callers by the keys of ``ring``. ``clock`` is monotonic."""

    def __init__(self, ring: KeyRing | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._ring = ring or KeyRing()
        self._attempts = FailedLogins(clock=clock)
        self.sessions = Sessions(clock)

    @property
    def required(self) -> bool:
        """Whether a key is needed at all."""
        return self._ring.required

    def authorise(self, scope: Scope) -> Problem | None:
        """Notes in the scope who asks; or why they may not.

        The Host and Origin that the request names have been checked before.
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
        if write and key.role != OPERATOR and path not in _LOOKS:
            return Problem(
                403,
                "role_too_low",
                f"the key {key.name} may read, not change anything",
                "use a key with the role operator",
            )
        return None

    def credentials(self, scope: Scope) -> Key | Problem:
        """The key in the headers, for signing in; or why there is none."""
        source = source_of(scope)
        given = _given(scope)
        if given is None:
            return _missing()
        found = self._ring.find(given)
        return found if found is not None else self._wrong(source)

    def is_valid(self, scope: Scope) -> bool:
        """Whether the caller would still be admitted to read; for answers that go on and on."""
        caller = caller_of(scope)
        if not caller.digest:
            return not self._ring.required
        return self._ring.find_by_digest(caller.digest) is not None

    def session(self, scope: Scope) -> Key | None:
        """The key behind the session in the request's cookie, as it is now."""
        token = session_token(scope)
        digest = self.sessions.digest(token) if token else None
        return self._ring.find_by_digest(digest) if digest else None

    def _identified(self, scope: Scope, source: str, *, write: bool) -> Key | Problem:
        given = _given(scope)
        if given is not None:
            return self._ring.find(given) or self._wrong(source)
        key = self.session(scope)
        if key is None:
            return _missing()
        if write and not _same_origin(scope):
            # A browser adds the cookie by itself, whoever made it ask.
            return Problem(
                403,
                "foreign_origin",
                "a session writes from the pages of this daemon only",
                "send the header Origin, as browsers do; programs use a key",
            )
        return key

    def _wrong(self, source: str) -> Problem:
        wait = self._attempts.failed(rate_limit_key(source))
        if wait:
            return Problem(
                429,
                "too_many_attempts",
                "too many wrong keys from this address",
                f"try again in {wait} s; a right key is taken at any time",
                headers={"retry-after": str(wait)},
            )
        return Problem(
            403, "invalid_key", "Invalid API key", "see `service-manager key list` for those there are"
        )


def caller_of(scope: Scope) -> Caller:
    """Who asks; nobody in particular where nobody looked."""
    found = scope.get(SCOPE)
    return found if isinstance(found, Caller) else Caller(ANONYMOUS, "", source_of(scope))


def source_of(scope: Scope) -> str:
    """The address that a request came from; behind a proxy on this machine also whom that names."""
    client = scope.get("client")
    peer = _address(client[0]) if client else "local"
    if not _is_loopback(peer):
        return peer
    named = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    # The last one is what the proxy saw itself; what stands before it anybody may have written.
    last = named[-1].decode("latin-1").rpartition(",")[2].strip() if named else ""
    forwarded = _address(last) if last else ""
    return f"{forwarded} via {peer}" if forwarded else peer


def rate_limit_key(source: str) -> str:
    """What counts as one address: of IPv6 the /64, since whoever has one address there has them all."""
    text, via, peer = source.partition(" via ")
    try:
        address = ip_address(text)
    except ValueError:
        return source
    if isinstance(address, IPv6Address) and not address.is_loopback:
        text = str(IPv6Network((int(address) >> 64 << 64, 64)))
    return text + via + peer


def is_https(scope: Scope) -> bool:
    """Whether the browser's own connection is encrypted, as far as this end can tell."""
    if scope.get("scheme") == "https":
        return True
    named = [value for name, value in scope["headers"] if name == b"x-forwarded-proto"]
    client = scope.get("client")
    return bool(named) and named[-1] == b"https" and (not client or _is_loopback(client[0]))


def is_open(path: str) -> bool:
    """Whether everybody may ask for this, key or not."""
    return path in _OPEN or path.startswith(_OPEN_BELOW)


def _missing() -> Problem:
    return Problem(401, "missing_key", "an API key is needed", _HOW, headers={"www-authenticate": "Bearer"})


def _given(scope: Scope) -> str | None:
    """The key that the request carries; one that is given twice is none."""
    found = [value for name, value in scope["headers"] if name == b"x-api-key"]
    if not found:
        found = list(_bearers(scope))
    if not found:
        return None
    values = {value.decode("latin-1").strip() for value in found}
    return values.pop() if len(values) == 1 else ""


def _bearers(scope: Scope) -> Iterator[bytes]:
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            # Whatever else stands there (Basic, say) is meant for a proxy before us.
            if scheme.lower() == b"bearer":
                yield token


def session_token(scope: Scope) -> str:
    """The session token in the request's cookie; empty where there is none."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    for name, value in headers:
        if name == b"cookie":
            for part in value.decode("latin-1").split(";"):
                key, _, text = part.strip().partition("=")
                if key == COOKIE:
                    return text
    return ""


def _same_origin(scope: Scope) -> bool:
    # A foreign Origin was refused before; what is left is ours, or none at all.
    told = {name: value for name, value in scope["headers"] if name in {b"origin", b"sec-fetch-site"}}
    return b"origin" in told or told.get(b"sec-fetch-site") == b"same-origin"


def _address(text: str) -> str:
    """An address in its one spelling; empty for what is none."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def _is_loopback(text: str) -> bool:
    try:
        return ip_address(text).is_loopback
    except ValueError:
        return text == "local"
