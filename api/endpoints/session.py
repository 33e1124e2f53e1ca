"""Sign in and out, for the dashboard."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from api.endpoints.status import respond
from api.middleware.auth import ANONYMOUS, SESSION, Auth, is_https, rate_limit_key, session_cookies, source_of
from api.middleware.forwarded import forwarded
from api.middleware.sessions import LASTS, cookie
from api.wire import views
from api.wire.openapi import read_responses, write_responses
from api.wire.problems import Problem
from reconciler.audit.chain import AuditEvent
from reconciler.audit.event_stream import AuditEventStream
from reconciler.auth.keys import OPERATOR, Key


class Session(BaseModel):
    """The signed-in user. `required`: whether the daemon needs a key; if not, every caller is an operator."""

    model_config = ConfigDict(extra="forbid")

    required: bool
    name: str | None = Field(description="name of the key; null: not signed in", examples=["ann"])
    role: Literal["viewer", "operator"] | None
    expires_at: datetime | None = Field(description="end of a new session, in the response to signing in")
    token: str | None = Field(
        description="in the response to signing in: send it in the header `X-Session-Token` with each "
        "request of the session",
    )


class SessionEndpoints:
    """Serves sessions. ``clock`` returns wall seconds; ``events`` gets sign-ins and sign-outs."""

    def __init__(self, auth: Auth, clock: Callable[[], float], events: AuditEventStream) -> None:
        self._auth = auth
        self._clock = clock
        self._events = events

    async def who(self, request: Request) -> Response:
        """Show who is signed in, and whether a key is needed. Needs no key."""
        return respond(self._shown(self._auth.session(request.scope)))

    async def begin(self, request: Request) -> Response:
        """Sign in: send a key in `X-API-Key` (or as a Bearer token) to get a session cookie.

        The cookie lasts 12 hours, scripts can't read it, and only pages of this daemon can write with it. It
        works only together with `token` from the response, in the header `X-Session-Token`: browsers send
        cookies to every port of a host.
        Revoking the key ends the session. If no key is needed, no cookie is set.
        """
        if not self._auth.required:
            return respond(self._shown(None))
        key = self._auth.credentials(request.scope)
        if isinstance(key, Problem):
            raise key
        tokens = self._auth.sessions.begin(key.digest)
        self._record(request, key, "sign_in")
        set_cookie = _cookie(request, tokens.cookie)
        until = views.stamp(self._clock() + LASTS)
        return respond(
            {**self._shown(key), "expires_at": until, "token": tokens.page},
            headers={"set-cookie": set_cookie},
        )

    async def end(self, request: Request) -> Response:
        """Sign out: end the session, if there is one."""
        key = self._auth.session(request.scope)
        for value in session_cookies(request.scope):
            self._auth.sessions.end(value)
        if key is not None:
            self._record(request, key, "sign_out")
        return respond(self._shown(None), headers={"set-cookie": _cookie(request, "")})

    def _shown(self, key: Key | None) -> dict[str, Any]:
        if not self._auth.required:
            return {"required": False, "name": ANONYMOUS, "role": OPERATOR, "expires_at": None, "token": None}
        name, role = (key.name, key.role) if key is not None else (None, None)
        return {"required": True, "name": name, "role": role, "expires_at": None, "token": None}

    def _record(self, request: Request, key: Key, action: str) -> None:
        source = source_of(request.scope)
        event = AuditEvent(
            action,
            target="dashboard",
            result="accepted",
            user=key.name,
            reason="requested",
            source=source,
            at=self._clock(),
        )
        self._events.publish(event, repeat_key=(rate_limit_key(source), key.name, action))

    def register(self, app: FastAPI) -> None:
        """Add the endpoints to the application."""
        app.get(SESSION, **read_responses(Session))(self.who)
        app.post(SESSION, **write_responses({200: Session}, 401, 429))(self.begin)
        app.delete(SESSION, **write_responses({200: Session}))(self.end)


def _cookie(request: Request, token: str) -> str:
    return cookie(token, secure=is_https(request.scope), path=forwarded(request.scope).prefix)
