"""Refuses unknown query parameters: a mistyped ``?forse=true`` must not be ignored.

Pages and probes ignore them: monitors add parameters against caches, and links get ``utm_source``.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.responses import Response

from api.middleware.security import PROBES

_TOLERANT = frozenset({"/", "/docs", "/docs/", "/services/dashboard", *PROBES})
_TOLERANT_BELOW = "/services/dashboard/"


class StrictRoute(APIRoute):
    """A route that accepts only the query parameters that it documents, each once; a page accepts all."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, preceded by the check."""
        handle = super().get_route_handler()
        if self.path in _TOLERANT or self.path.startswith(_TOLERANT_BELOW):
            return handle
        known = frozenset(_query_parameters(self.dependant))

        async def strict(request: Request) -> Response:
            if request.scope["query_string"]:
                _check([name for name, _ in request.query_params.multi_items()], known)
            return await handle(request)

        return strict


def _query_parameters(dependant: Dependant) -> Iterator[str]:
    """Yield the names of an endpoint's query parameters, also those that its dependencies take."""
    for parameter in dependant.query_params:
        yield parameter.alias
    for part in dependant.dependencies:
        yield from _query_parameters(part)


def _check(given: list[str], known: frozenset[str]) -> None:
    takes = f"accepted are {', '.join(sorted(known))}" if known else "none is accepted"
    errors = [
        {"loc": ("query", name), "type": "unknown", "msg": f"unknown parameter; {takes}"}
        for name in sorted(set(given) - known)
    ]
    errors += [
        {"loc": ("query", name), "type": "repeated", "msg": "is given more than once"}
        for name in sorted(known)
        if given.count(name) > 1
    ]
    if errors:
        raise RequestValidationError(errors)
