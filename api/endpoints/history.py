"""Earlier generations over HTTP: list them, preview a rollback, and roll back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Protocol

from fastapi import FastAPI, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from api.context import Context
from api.endpoints.lifecycle import Caller, write_answer
from api.endpoints.status import Wait, respond
from api.wire import schemas, views
from api.wire.openapi import read_responses, write_responses
from reconciler.generations import preview_results as results
from reconciler.generations.record import Record
from reconciler.generations.writes import WriteResult

MOST = 500

Target = Annotated[
    str,
    Path(
        description="a generation, or a git commit hash (at least 7 digits)",
        examples=["41"],
        pattern=r"^([0-9]{1,9}|[0-9a-f]{7,64})$",
    ),
]


class GenerationHistory(Protocol):
    """Kept generations; ``reconciler.generations.rollback.History`` implements it."""

    def records(self) -> Sequence[Record]:
        """Return all kept generations, the newest last."""

    async def preview_rollback(self, name: str) -> results.RollbackPreview:
        """Return what a rollback would do; raises ``WriteRefused``."""

    async def rollback(self, name: str, *, author: str, source: str = "") -> WriteResult:
        """Restore the files of ``name``; raises ``WriteRefused``."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Generation(_Model):
    """One accepted desired state: who made it, when, what changed, how it ended."""

    generation: int = Field(examples=[41])
    current: bool = Field(description="whether it is in force now")
    accepted_at: datetime
    author: str = Field(
        description="name of a key, author of a git commit, or `file` for an edit of the files",
        examples=["ann"],
    )
    reason: str = Field(
        description="`start kafka` and similar; `edited`; `commit NAME`; `rollback 40`",
        examples=["start kafka"],
    )
    changes: list[str] = Field(examples=[["kafka: off → on"]])
    revision: str
    commit: str | None = Field(description="git commit; null: none")
    state: schemas.State
    message: str = Field(description="how it ended, or its latest message")
    ended_at: datetime | None


class HistoryPage(_Model):
    """Generations, the newest last. Pass `before` to get the next older page; null: no older one is kept."""

    timestamp: datetime
    generation: int
    entries: list[Generation]
    before: int | None


class RollbackStep(_Model):
    """A step that the rollback would take."""

    service: str = Field(examples=["kafka"])
    group: str | None = Field(examples=["kafka"])
    action: str = Field(examples=["recreate"])
    reason: str = Field(examples=["definition"])
    message: str


class RollbackPreview(_Model):
    """Preview of a rollback. `entry` is null for a commit that was never a generation."""

    timestamp: datetime
    generation: int = Field(description="the current generation")
    target: str = Field(examples=["41"])
    entry: Generation | None
    commit: str | None
    changes: list[str] = Field(examples=[["kafka: on → off"]])
    files: list[str] = Field(description="files that would change", examples=[["groups.yaml"]])
    engine_seen: bool = Field(description="false: the engine was unavailable, so no steps are known")
    steps: list[RollbackStep]
    waiting: list[RollbackStep] = Field(
        description="services not in their desired state after all steps, and why; `action` is the phase"
    )


class HistoryEndpoints:
    """Serves the kept generations, and rollbacks to them."""

    def __init__(self, context: Context, history: GenerationHistory) -> None:
        self._context = context
        self._history = history
        self._clock = context.settings.clock

    async def history(
        self,
        limit: Annotated[int, Query(ge=1, le=MOST, description="maximum number of entries")] = 50,
        before: Annotated[
            int | None, Query(ge=1, le=2**53, description="only generations before this one", examples=[41])
        ] = None,
    ) -> Response:
        """Kept generations of desired state: who made each, when, what changed, and how it ended.

        The newest come last. Page back with `before`.
        """
        records = [r for r in self._history.records() if before is None or r.generation < before]
        shown = records[-limit:]
        return respond(
            {
                "timestamp": views.stamp(self._clock()),
                "generation": self._newest,
                "entries": [self._entry(record) for record in shown],
                "before": shown[0].generation if len(records) > limit else None,
            }
        )

    async def preview(self, generation: Target) -> Response:
        """One earlier generation, and a preview of a rollback to it. Changes nothing."""
        preview = await self._history.preview_rollback(generation)
        return respond(
            {
                "timestamp": views.stamp(self._clock()),
                "generation": self._newest,
                "target": generation,
                "entry": self._entry(preview.record) if preview.record else None,
                "commit": preview.commit or None,
                "changes": list(preview.changes),
                "files": list(preview.files),
                "engine_seen": preview.observed,
                "steps": [
                    _step(s.service, preview.group_of, str(s.action), s.cause, s.why) for s in preview.steps
                ],
                "waiting": list(_waiting(preview)),
            }
        )

    async def rollback(self, generation: Target, author: Caller, wait: Wait = None) -> Response:
        """Roll back: restore the files of a generation byte for byte, as a new generation (and git commit).

        Returns 202 at once with a `Location` to follow it, 200 if the files are already the same. `GET
        /services/history/{generation}` previews it.
        """
        result = await self._history.rollback(generation, author=author.name, source=author.source)
        message = _message(generation, result)
        return await write_answer(
            self._context, result, wait, action="rollback", target=generation, message=message
        )

    def register(self, app: FastAPI) -> None:
        """Add the endpoints to the application."""
        app.get("/services/history", **read_responses(HistoryPage))(self.history)
        app.get("/services/history/{generation}", **read_responses(RollbackPreview, 404, 409))(self.preview)
        answers = {200: schemas.WriteAnswer, 202: schemas.WriteAnswer}
        app.post("/services/rollback/{generation}", **write_responses(answers, 404, 409, 503))(self.rollback)

    @property
    def _newest(self) -> int:
        return self._context.snapshots.current.generation

    def _entry(self, record: Record) -> views.Json:
        current = record.generation == self._newest
        progress = self._context.snapshots.progress(record.generation)
        # For the current generation the loop's progress is newer than the record on disk.
        state = (
            progress.state
            if current and progress
            else record.outcome or ("progressing" if current else "superseded")
        )
        return {
            "generation": record.generation,
            "current": current,
            "accepted_at": views.rfc3339(record.at),
            "author": record.author,
            "reason": record.reason,
            "changes": list(record.changes),
            "revision": record.revision,
            "commit": record.commit or None,
            "state": state,
            "message": progress.message if current and progress else record.outcome_reason,
            "ended_at": views.moment(record.finished_at or None),
        }


def _step(service: str, group_of: Mapping[str, str], action: str, reason: str, message: str) -> views.Json:
    group = group_of.get(service)
    return {"service": service, "group": group, "action": action, "reason": reason, "message": message}


def _waiting(preview: results.RollbackPreview) -> Any:
    for one in preview.rest.unresolved:
        yield _step(one.service, preview.group_of, one.phase, one.reason, one.message)


def _message(target: str, result: WriteResult) -> str:
    what = f"generation {target}" if len(target) < 7 else f"commit {target[:10]}"
    if not result.changed:
        return f"nothing to roll back: already as in {what} (generation {result.generation})"
    return f"rolled back to {what} (generation {result.generation})"
