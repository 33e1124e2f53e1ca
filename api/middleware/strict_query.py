"""Query parameters that an endpoint does not know are refused: a mistyped ``?forse=true`` must not pass."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.responses import Response


class StrictRoute(APIRoute):
    """A route that takes the query parameters that it documents, each once, and no others."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with the check before it."""
        handle = super().get_route_handler()
        known = frozenset(parameter.alias for parameter in self.dependant.query_params)

        async def strict(request: Request) -> Response:
            if request.scope["query_string"]:
                _check([name for name, _ in request.query_params.multi_items()], known)
            return await handle(request)

        return strict


def _check(given: list[str], known: frozenset[str]) -> None:
    takes = f"it takes {', '.join(sorted(known))}" if known else "it takes none"
    errors = [
        {"loc": ("query", name), "type": "unknown", "msg": f"there is no such parameter here; {takes}"}
        for name in sorted(set(given) - known)
    ]
    errors += [
        {"loc": ("query", name), "type": "repeated", "msg": "is given more than once"}
        for name in sorted(known)
        if given.count(name) > 1
    ]
    if errors:
        raise RequestValidationError(errors)
