"""Endpoints that read state: each responds at once from the last snapshot, without the engine."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import Body, FastAPI, Header, Path, Query, Request
from starlette.responses import Response

from api.context import Context
from api.endpoints.events import Broadcast, EventStream
from api.endpoints.long_poll import wait_finished
from api.wire import schemas, views
from api.wire.etags import EntityTags, IfNoneMatch, not_modified
from api.wire.openapi import read_responses, write_responses
from api.wire.problems import Problem, invalid_files, need_desired_state, unknown_generation
from api.wire.views import StatusCache
from reconciler.controller.snapshot import GroupView, Snapshot
from reconciler.errors import InvalidDesiredState, UnknownGroup

GroupName = Annotated[str, Path(description="a group of stack.yaml", examples=["kafka"])]
Wait = Annotated[
    float | None,
    Query(
        ge=0,
        le=600,
        allow_inf_nan=False,
        description="seconds to wait until the generation is converged, degraded or superseded. "
        "The response is then 200, also after a timeout; see `progress.state`",
        examples=[60],
    ),
]


def respond(value: views.Json, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a JSON response from a dictionary built by ``views``."""
    return Response(views.to_bytes(value), status, headers, "application/json")


class StatusEndpoints:
    """Serves the endpoints that read state."""

    def __init__(self, context: Context, cache: StatusCache, broadcast: Broadcast) -> None:
        self._context = context
        self._snapshots = context.snapshots
        self._clock = context.settings.clock
        self._cache = cache
        self._broadcast = broadcast
        self._tags = EntityTags()

    async def status(self, if_none_match: IfNoneMatch = "") -> Response:
        """Status of the whole stack: desired and observed state, progress, and errors.

        Comes from memory, even if the engine hangs or is down (`engine.reachable` is false then).
        """
        snapshot = self._read_snapshot()
        tag = self._tags.observed(snapshot)
        return not_modified(tag, if_none_match) or Response(
            self._cache.get(snapshot, self._clock()), 200, {"etag": tag}, "application/json"
        )

    async def group(self, group: GroupName, if_none_match: IfNoneMatch = "") -> Response:
        """Status of one group and its services."""
        snapshot, now = self._read_snapshot(), self._clock()
        view = _find_group(snapshot, group)
        tag = self._tags.observed(snapshot)
        body = {"timestamp": views.stamp(now), **views.group_status(view, now)}
        return not_modified(tag, if_none_match) or respond(body, headers={"etag": tag})

    async def desired(self, group: GroupName, if_none_match: IfNoneMatch = "") -> Response:
        """Desired state of one group, in the shape that PUT takes at the same address.

        `suspend` is false, or an object with `until` and `reason`.
        """
        snapshot = self._snapshots.current
        view = _find_group(snapshot, group)
        # A suspension ends without a change of the files.
        tag = self._tags.observed(snapshot)
        return not_modified(tag, if_none_match) or respond(views.desired_state(view), headers={"etag": tag})

    async def groups(self, if_none_match: IfNoneMatch = "") -> Response:
        """List the groups: their services, memory estimates and dependencies, as the files define them."""
        snapshot = self._snapshots.current
        need_desired_state(snapshot)
        tag = self._tags.declared(snapshot)
        return not_modified(tag, if_none_match) or respond(views.groups(snapshot), headers={"etag": tag})

    def _read_snapshot(self) -> Snapshot:
        # Readers of the status make the loop sample CPU and memory more often.
        self._snapshots.note_reader(asyncio.get_running_loop().time())
        return self._snapshots.current

    async def progress(
        self, generation: Annotated[int, Path(ge=0, examples=[42])], wait: Wait = None
    ) -> Response:
        """Progress of one generation of desired state, step by step, or how it ended."""
        newest = self._snapshots.current.generation
        if self._snapshots.progress(generation) is None:
            raise unknown_generation(generation, newest)
        progress = await wait_finished(self._context, generation, wait or 0.0)
        return respond(views.progress(progress, self._snapshots.current.generation))

    async def plan(self) -> Response:
        """Current plan of the loop: the steps that are due now, each with its reason."""
        return respond(views.plan(self._snapshots.current, self._clock()))

    async def preview(
        self,
        state: Annotated[
            dict[str, Any],
            Body(
                description="a groups.yaml as JSON; it is not written. Groups left out stay as they are",
                examples=[{"groups": {"kafka": "on", "storage": {"state": "on", "force": True}}}],
            ),
        ],
    ) -> Response:
        """Preview another groups.yaml without writing it.

        `steps` lists all steps in order, assuming that each succeeds; `waiting` lists the services that are
        not in their desired state after them.
        """
        assert self._context.preview is not None
        need_desired_state(self._snapshots.current)
        try:
            planned = await self._context.preview(state)
        except InvalidDesiredState as error:
            # The mistakes are in the request body, not in the files on disk.
            raise invalid_files(error, 422) from None
        return respond(views.preview(planned, self._snapshots.current, self._clock()))

    async def drift(self) -> Response:
        """List all differences between desired and observed state.

        `pending` is true for an accepted change that is not applied yet, false for an unexpected difference.
        """
        return respond(views.drift(self._snapshots.current, self._clock()))

    async def events(
        self,
        request: Request,
        last_event_id: Annotated[
            str, Header(description="last id received: later events are sent again, while they are buffered")
        ] = "",
    ) -> Response:
        """Stream Server-Sent Events: first a full `status`, then `status`, `progress` and `audit` events.

        `status` has the shape of `GET /services/status`, `progress` that of
        `/services/progress/{generation}`, `audit` that of an entry of `/services/audit`. A comment is sent
        after 15 idle seconds to keep the connection alive. A client that reads too slowly is disconnected
        and starts with a full `status` again.
        """
        if self._context.closing.is_set():
            raise Problem(503, "going_down", "the daemon is shutting down", "try again in a few seconds")
        return EventStream(self._broadcast, last_event_id, lambda: self._context.may_read(request.scope))

    def register(self, app: FastAPI) -> None:
        """Add the endpoints to the application."""
        app.get("/services/status", **read_responses(schemas.Status, 304))(self.status)
        app.get("/services/status/{group:path}", **read_responses(schemas.GroupAnswer, 304, 404, 409, 503))(
            self.group
        )
        app.get("/services/groups", **read_responses(schemas.Groups, 304, 409, 503))(self.groups)
        app.get("/services/groups/{group:path}", **read_responses(schemas.DesiredState, 304, 404, 409, 503))(
            self.desired
        )
        app.get("/services/progress/{generation}", **read_responses(schemas.Progress, 404))(self.progress)
        app.get("/services/plan", **read_responses(schemas.Plan))(self.plan)
        if self._context.preview is not None:
            app.post("/services/plan", **write_responses({200: schemas.Preview}, 409, 503))(self.preview)
        app.get("/services/drift", **read_responses(schemas.Drift))(self.drift)
        app.get("/services/events", **read_responses(None, 503, media_type="text/event-stream"))(self.events)


def _find_group(snapshot: Snapshot, name: str) -> GroupView:
    need_desired_state(snapshot)
    view = snapshot.groups.get(name)
    if view is None:
        raise UnknownGroup(name, tuple(snapshot.groups))
    return view
