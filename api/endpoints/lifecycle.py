"""Endpoints that edit desired state: start, stop, restart, accept and PUT of a group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

from fastapi import Body, Depends, FastAPI, Query, Request
from starlette.responses import Response

from api.context import Context
from api.endpoints.long_poll import find_generation, wait_finished
from api.endpoints.status import GroupName, Wait, respond
from api.middleware import auth
from api.wire import schemas, views
from api.wire.etags import IfMatch, revisions
from api.wire.openapi import write_responses
from api.wire.request_bodies import GroupBody
from reconciler.generations.writes import WriteResult
from reconciler.model.edit import Edit, Verb


async def caller(request: Request) -> auth.Caller:
    """Return the caller: the name and address that a change is recorded with."""
    return auth.caller_of(request.scope)


Caller = Annotated[auth.Caller, Depends(caller)]
Force = Annotated[bool, Query(description="ignore dependency checks")]


class GroupRequest:
    """What all requests to edit a group have in common: path, caller, and two parameters."""

    def __init__(self, group: GroupName, caller: Caller, wait: Wait = None, if_match: IfMatch = "") -> None:
        self.group = group
        self.caller = caller
        self.wait = wait
        self.revisions = revisions(if_match)


Group = Annotated[GroupRequest, Depends()]


class LifecycleEndpoints:
    """Serves the endpoints that edit groups."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._clock = context.settings.clock

    async def start(
        self,
        request: Group,
        force: Force = False,
        with_dependencies: Annotated[
            bool, Query(description="also start the groups that it depends on")
        ] = False,
    ) -> Response:
        """Switch a group on.

        Returns 202 at once with a `Location` to follow it, 200 if the group is already on. With `force` it
        does not wait for the groups that it depends on, until the next start or stop of the group.
        """
        edit = replace(self._edit("start", request), force=force, cascade=with_dependencies)
        return await self._write(edit, request.wait)

    async def stop(
        self,
        request: Group,
        force: Force = False,
        with_dependents: Annotated[bool, Query(description="also stop the groups that depend on it")] = False,
    ) -> Response:
        """Switch a group off.

        Refused while groups that are on depend on it, without `force` or `with_dependents`.
        """
        edit = replace(self._edit("stop", request), force=force, cascade=with_dependents)
        return await self._write(edit, request.wait)

    async def restart(self, request: Group) -> Response:
        """Restart every container of a group, in order, by setting `restarted_at` in desired state."""
        return await self._write(self._edit("restart", request), request.wait)

    async def accept(self, request: Group) -> Response:
        """Apply the held changes of a group, by setting `accepted_at` in desired state.

        Changes are held if stack.yaml has `on_change: report`. Later changes need to be accepted again.
        """
        return await self._write(self._edit("accept", request), request.wait)

    async def put(self, request: Group, body: Annotated[GroupBody, Body()]) -> Response:
        """Set the desired state of a group. Idempotent: the same state again changes nothing.

        Refused like start and stop. `force` ignores dependency checks; it is stored if the state is on.
        """
        edit = replace(
            self._edit("put", request),
            on=body.on,
            force=body.force,
            suspend=body.suspension(),
            resume=body.suspend is False,
        )
        return await self._write(edit, request.wait)

    def _edit(self, verb: Verb, request: GroupRequest) -> Edit:
        return Edit(
            verb=verb,
            groups=(request.group,),
            at=self._clock(),
            if_match=request.revisions,
            author=request.caller.name,
            source=request.caller.source,
        )

    async def _write(self, edit: Edit, wait: float | None) -> Response:
        (group,) = edit.groups
        result = await self._context.writer.write(edit)
        message = _message(edit.verb, group, result, edit.at)
        return await write_answer(
            self._context, result, wait, action=edit.verb, target=group, message=message
        )

    def register(self, app: FastAPI) -> None:
        """Add the endpoints to the application."""
        answers = {200: schemas.WriteAnswer, 202: schemas.WriteAnswer}
        endpoints: dict[str, Callable[..., object]] = {
            "start": self.start,
            "stop": self.stop,
            "restart": self.restart,
            "accept": self.accept,
        }
        for action, endpoint in endpoints.items():
            app.post(f"/services/{action}/{{group:path}}", **write_responses(answers, 404, 409, 412, 503))(
                endpoint
            )
        app.put("/services/groups/{group:path}", **write_responses(answers, 404, 409, 412, 503))(self.put)


_DONE = {
    "start": "{} is switched on",
    "stop": "{} is switched off",
    "restart": "{} will be restarted",
    "accept": "held changes of {} are accepted",
    "put": "{} is updated",
}


def _message(action: str, group: str, result: WriteResult, now: float) -> str:
    if result.changed:
        others = [name for name in result.groups if name != group]
        with_it = f", together with {', '.join(others)}" if others else ""
        text = f"{_DONE[action].format(group)}{with_it} (generation {result.generation})"
    else:
        text = f"{group} is already in that state (generation {result.generation})"
    states = result.accepted.desired.groups
    suspended = [name for name in {group, *result.groups} if states[name].suspended(now)]
    if suspended:
        names = ", ".join(name for name in states if name in suspended)
        text += f". It takes effect when the suspension of {names} ends"
    return text


async def write_answer(
    context: Context, result: WriteResult, wait: float | None, *, action: str, target: str, message: str
) -> Response:
    """Answer a write: at once, or when its generation has ended, at most ``wait`` seconds later."""
    snapshots = context.snapshots
    progress = find_generation(snapshots, result.generation)
    if wait is not None:
        progress = await wait_finished(context, result.generation, wait)
    snapshot = snapshots.current
    touched = [snapshot.groups[name] for name in result.groups if name in snapshot.groups]
    return respond(
        {
            "action": action,
            "target": target,
            "success": wait is None or views.state_of(progress, snapshot.generation) != "degraded",
            "message": message,
            "timestamp": views.stamp(context.settings.clock()),
            "services_affected": [service.name for view in touched for service in view.services],
            "generation": result.generation,
            "progress": views.progress(progress, snapshot.generation),
        },
        202 if result.changed and wait is None else 200,
        {"location": f"/services/progress/{result.generation}"},
    )
