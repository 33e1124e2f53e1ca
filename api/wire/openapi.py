"""What ``/openapi.json`` says beyond the endpoints: descriptions, and every status that can occur."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Protocol

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.responses import Response

from api.middleware.auth import is_open
from api.middleware.sessions import COOKIE
from api.wire import schemas

TAG = "Service Manager"

DESCRIPTION = """
What should run is said in files; this API edits those files and tells how far reality is.

**Reading** never asks the container engine: every answer is the last snapshot of the loop.

**Writing** changes desired state and returns at once: `202`, the new `generation`, and where to follow it.
Saying what holds already changes nothing: `200`. With `?wait=60` the answer comes when it is over.

    curl -X POST localhost:8000/services/start/kafka
    curl localhost:8000/services/status/kafka
    curl localhost:8000/services/progress/2?wait=60
    curl -N localhost:8000/services/events
    curl -N localhost:8000/services/logs/kafka?follow=true

Answers about the stack have an `ETag`. Sent as `If-None-Match` it brings `304` while nothing is new; sent as
`If-Match` with a write it brings `412` where desired state has been changed by somebody else meanwhile.

**Refusals** are RFC 9457 problem details with a stable `reason` and a `remedy`:

    curl -X POST localhost:8000/services/start/storage
    {"title": "Conflict", "status": 409, "detail": "storage needs kafka, which is off",
     "reason": "dependency_off",
     "remedy": "add with_dependencies=true to start kafka as well, or force=true to start storage without"}

**Keys**, once there are any: `X-API-Key: KEY`, or `Authorization: Bearer KEY`. A `viewer` reads, an
`operator` writes as well; `service-manager key add NAME --role viewer` makes one. The dashboard signs in
with one and keeps a session cookie instead. Whatever is done or refused is in `GET /services/audit`.

