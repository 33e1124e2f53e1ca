"""The audit log over HTTP, and what the API itself puts in: requests that were refused."""

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
from reconciler.audit.query import MAX_LIMIT
from reconciler.audit.query import Query as Wanted

_RECORDED = frozenset({401, 403, 409, 412, 421, 429})
_LOOSE = frozenset({401, 403, 421, 429})
"""Refusals of strangers: repeats count as one whatever they were aimed at."""

_PATH = re.compile(r"/services/([a-z]{1,20})(?:/([^/]{1,200}))?")
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
    """Where entries go and come from; ``reconciler.audit.log.Audit`` is one."""

    def append(self, fact: AuditEvent) -> None:
        """Record it soon."""

    def append_coalesced(self, key: tuple[str, ...], fact: AuditEvent) -> None:
        """Record it, repeats of a key as one."""

    async def read(self, query: Wanted) -> list[Entry]:
        """Entries, the newest last."""

    def subscribe(self, listener: Callable[[Sequence[Entry]], None]) -> None:
        """Have entries told when they are on the disk, in whatever thread."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AuditEntry(_Model):
    """One entry. `hash` is the link of the chain that `service-manager audit --verify` follows."""

    id: int = Field(examples=[1204])
    timestamp: datetime
    action: str = Field(
        description="start, stop, restart, put, edit; container_start and the like; generation_end; request",
        examples=["start"],
    )
    target: str = Field(examples=["kafka"])
    result: str = Field(description="accepted, refused, done, failed, unknown, ...", examples=["accepted"])
    user: str = Field(
        description="the name of a key, or: file, loop, daemon, environment, anonymous", examples=["ann"]
    )
    reason: str = Field(description="a stable word", examples=["requested"])
    message: str = Field(examples=["kafka: off -> on"])
    source: str = Field(description="the address that it came from", examples=["192.168.0.7"])
    generation: int | None = Field(examples=[42])
    groups: list[str] = Field(examples=[["kafka"]])
    count: int = Field(description="how often, where repeats are recorded as one", examples=[1])
    hash: str


class AuditPage(_Model):
    """Entries, the newest last. `before` is what to ask for next; null: there is nothing older."""

    timestamp: datetime
    entries: list[AuditEntry]
    before: int | None


def as_json(entry: Entry) -> views.Json:
    """An entry as it is shown."""
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
    """The endpoint over one context and log."""

    def __init__(self, context: Context, log: AuditSource) -> None:
        self._context = context
        self._log = log
        # A search through years of entries takes a moment of the disk; a few at once are enough.
        self._slots = asyncio.Semaphore(2)

    async def audit(
        self,
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="entries at the most")] = 100,
        before: Annotated[
            int | None, Query(ge=1, le=2**53, description="only entries with a smaller id", examples=[1204])
        ] = None,
        group: Annotated[
            str, Query(max_length=200, description="only what is about this group", examples=["kafka"])
        ] = "",
        action: Annotated[
            str, Query(max_length=100, description="only this action", examples=["start"])
        ] = "",
        user: Annotated[str, Query(max_length=100, description="only of this user", examples=["loop"])] = "",
    ) -> Response:
        """Who did what, when, from where and why: changes, refusals, and all that was done to containers.

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
                "`service-manager audit --verify` looks through it",
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


class Refusals:
    """Records refused requests. Called for every one; bounded by what the log makes of repeats.

    Nothing of the request itself goes in but where it came from: what it was for is told in our own
    words, a group is named only if there is one of that name.
    """

    def __init__(self, context: Context, log: AuditSource) -> None:
        self._context = context
        self._log = log

    def __call__(self, scope: Scope, problem: Problem) -> None:
        """A request ended with this problem."""
        if problem.status not in _RECORDED:
            return
        caller = caller_of(scope)
        snapshot = self._context.snapshots.current
        action, target = describe_request(scope["method"], scope["path"], snapshot.groups)
        fact = AuditEvent(
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
        self._log.append_coalesced(
            (rate_limit_key(caller.source), caller.name, action, problem.reason, place), fact
        )


def describe_request(method: str, path: str, groups: Any) -> tuple[str, str]:
    """What a request was for: a stable word, and the group or address that it was aimed at."""
    found = _PATH.fullmatch(path)
    word, name = (found[1], found[2] or "") if found else ("", "")
    known = name if name in groups else ""
    if method == "POST" and word in _WRITES and name:
        return word, known
    if method == "PUT" and word == "groups" and name:
        return "put", known
    if path in _PLAIN:
        return _PLAIN[path], path
    if method in {"GET", "HEAD"} and word in _READS:
        return "read", known or f"/services/{word}"
    return "request", "an address that is none of ours"


def publish_from_thread(
    loop: asyncio.AbstractEventLoop, tell: Callable[[str, bytes], None]
) -> Callable[[Sequence[Entry]], None]:
    """From the log's thread into the event loop: entries as ``audit`` events."""

    def told(entries: Sequence[Entry]) -> None:
        encoded = [views.to_bytes(as_json(entry)) for entry in entries]

        def hand_over() -> None:
            for data in encoded:
                tell("audit", data)

        if not loop.is_closed():
            loop.call_soon_threadsafe(hand_over)

    return told
