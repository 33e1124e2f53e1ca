"""The audit log over HTTP, and the entries that the API itself adds: refused requests."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Protocol

from fastapi import FastAPI, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response
from starlette.types import Scope

from api.context import Context
from api.endpoints.status import respond
from api.middleware.auth import caller_of, rate_limit_key
from api.wire import views
from api.wire.openapi import read_responses
from api.wire.problems import Problem
from reconciler.audit.chain import AuditEvent, Entry
from reconciler.audit.database import AuditDatabaseError
from reconciler.audit.event_stream import AuditEventStream
from reconciler.audit.query import MAX_LIMIT
from reconciler.audit.query import Query as Wanted

_RECORDED = frozenset({401, 403, 409, 412, 421, 429})
_LOOSE = frozenset({401, 403, 421, 429})
"""Refusals of unauthenticated callers: repeats are coalesced for all targets together."""

_PATH = re.compile(r"/services/([a-z]{1,20})(?:/(.{1,200}))?")
_PLAIN = {
    "/services/plan": "plan",
    "/services/session": "sign_in",
    "/services/hooks/git": "webhook",
    "/metrics": "metrics",
}
_WRITES = frozenset({"start", "stop", "restart", "accept", "rollback"})
_READS = frozenset(
    {"status", "groups", "drift", "events", "audit", "logs", "history", "progress", "plan", "dashboard"}
)


class AuditSource(Protocol):
    """Reads stored entries; ``reconciler.audit.log.Audit`` implements it."""

    async def read(self, query: Wanted) -> list[Entry]:
        """Return the matching entries, the newest last."""

    def subscribe(self, listener: Callable[[Sequence[Entry]], None]) -> None:
        """Call ``listener`` with entries once they are on disk, from any thread."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AuditEntry(_Model):
    """One entry. `hash` links the chain of entries that `service-manager audit --verify` checks."""

    id: int = Field(examples=[1204])
    timestamp: datetime
    action: str = Field(
        description="start, stop, restart, put, edit, generation_end, request; container_start and similar",
        examples=["start"],
    )
    target: str = Field(examples=["kafka"])
    result: str = Field(description="accepted, refused, done, failed, unknown, ...", examples=["accepted"])
    user: str = Field(
        description="name of a key, or file, loop, daemon, environment, anonymous", examples=["ann"]
    )
    reason: str = Field(description="stable word for programs", examples=["requested"])
    message: str = Field(examples=["kafka: off -> on"])
    source: str = Field(description="address of the caller", examples=["192.168.0.7"])
    generation: int | None = Field(examples=[42])
    groups: list[str] = Field(examples=[["kafka"]])
    count: int = Field(description="number of occurrences; repeats are recorded as one entry", examples=[1])
    hash: str


class AuditPage(_Model):
    """Entries, the newest last. Pass `before` to get the next older page; null: there are no older ones."""

    timestamp: datetime
    entries: list[AuditEntry]
    before: int | None


def as_json(entry: Entry) -> views.Json:
    """Convert an entry to JSON."""
    event = entry.event
    return {
        "id": entry.id,
        "timestamp": views.rfc3339(event.at),
        "action": event.action,
        "target": event.target,
        "result": event.result,
        "user": event.user,
        "reason": event.reason,
        "message": event.message,
        "source": event.source,
        "generation": event.generation or None,
        "groups": list(event.groups),
        "count": event.times,
        "hash": entry.hash.hex(),
    }


class AuditEndpoints:
    """Serves the audit log."""

    def __init__(self, context: Context, log: AuditSource) -> None:
        self._context = context
        self._log = log
        # A search through years of entries keeps the disk busy, so few run at once.
        self._slots = asyncio.Semaphore(2)

    async def audit(
        self,
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="maximum number of entries")] = 100,
        before: Annotated[
            int | None, Query(ge=1, le=2**53, description="only entries with a smaller id", examples=[1204])
        ] = None,
        group: Annotated[
            str, Query(max_length=200, description="only entries about this group", examples=["kafka"])
        ] = "",
        action: Annotated[
            str, Query(max_length=100, description="only this action", examples=["start"])
        ] = "",
        user: Annotated[str, Query(max_length=100, description="only this user", examples=["loop"])] = "",
    ) -> Response:
        """Audit log: who did what, when, from where and why, including refusals and container actions.

        The newest entries come last. Page back with `before`.
        """
        wanted = Wanted(limit=limit, before=before or 0, group=group, action=action, user=user)
        try:
            async with self._slots:
                entries = await self._log.read(wanted)
        except AuditDatabaseError as error:
            raise Problem(
                503,
                "audit_unreadable",
                f"the audit log can't be read: {error}",
                "`service-manager audit --verify` checks it",
            ) from error
        more = len(entries) == limit and entries[0].id > 1
        return respond(
            {
                "timestamp": views.stamp(self._context.settings.clock()),
                "entries": [as_json(entry) for entry in entries],
                "before": entries[0].id if more else None,
            }
        )

    def register(self, app: FastAPI) -> None:
        """Add the endpoint to the application."""
        app.get("/services/audit", **read_responses(AuditPage, 503))(self.audit)


class RefusalRecorder:
    """Publishes an event for every refused request; the audit log bounds the number by coalescing repeats.

    An event contains nothing of the request but its source address: the action is one of a fixed set of
    words, and a group is named only if it exists.
    """

    def __init__(self, context: Context, events: AuditEventStream) -> None:
        self._context = context
        self._events = events

    def __call__(self, scope: Scope, problem: Problem) -> None:
        """Record a request that ended with ``problem``."""
        if problem.status not in _RECORDED:
            return
        caller = caller_of(scope)
        snapshot = self._context.snapshots.current
        action, target = describe_request(scope["method"], scope["path"], snapshot.groups)
        event = AuditEvent(
            action,
            target=target,
            result="refused",
            user=caller.name,
            reason=problem.reason,
            message=problem.detail,
            source=caller.source,
            generation=snapshot.generation,
            groups=(target,) if target in snapshot.groups else (),
            at=self._context.settings.clock(),
        )
        place = "" if problem.status in _LOOSE else target
        repeat_key = (rate_limit_key(caller.source), caller.name, action, problem.reason, place)
        self._events.publish(event, repeat_key=repeat_key)


def describe_request(method: str, path: str, groups: Any) -> tuple[str, str]:
    """Return the action of a request, as a stable word, and the group or address that it targets."""
    match = _PATH.fullmatch(path)
    word, name = (match[1], match[2] or "") if match else ("", "")
    known = name if name in groups else ""
    if method == "POST" and word in _WRITES and name:
        return word, known
    if method == "PUT" and word == "groups" and name:
        return "put", known
    if path in _PLAIN:
        return _PLAIN[path], path
    if method in {"GET", "HEAD"} and word in _READS:
        return "read", known or f"/services/{word}"
    return "request", "unknown address"


def publish_from_thread(
    loop: asyncio.AbstractEventLoop, send_event: Callable[[str, bytes], None]
) -> Callable[[Sequence[Entry]], None]:
    """Return a listener that sends entries as ``audit`` events, from the log's thread into the event loop."""

    def publish(entries: Sequence[Entry]) -> None:
        encoded = [views.to_bytes(as_json(entry)) for entry in entries]

        def send() -> None:
            for data in encoded:
                send_event("audit", data)

        if not loop.is_closed():
            loop.call_soon_threadsafe(send)

    return publish