Units: memory in MB = 10^6 bytes, uptime in seconds, CPU in percent of one core, times RFC 3339 in UTC.
"""

_WHY = {
    401: "A key is needed, and none was sent",
    304: "Nothing is new since the answer whose ETag `If-None-Match` names",
    403: "A wrong key, a role that is too low, or a page of another origin",
    404: "No such group, service or generation",
    409: "Refused as things are: a dependency is off, dependents are on, or the files on disk are broken",
    412: "Desired state is not of the revision that `If-Match` names; nothing was changed",
    413: "The body is larger than 1 MiB",
    429: "Too many wrong keys from this address; a right one is taken at any time",
    421: "The Host header is not one of this daemon's names",
    422: "Unknown or unusable parameters, or a body that is not as it should be",
    500: "Something went wrong in the daemon",
    503: "Not now: the daemon starts or goes down, the disk or the engine is not to be had",
}


_EXAMPLES = {
    401: ("missing_key", "an API key is needed", "send a key in the header X-API-Key, or as a Bearer"),
    403: ("invalid_key", "Invalid API key", "see `service-manager key list` for those there are"),
    404: ("unknown_group", "there is no group 'kafak'", "the groups are: kafka, storage, search"),
    409: (
        "dependency_off",
        "storage needs kafka, which is off",
        "add with_dependencies=true to start kafka as well, or force=true to start storage without",
    ),
    412: (
        "revision_changed",
        "desired state has changed meanwhile: its revision is 4f1d2c7a9b3e8d60 now",
        "read again, see whether the change is still meant, and send it with the new ETag",
    ),
    413: ("body_too_large", "the body is larger than 1048576 bytes", "nothing here takes so much"),
    421: (
        "foreign_host",
        "this daemon does not answer to the name box.example",
        "use the address that it is bound to, or add the name to those that it answers to",
    ),
    422: (
        "bad_input",
        "query forse: there is no such parameter here; it takes force, wait, with_dependencies",
        "see /docs for what this request takes",
    ),
    429: (
        "too_many_attempts",
        "too many wrong keys from this address",
        "try again in 6 s; a right key is taken at any time",
    ),
    500: ("internal_error", "something went wrong in the daemon", "its log says what; please report it"),
    503: ("going_down", "the daemon is going down", "try again in a few seconds"),
}
"""One refusal of each status, as it is really said."""

_ETAG = {"schema": {"type": "string"}, "description": "what to send as `If-None-Match`, or `If-Match`"}


def read_responses(
    model: type[BaseModel] | None, *refusals: int, media_type: str = "application/json"
) -> dict[str, Any]:
    """Arguments of a route that reads: its answer is described by ``model``, it may refuse thus.

    304 among the refusals: it has an ETag.
    """
    good: dict[int, type[BaseModel] | None] = {200: model}
    return _route(good, (*refusals, 413, 421, 422, 500), media_type)


def leading() -> dict[str, Any]:
    """Arguments of a route that leads elsewhere."""
    described = read_responses(None)
    location = {"schema": {"type": "string"}, "description": "where to"}
    described["responses"][307] = {"description": "It is elsewhere", "headers": {"Location": location}}
    del described["responses"][200]
    # The plain class has no media type, so no body is documented.
    return {**described, "status_code": 307, "response_class": Response}


def write_responses(good: Mapping[int, type[BaseModel]], *refusals: int) -> dict[str, Any]:
    """Arguments of a route that takes what a foreign page must not send."""
    return _route(dict(good), (403, *refusals, 413, 421, 422, 500), "application/json")


def _route(
    good: dict[int, type[BaseModel] | None], refusals: tuple[int, ...], media_type: str
) -> dict[str, Any]:
    responses: dict[int, dict[str, Any]] = {
        status: {"model": schemas.Problem, "description": _WHY[status]} for status in sorted(refusals)
    }
    tagged = responses.get(304)
    if tagged is not None:
        # No body, so no model; the tag is all that there is.
        del tagged["model"]
        tagged["headers"] = {"ETag": _ETAG}
    meaning = {200: "As asked", 202: "Accepted; `Location` says where to follow it"}
    for status, model in good.items():
        responses[status] = {"description": meaning[status]}
        if model is not None:
            responses[status]["model"] = model
        else:
            responses[status]["content"] = {media_type: {"schema": {"type": "string"}}}
        if 202 in good:
            location = {"schema": {"type": "string"}, "description": "the progress of the generation"}
            responses[status]["headers"] = {"Location": location}
        elif tagged is not None:
            responses[status]["headers"] = {"ETag": _ETAG}
    return {"tags": [TAG], "response_model": None, "responses": responses}


class AuthState(Protocol):
    """Whether a key is needed at present; ``api.middleware.auth.Auth`` is one."""

    @property
    def required(self) -> bool:
        """See the class."""


_SCHEMES = {
    "ApiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "a key, as `key add` made it",
    },
    "Bearer": {"type": "http", "scheme": "bearer", "description": "the same key"},
    "Session": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": "what `POST /services/session` sets; for the dashboard",
    },
}
_WAYS: list[dict[str, list[str]]] = [{name: []} for name in _SCHEMES]
_RETRY = {"schema": {"type": "integer"}, "description": "seconds"}


def _locked(operation: dict[str, Any], *, opened: bool, required: bool) -> None:
    """Say who may call an operation, and how the others are refused."""
    # Where no key is set none is needed, and whoever reads this should not be asked for one.
    operation["security"] = [] if opened else _WAYS if required else [*_WAYS, {}]
    answers = operation["responses"]
    for status in () if opened else (401, 403, 429):
        content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
        answers.setdefault(str(status), {"description": _WHY[status], "content": content})
    if "401" in answers:
        challenge = {"schema": {"type": "string"}, "description": "how to send a key"}
        answers["401"]["headers"] = {"WWW-Authenticate": challenge}
    if "429" in answers:
        answers["429"]["headers"] = {"Retry-After": _RETRY}
    operation["responses"] = dict(sorted(answers.items()))


def _summary(operation: Mapping[str, Any]) -> str:
    """The first sentence of the description, which says more than the name of a function."""
    first, _, _ = operation["description"].replace("\n", " ").partition(". ")
    return str(first).strip().removesuffix(".")


def _example(status: int) -> dict[str, Any]:
    reason, detail, remedy = _EXAMPLES[status]
    told = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return {"type": "about:blank", **told, "reason": reason, "remedy": remedy}


def customise_openapi(app: FastAPI, lock: AuthState) -> None:
    """Have refusals described under their own media type, which the framework has no word for, and keys."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        document = plain()
        document["components"]["securitySchemes"] = _SCHEMES
        for path, operations in document["paths"].items():
            for operation in operations.values():
                _locked(operation, opened=is_open(path), required=lock.required)
                operation["summary"] = _summary(operation)
                for status, answer in operation["responses"].items():
                    content = answer.get("content", {})
                    if int(status) >= 400 and "application/json" in content:
                        content["application/problem+json"] = content.pop("application/json")
                    if "application/problem+json" in content:
                        content["application/problem+json"]["example"] = _example(int(status))
        return document

    # The framework's own way to extend it; mypy sees a method replaced.
    app.openapi = described  # type: ignore[method-assign]
