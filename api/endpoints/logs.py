"""``GET /services/logs/{service}``: what a container prints, as plain text, to its end or for ever.

Plain lines in a chunked answer and not Server-Sent Events: curl, a pipe and ``fetch`` in a browser read it
as it is, and an event stream could not carry an API key's header from a browser anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Annotated

from fastapi import FastAPI, Path, Query
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.context import Context
from api.wire.openapi import read_responses
from api.wire.problems import Problem, need_desired_state
from reconciler.controller.snapshot import ServiceView, Snapshot
from reconciler.errors import ContainerGone, EngineError

log = logging.getLogger(__name__)

MOST_LINES = 10_000
MOST_READERS = 32
"""Open at once; each one that follows holds a connection to the engine."""
SIZE = 2**18
"""Bytes that may wait for a reader; until it has taken some, nothing more is asked of the engine."""
FIRST = 1.0
"""Seconds that the beginning of an answer waits for a first line, or for the engine to say why not."""

ServiceName = Annotated[str, Path(description="a service of the Compose files", examples=["kafka"])]


class Logs:
    """The endpoint over one context."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._open = 0

    async def logs(
        self,
        service: ServiceName,
        tail: Annotated[
            int, Query(ge=0, le=MOST_LINES, description="how many of the last lines to begin with")
        ] = 100,
        follow: Annotated[
            bool, Query(description="go on with what comes, until the container or the caller ends")
        ] = False,
        previous: Annotated[
            bool, Query(description="what was kept of the last container that ended by itself or was remade")
        ] = False,
    ) -> Response:
        """The log of a service's container as lines of plain text, oldest first.

        With `follow` the answer stays open. It ends when the container is removed or ends, and when the
        daemon goes down; a reader that takes nothing for 30 seconds is dropped. An answer that breaks off
        in the middle (the engine went away) is cut, never ended as if it were whole. With `previous` it is
        what the daemon kept when the service last ended by itself, or was remade, and `follow` means nothing.
        """
        context = self._context
        snapshot = context.snapshots.current
        need_desired_state(snapshot)
        if previous:
            return await self._previous(_service(snapshot, service), tail)
        container = _container(snapshot, service)
        if context.closing.is_set():
            raise Problem(503, "going_down", "the daemon is going down", "try again in a few seconds")
        if not snapshot.engine.reachable:
            raise Problem(
                503,
                "engine_unreachable",
                f"the engine does not answer: {snapshot.engine.error or 'no reason known'}",
                "`service-manager doctor` says what is wrong",
            )
        if self._open >= MOST_READERS:
            raise Problem(
                503, "too_many_readers", f"{MOST_READERS} logs are being read already", "close some of them"
            )
        assert context.logs is not None
        lines = _Lines(context.logs(container.id, tail, follow))
        self._open += 1
        try:
            await lines.begun(FIRST if follow else None)
        except ContainerGone:
            self._open -= 1
            raise _no_container(container) from None
        except BaseException:
            self._open -= 1
            await lines.aclose()
            raise
        return LogStream(context, lines, self._closed)

    async def _previous(self, service: ServiceView, tail: int) -> Response:
        found = await self._context.previous(service.name) if self._context.previous else None
        if found is None:
            raise Problem(
                404,
                "no_previous",
                f"nothing is kept of an earlier container of {service.name}",
                "something is once it ended by itself or was remade",
            )
        text = "".join(f"{line}\n" for line in (found[-tail:] if tail else ()))
        headers = {"cache-control": "no-store"}
        return Response(text.encode("utf-8", "replace"), media_type="text/plain", headers=headers)

    def _closed(self) -> None:
        self._open -= 1

    def register(self, app: FastAPI) -> None:
        """Add the endpoint to the application, where there is somebody to ask for lines."""
        if self._context.logs is not None:
            described = read_responses(None, 404, 409, 503, media_type="text/plain")
            app.get("/services/logs/{service}", **described)(self.logs)


