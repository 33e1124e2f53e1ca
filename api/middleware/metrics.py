"""Counts every request by route and status, and measures the time until its response starts."""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.metrics.counters import Counters

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


class MetricsMiddleware:
    """ASGI middleware; the outermost one, so that requests that others refuse are counted too."""

    def __init__(self, app: ASGIApp, *, counters: Counters) -> None:
        self._app = app
        self._counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and record its status and duration."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        begun = False

        async def sent(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                self._note(scope, message["status"], began)
            await send(message)

        try:
            await self._app(scope, receive, sent)
        except Exception:
            if not begun:
                # The server's error handler, further out, always responds with 500.
                self._note(scope, 500, began)
            raise

    def _note(self, scope: Scope, status: int, began: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._counters.on_request(method, _route(scope), status, time.perf_counter() - began)


def _route(scope: Scope) -> str:
    """Return the template of the matched route; all unmatched addresses share one word."""
    route = scope.get("route")
    # Without converters: the format of /services/start/{group:path} is /services/start/{group}.
    path = getattr(route, "path_format", None)
    if isinstance(path, str):
        return path
    # Mounted folders of static files have no route of their own.
    return "files" if scope.get("endpoint") is not None else "none"
