"""Errors of this API as RFC 9457 problem details: what is wrong, why, and what to do about it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from api.wire.request_bodies import ALTERNATIVES
from api.wire.views import mistake
from reconciler.controller.snapshot import Snapshot
from reconciler.errors import EngineError, InvalidDesiredState, WriteRefused

STARTING = "starting"
"""Reason of a refusal that ends once the files have been read; clients retry it."""

MEDIA_TYPE = "application/problem+json"

_SCOPE_KEY = "service_manager.problem"
"""Key in the ASGI scope of the problem that a request ended with; the audit log records refusals from it."""

_STATUS = {
    "unknown_group": 404,
    "unknown_generation": 404,
    "unknown_commit": 404,
    "revision_changed": 412,
    "not_readable": 503,
    "not_writable": 503,
    "state_not_writable": 503,
}
"""HTTP status of a refusal by its reason; all others are 409."""


class Problem(Exception):
    """An error raised by the API itself. ``errors`` are details, one for each mistake."""

    def __init__(
        self,
        status: int,
        reason: str,
        detail: str,
        remedy: str = "",
        errors: Iterable[Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = detail
        self.remedy = remedy
        self.errors = list(errors)
        self.headers = headers

    def response(self, headers: Mapping[str, str] | None = None) -> Response:
        """Return the response to send."""
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "reason": self.reason,
            "remedy": self.remedy,
        }
        if self.errors:
            body["errors"] = self.errors
        # ASCII with escapes: a name from the request may contain what UTF-8 can't encode.
        return Response(json.dumps(body), self.status, headers or self.headers, MEDIA_TYPE)


def need_desired_state(snapshot: Snapshot) -> None:
    """Refuse requests about groups and services while there is no desired state.

    The daemon listens before it has read its files. Until then it does not know which groups exist.

    Raises:
        Problem: 503 with Retry-After while the files are being read; 409 with the mistakes if they are not
            valid and there is no earlier state; 503 if they can't be accepted.
    """
    if snapshot.generation:
        return
    if snapshot.errors:
        more = f" and {len(snapshot.errors) - 1} more" if len(snapshot.errors) > 1 else ""
        raise Problem(
            HTTPStatus.CONFLICT,
            "desired_state_invalid",
            f"desired state is not valid, and there is no earlier one: {snapshot.errors[0]}{more}",
            "correct the mistakes in errors; `service-manager validate` checks the directory",
            [mistake(found) for found in snapshot.errors],
        )
    if snapshot.warnings:
        detail = f"no desired state could be accepted: {'; '.join(snapshot.warnings)}"
        raise Problem(503, "not_accepted", detail, "see the daemon's log", headers={"retry-after": "5"})
    raise Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        STARTING,
        "the daemon has started and has not read its files yet",
        "try again in a second",
        headers={"retry-after": "1"},
    )


def unknown_generation(generation: int, newest: int) -> Problem:
    """Return the problem for a generation that does not exist yet or is no longer kept."""
    return Problem(
        404,
        "unknown_generation",
        f"generation {generation} is unknown",
        f"the newest is {newest}; the progress of the last hundred is kept",
    )


def add_handlers(app: FastAPI) -> None:
    """Register handlers that answer every kind of error of this application as a problem."""
    handlers: Mapping[type[Exception], Any] = {
        Problem: _problem,
        WriteRefused: _refused,
        InvalidDesiredState: _invalid_files,
        EngineError: _no_engine,
        RequestValidationError: _bad_input,
        HTTPException: _http,
        Exception: _unexpected,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def from_error(scope: Scope) -> Problem | None:
    """Return the problem that a request ended with, None if it ended without one."""
    problem = scope.get(_SCOPE_KEY)
    return problem if isinstance(problem, Problem) else None


async def _problem(request: Request, error: Problem) -> Response:
    request.scope[_SCOPE_KEY] = error
    return error.response()


async def _refused(request: Request, error: WriteRefused) -> Response:
    status = _STATUS.get(error.reason, HTTPStatus.CONFLICT)
    broken = error.__cause__
    mistakes = broken.mistakes if isinstance(broken, InvalidDesiredState) else ()
    errors = [mistake(found) for found in mistakes]
    return await _problem(request, Problem(status, error.reason, str(error), error.remedy, errors))


async def _no_engine(_request: Request, error: EngineError) -> Response:
    # A write runs the engine's tools only if changed files have to be resolved first.
    return Problem(503, error.reason, str(error), "`service-manager doctor` says what is wrong").response()


async def _invalid_files(request: Request, error: InvalidDesiredState) -> Response:
    return await _problem(request, invalid_files(error, HTTPStatus.CONFLICT))


def invalid_files(error: InvalidDesiredState, status: int) -> Problem:
    """Return the problem for invalid desired state: in files on disk (409), or in a request body (422)."""
    count = len(error.mistakes)
    return Problem(
        status,
        "desired_state_invalid",
        f"desired state has {count} mistake{'' if count == 1 else 's'}; nothing was written",
        "correct the mistakes in errors; `service-manager validate` checks the directory",
        [mistake(found) for found in error.mistakes],
    )


async def _bad_input(request: Request, error: RequestValidationError) -> Response:
    errors = [_input_error(found) for found in error.errors()]
    remedy = "see /docs for the parameters and the body of this request"
    if any(e["in"] == "body" for e in errors) and not _says_json(request):
        remedy = "send the body as JSON, with the header Content-Type: application/json"
    shown = [f"{e['in']} {e['name']}".strip() + f": {e['message']}" for e in errors[:3]]
    if len(errors) > 3:
        shown.append(f"and {len(errors) - 3} more")
    return Problem(422, "bad_input", "; ".join(shown), remedy, errors).response()


def _says_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _input_error(found: Mapping[str, Any]) -> dict[str, str]:
    # The input itself is never shown: it may be meant for another field, such as a key.
    place, *path = (str(part) for part in found["loc"])
    message = str(found["msg"]).removeprefix("Value error, ")
    if found["type"] == "json_invalid":
        message, path = f"not JSON: {found['ctx']['error']}, at character {path[-1]}", []
    # pydantic adds the alternative of a type that it tried; a caller knows only the name of the field.
    name = ".".join(part for part in path if part not in ALTERNATIVES)
    return {"in": place, "name": name, "message": message}


_HTTP_REASONS = {
    404: ("not_found", "there is no such endpoint", "see /docs for the endpoints"),
    405: ("method_not_allowed", "this endpoint does not accept that method", "see the header Allow"),
    # The framework returns 400 if a body can't be read as JSON at all; bad input is 422 everywhere.
    400: ("bad_input", "the body can't be read", "send it as JSON in UTF-8"),
}


async def _http(request: Request, error: HTTPException) -> Response:
    fallback = (HTTPStatus(error.status_code).name.lower(), str(error.detail), "")
    reason, detail, remedy = _HTTP_REASONS.get(error.status_code, fallback)
    status = 422 if error.status_code == 400 else error.status_code
    headers = {"allow": _allowed(request)} if status == 405 else error.headers
    if status == 405 and request.method == "OPTIONS":
        return Response(status_code=204, headers=headers)
    return Problem(status, reason, detail, remedy).response(headers)


def _allowed(request: Request) -> str:
    """Return the methods of an address; the framework only knows those of the first route that matches."""
    scope = {**request.scope, "root_path": ""}  # not that of a mounted folder
    routes = [route for route in request.app.routes if route.matches(scope)[0] is not Match.NONE]
    methods = {method for route in routes for method in getattr(route, "methods", None) or {"GET"}}
    if "GET" in methods:
        methods.add("HEAD")
    return ", ".join(sorted({*methods, "OPTIONS"}))


async def _unexpected(_request: Request, _error: Exception) -> Response:
    # The server logs the traceback; it is of no use to a client.
    return Problem(
        500, "internal_error", "internal error of the daemon", "see the daemon's log, and report the error"
    ).response()
