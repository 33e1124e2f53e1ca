"""Sessions of the dashboard: a browser signs in with a key once and gets a cookie, so that it stores no key.

Kept in memory: they end with the daemon, with their key, and after half a day.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

COOKIE = "service_manager_session"
LASTS = 12 * 3600
"""Seconds."""
_MOST = 1024
_MOST_OF_A_KEY = 64


HEADER = b"x-session-token"
"""Header with the second token of a session. Browsers send cookies to every port of a host; the page of one
port alone knows this token."""


class SessionTokens(NamedTuple):
    """The two secrets of a session: the value of the cookie, and the token that the page sends."""

    cookie: str
    page: str


class _Session(NamedTuple):
    digest: bytes
    until: float
    page: bytes


class Sessions:
    """Maps session tokens to the digests of keys; bounded. ``clock`` is monotonic."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sessions: dict[bytes, _Session] = {}

    def begin(self, digest: bytes) -> SessionTokens:
        """Create a session for the key with this digest; return its tokens."""
        now = self._clock()
        self._sessions = {token: session for token, session in self._sessions.items() if session.until > now}
        own = [token for token, session in self._sessions.items() if session.digest == digest]
        # A key evicts its own oldest session first, so that repeated sign-ins don't sign others out.
        oldest: list[bytes] = []
        if len(own) >= _MOST_OF_A_KEY:
            oldest = own
        elif len(self._sessions) >= _MOST:
            oldest = list(self._sessions)
        if oldest:
            del self._sessions[oldest[0]]
        tokens = SessionTokens(secrets.token_urlsafe(32), secrets.token_urlsafe(32))
        self._sessions[_hashed(tokens.cookie)] = _Session(digest, now + LASTS, _hashed(tokens.page))
        return tokens

    def digest(self, cookie: str, page: str) -> bytes | None:
        """Return the digest of the key of a session; None if it has ended, or ``page`` is not its token."""
        session = self._sessions.get(_hashed(cookie))
        if session is None or session.until <= self._clock():
            return None
        return session.digest if hmac.compare_digest(session.page, _hashed(page)) else None

    def end(self, token: str) -> None:
        """End the session with this token, if there is one."""
        self._sessions.pop(_hashed(token), None)

    def __len__(self) -> int:
        return len(self._sessions)


def _hashed(token: str) -> bytes:
    # Looked up by its hash, so that the time of a lookup reveals nothing about a token.
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def cookie(token: str, *, secure: bool, path: str = "") -> str:
    """Return the header that sets the cookie; without a token, the one that deletes it.

    ``path`` is the prefix of the daemon's paths: two daemons behind one host name keep their sessions apart.
    """
    lasts = LASTS if token else 0
    text = f"{COOKIE}={token}; Path={path}/; Max-Age={lasts}; HttpOnly; SameSite=Strict"
    return f"{text}; Secure" if secure else text
