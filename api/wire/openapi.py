"""Extends ``/openapi.json``: the description of the API, and every status that each endpoint can return."""

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
from reconciler.controller.snapshot import Snapshot, SnapshotPublisher

TAG = "Service Manager"

DESCRIPTION = """
Files define what should run (desired state). This API edits those files and reports the observed state.

**Reads** never call the container engine: every response comes from the last snapshot of the loop.

**Writes** change desired state and return at once: `202` with the new `generation` and a `Location` to follow
its progress. A write that changes nothing returns `200`. With `?wait=60` the response is sent when the
generation ends, at most 60 seconds later.

    curl -X POST localhost:8000/services/start/kafka
    curl localhost:8000/services/status/kafka
    curl localhost:8000/services/progress/2?wait=60
    curl -N localhost:8000/services/events
    curl -N localhost:8000/services/logs/kafka?follow=true

Responses about the stack have an `ETag`. Send it as `If-None-Match` to get `304` while nothing has changed,
or as `If-Match` with a write to get `412` if desired state has changed since it was read.

**Errors** are RFC 9457 problem details with a stable `reason` and a `remedy`:

    curl -X POST localhost:8000/services/start/storage
    {"title": "Conflict", "status": 409, "detail": "storage needs kafka, which is off",
     "reason": "dependency_off",
     "remedy": "add with_dependencies=true to start kafka as well, or force=true to start storage without"}

**Keys** are needed once one exists: send `X-API-Key: KEY` or `Authorization: Bearer KEY`. A `viewer` key can
read, an `operator` key can also write; `service-manager key add NAME --role viewer` creates one. The
dashboard signs in with a key and then uses a session cookie. `GET /services/audit` lists every action and
every refused request.

Units: memory in MB = 10^6 bytes, uptime in seconds, CPU in percent of one core, times in RFC 3339 UTC.
"""

_WHY = {
    401: "An API key is required and none was sent",
    304: "Nothing has changed since the response with the ETag in `If-None-Match`",
    403: "Wrong key, role too low, or a page of another origin",
    404: "No such group, service or generation",
    409: "Conflict with the current state: a dependency is off, dependents are on, or invalid files",
    412: "Desired state no longer has the revision in `If-Match`; nothing was changed",
    413: "The body is larger than 1 MiB",
    429: "Too many wrong keys from this address; a correct key is always accepted",
    421: "The Host header is not one of this daemon's names",
    422: "Unknown or invalid parameters, or an invalid body",
    500: "Internal error of the daemon",
    503: "Temporarily unavailable: the daemon starts or shuts down, or the disk or the engine is unavailable",
}


_EXAMPLES = {
    401: (
        "missing_key",
        "an API key is needed",
        "send a key in the header X-API-Key, or as a Bearer token",
    ),
    403: ("invalid_key", "Invalid API key", "`service-manager key list` shows the valid keys"),
    404: ("unknown_group", "there is no group 'kafak'", "the groups are: kafka, storage, search"),
    409: (
        "dependency_off",
        "storage needs kafka, which is off",
        "add with_dependencies=true to start kafka as well, or force=true to start storage without",
    ),
    412: (
        "revision_changed",
        "desired state has changed since: its revision is now 4f1d2c7a9b3e8d60",
        "read it again, check that the change still applies, and send it with the new ETag",
    ),
    413: ("body_too_large", "the body is larger than 1048576 bytes", "no endpoint accepts more"),
    421: (
        "foreign_host",
        "this daemon does not answer to the name box.example",
        "use the address that it is bound to, or start it with --allowed-host for this name",
    ),
    422: (
        "bad_input",
        "query forse: unknown parameter; accepted are force, wait, with_dependencies",
        "see /docs for the parameters and the body of this request",
    ),
    429: (
        "too_many_attempts",
        "too many wrong keys from this address",
        "try again in 6 s; a correct key is always accepted",
    ),
    500: ("internal_error", "internal error of the daemon", "see the daemon's log, and report the error"),
    503: ("going_down", "the daemon is shutting down", "try again in a few seconds"),
}
"""One problem of each status, with the texts that the API really sends."""

_ETAG = {"schema": {"type": "string"}, "description": "value for `If-None-Match` or `If-Match`"}