def _container(snapshot: Snapshot, service: str) -> ServiceView:
    found = _service(snapshot, service)
    if not found.id:
        raise _no_container(found)
    return found


def _service(snapshot: Snapshot, service: str) -> ServiceView:
    views = [view for group in snapshot.groups.values() for view in group.services]
    found = next((view for view in (*views, *snapshot.unmanaged) if view.name == service), None)
    if found is None:
        raise Problem(
            404,
            "unknown_service",
            f"there is no service {service!r}",
            f"the services are: {', '.join(view.name for view in views)}" if views else "there are none yet",
        )
    return found


def _no_container(service: ServiceView) -> Problem:
    why = f": {service.message}" if service.message else ""
    remedy = f"it gets one when {service.group} is on" if service.group else "start it with docker compose"
    return Problem(404, "no_container", f"{service.name} has no container{why}", remedy)


class _Lines:
    """Lines on their way from an engine to one reader: never more of them than ``SIZE`` bytes."""

    def __init__(self, source: AsyncIterator[str]) -> None:
        self._source = source
        self._held = bytearray()
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._task = asyncio.create_task(self._pump())

    async def begun(self, seconds: float | None) -> None:
        """Wait until there is something to send or it is over; at most ``seconds``.

        Raises:
            EngineError: there will be nothing.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        if self._task.done() and not self._held:
            self._task.result()

    async def next(self) -> bytes:
        """What has come since; empty: it is over.

        Raises:
            EngineError: it broke off.
        """
        await self._news.wait()
        found = bytes(self._held)
        self._held.clear()
        self._room.set()
        if not self._task.done():
            self._news.clear()
        elif not found:
            self._task.result()
        return found

    async def aclose(self) -> None:
        """Let go of the engine's stream."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _pump(self) -> None:
        try:
            async for line in self._source:
                self._held += line.encode("utf-8", "replace") + b"\n"
                self._news.set()
                while len(self._held) >= SIZE:
                    self._room.clear()
                    await self._room.wait()
        finally:
            self._news.set()
            close = getattr(self._source, "aclose", None)
            if close is not None:
                await close()


class LogStream(Response):
    """The answer: it lasts until the lines, the reader, its key or the daemon end.

    ``closed`` is called once it is over. Like ``stream.EventStream`` written against ASGI, because only
    there can a reader that takes nothing be told from an idle one.
    """

    media_type = "text/plain"

    def __init__(self, context: Context, lines: _Lines, closed: Callable[[], None]) -> None:
        super().__init__(headers={"x-accel-buffering": "no", "cache-control": "no-store"})
        del self.headers["content-length"]
        self._context = context
        self._lines = lines
        self._closed = closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send lines until there is no reason to go on."""
        create = asyncio.get_running_loop().create_task
        tasks: list[asyncio.Task[object]] = []
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            pour = create(self._pour(scope, send))
            tasks = [pour, create(_left(receive)), create(self._context.closing.wait())]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if pour not in done or _whole(pour):
                await self._send(send, b"", more=False)
        except TimeoutError:
            # It takes nothing any more. Not ending the answer makes the server close the connection.
            return
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._lines.aclose()
            self._closed()

    async def _pour(self, scope: Scope, send: Send) -> None:
        heartbeat = self._context.settings.heartbeat
        while True:
            found: bytes | None = None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(heartbeat):
                    found = await self._lines.next()
            if found == b"" or not self._context.holds(scope):
                # It is over; or the key was revoked: not one line more.
                return
            if found:
                await self._send(send, found)

    async def _send(self, send: Send, body: bytes, *, more: bool = True) -> None:
        async with asyncio.timeout(self._context.settings.patience):
            await send({"type": "http.response.body", "body": body, "more_body": more})


def _whole(pour: asyncio.Task[object]) -> bool:
    """Whether the lines came to their end; False where they broke off, which must show."""
    error = pour.exception()
    if error is None:
        return True
    if not isinstance(error, EngineError | TimeoutError):
        raise error
    log.info("a log broke off", extra={"error": str(error) or "its reader takes nothing"})
    return False


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
