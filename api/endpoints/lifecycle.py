"""The endpoints that change something: each is one edit of desired state, and an answer about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Body, Depends, FastAPI, Query, Request
from starlette.responses import Response

from api.context import Context
from api.endpoints.long_poll import find_generation, is_finished
from api.endpoints.status import GroupName, Wait, respond
from api.middleware import auth
from api.wire import schemas, views
from api.wire.etags import IfMatch, require_match
from api.wire.openapi import write_responses
from api.wire.request_bodies import GroupBody
from reconciler.generations import edits
from reconciler.generations.edits import Changes, EditFunction, WriteResult
from reconciler.model.desired import Desired
from reconciler.model.stack import Stack


async def caller(request: Request) -> auth.Caller:
    """Who asks: the name that a change is made and recorded under, and the address."""
    return auth.caller_of(request.scope)


Caller = Annotated[auth.Caller, Depends(caller)]
Force = Annotated[bool, Query(description="do it although other groups speak against it")]


class Writes:
    """The writing endpoints over one context."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._clock = context.settings.clock

    async def start(
        self,
        group: GroupName,
        author: Caller,
        force: Force = False,
        with_dependencies: Annotated[bool, Query(description="start what it needs as well")] = False,
        wait: Wait = None,
        if_match: IfMatch = "",
    ) -> Response:
        """Switch a group on.

        202 at once, with where to follow it; 200 where it is on already. With `force` it does not wait
        for the groups that it depends on, and that stays so until it is started or stopped again.
        """

        def decide(stack: Stack, desired: Desired) -> Changes:
            return edits.start(stack, desired, group, force=force, with_dependencies=with_dependencies)

        return await self._write("start", group, require_match(decide, if_match), author, wait)

    async def stop(
        self,
        group: GroupName,
        author: Caller,
        force: Force = False,
        with_dependents: Annotated[bool, Query(description="stop what needs it as well")] = False,
        wait: Wait = None,
        if_match: IfMatch = "",
    ) -> Response:
        """Switch a group off; refused while groups that are on depend on it, unless told how."""

        def decide(stack: Stack, desired: Desired) -> Changes:
            return edits.stop(stack, desired, group, force=force, with_dependents=with_dependents)

        return await self._write("stop", group, require_match(decide, if_match), author, wait)

    async def restart(
        self, group: GroupName, author: Caller, wait: Wait = None, if_match: IfMatch = ""
    ) -> Response:
        """Restart every container of a group, in order: desired state gets `restarted_at`."""

        def decide(stack: Stack, desired: Desired) -> Changes:
            return edits.restart(stack, desired, group, at=self._clock())

        return await self._write("restart", group, require_match(decide, if_match), author, wait)

    async def accept(
        self, group: GroupName, author: Caller, wait: Wait = None, if_match: IfMatch = ""
    ) -> Response:
        """Carry out the changes of a group that wait for this: desired state gets `accepted_at`.

        They wait where stack.yaml says `on_change: report`. What changes later has to be accepted anew.
        """

        def decide(stack: Stack, desired: Desired) -> Changes:
            return edits.accept(stack, desired, group, at=self._clock())

        return await self._write("accept", group, require_match(decide, if_match), author, wait)

    async def put(
        self,
        group: GroupName,
        body: Annotated[GroupBody, Body()],
        author: Caller,
        wait: Wait = None,
        if_match: IfMatch = "",
    ) -> Response:
        """Say what should be of a group, however often: the same again changes nothing.

        Refused as start and stop are; `force` lifts the refusal, and is stored where the state is on.
        """

        def decide(stack: Stack, desired: Desired) -> Changes:
            return edits.put(stack, desired, group, on=body.on, force=body.force, suspend=body.suspension())

        return await self._write("put", group, require_match(decide, if_match), author, wait)

    async def _write(
        self, action: str, group: str, decide: EditFunction, author: auth.Caller, wait: float | None
    ) -> Response:
        receipt = await self._context.intake.write(
            decide, author=author.name, reason=f"{action} {group}", source=author.source
        )
        message = _message(action, group, receipt)
        return await write_answer(self._context, receipt, wait, action=action, target=group, message=message)

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
            app.post(f"/services/{action}/{{group}}", **write_responses(answers, 404, 409, 412, 503))(
                endpoint
            )
        app.put("/services/groups/{group}", **write_responses(answers, 404, 409, 412, 503))(self.put)


_DONE = {
    "start": "{} is switched on",
    "stop": "{} is switched off",
    "restart": "{} will be restarted",
    "accept": "what was held back of {} is carried out",
    "put": "{} is as said",
}


def _message(action: str, group: str, receipt: WriteResult) -> str:
    if receipt.changed:
        others = [name for name in receipt.groups if name != group]
        with_it = f", and with it {', '.join(others)}" if others else ""
        text = f"{_DONE[action].format(group)}{with_it}; this is generation {receipt.generation}"
    else:
        text = f"{group} is as asked already; generation {receipt.generation} holds"
    held = [name for name in receipt.suspended if name == group or name in receipt.groups]
    if held:
        text += f". Nothing happens before the suspension of {', '.join(held)} ends"
    return text


async def write_answer(
    context: Context, receipt: WriteResult, wait: float | None, *, action: str, target: str, message: str
) -> Response:
    """The answer to a write: at once, or when its generation ended, at most ``wait`` seconds later."""
    snapshots = context.snapshots
    one = find_generation(snapshots, receipt.generation)
    if wait is not None:
        one = await is_finished(context, receipt.generation, wait)
    snapshot = snapshots.current
    touched = [snapshot.groups[name] for name in receipt.groups if name in snapshot.groups]
    return respond(
        {
            "action": action,
            "target": target,
            "success": wait is None or views.state_of(one, snapshot.generation) != "degraded",
            "message": message,
            "timestamp": views.stamp(context.settings.clock()),
            "services_affected": [service.name for view in touched for service in view.services],
            "generation": receipt.generation,
            "progress": views.progress(one, snapshot.generation),
        },
        202 if receipt.changed and wait is None else 200,
        {"location": f"/services/progress/{receipt.generation}"},
    )