def read_responses(
    model: type[BaseModel] | None, *refusals: int, media_type: str = "application/json"
) -> dict[str, Any]:
    """Return the route arguments of a read: the ``model`` of its response, and the statuses of its errors.

    304 among ``refusals`` means that the response has an ETag.
    """
    good: dict[int, type[BaseModel] | None] = {200: model}
    return _route(good, (*refusals, 413, 421, 422, 500), media_type)


def redirect_responses() -> dict[str, Any]:
    """Return the route arguments of a redirect."""
    described = read_responses(None)
    location = {"schema": {"type": "string"}, "description": "target of the redirect"}
    described["responses"][307] = {"description": "Redirect", "headers": {"Location": location}}
    del described["responses"][200]
    # The plain class has no media type, so no body is documented.
    return {**described, "status_code": 307, "response_class": Response}


def write_responses(good: Mapping[int, type[BaseModel]], *refusals: int) -> dict[str, Any]:
    """Return the route arguments of a write: the models of its responses, and the statuses of its errors."""
    return _route(dict(good), (403, *refusals, 413, 421, 422, 500), "application/json")


def _route(
    good: dict[int, type[BaseModel] | None], refusals: tuple[int, ...], media_type: str
) -> dict[str, Any]:
    responses: dict[int, dict[str, Any]] = {
        status: {"model": schemas.Problem, "description": _WHY[status]} for status in sorted(refusals)
    }
    tagged = responses.get(304)
    if tagged is not None:
        # A 304 has no body and so no model, only the tag.
        del tagged["model"]
        tagged["headers"] = {"ETag": _ETAG}
    meaning = {200: "Success", 202: "Accepted; follow it at `Location`"}
    for status, model in good.items():
        responses[status] = {"description": meaning[status]}
        if model is not None:
            responses[status]["model"] = model
        else:
            responses[status]["content"] = {media_type: {"schema": {"type": "string"}}}
        if 202 in good:
            location = {"schema": {"type": "string"}, "description": "address of the generation's progress"}
            responses[status]["headers"] = {"Location": location}
        elif tagged is not None:
            responses[status]["headers"] = {"ETag": _ETAG}
    return {"tags": [TAG], "response_model": None, "responses": responses}


class AuthState(Protocol):
    """Whether requests need a key; ``api.middleware.auth.Auth`` implements it."""

    @property
    def required(self) -> bool:
        """Whether a key is needed at present."""


_SCHEMES = {
    "ApiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "a key created with `service-manager key add`",
    },
    "Bearer": {"type": "http", "scheme": "bearer", "description": "the same key"},
    "Session": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": "set by `POST /services/session`; for the dashboard",
    },
}
_WAYS: list[dict[str, list[str]]] = [{name: []} for name in _SCHEMES]
_RETRY = {"schema": {"type": "integer"}, "description": "seconds"}


def _locked(operation: dict[str, Any], *, opened: bool, required: bool) -> None:
    """Describe which credentials an operation needs, and the errors without them."""
    # While no key exists none is needed, so tools that read the document must not require one.
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
    """Return the first sentence of the description, which says more than the name of the function."""
    first, _, _ = operation["description"].replace("\n", " ").partition(". ")
    return str(first).strip().removesuffix(".")


def _example(status: int) -> dict[str, Any]:
    reason, detail, remedy = _EXAMPLES[status]
    body = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return {"type": "about:blank", **body, "reason": reason, "remedy": remedy}


def _preview_example(document: dict[str, Any], snapshot: Snapshot) -> None:
    """Name a group of this stack in the example of the preview, so that it is accepted as it is."""
    operation = document["paths"].get("/services/plan", {}).get("post")
    view = next(iter(snapshot.groups.values()), None)
    if operation is not None and view is not None:
        entry = {"state": "on" if view.desired else "off", "force": view.force}
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        schema["examples"] = [{"groups": {view.name: entry}}]


def customise_openapi(app: FastAPI, lock: AuthState, snapshots: SnapshotPublisher) -> None:
    """Add what FastAPI can't describe: the media type of problem details, examples, and security schemes."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        document = plain()
        document["components"]["securitySchemes"] = _SCHEMES
        _preview_example(document, snapshots.current)
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

    # FastAPI documents this way to extend the schema; mypy reports the replaced method.
    app.openapi = described  # type: ignore[method-assign]
