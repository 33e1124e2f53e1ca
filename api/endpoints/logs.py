"""``GET /services/logs/{service}``: the log of a container as plain text, optionally followed.

Plain lines in a chunked response instead of Server-Sent Events: curl, a pipe and ``fetch`` in a browser read
them directly, and a browser's EventSource can't send the header with an API key.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Annotated

from fastapi import FastAPI, Path, Query, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.context import Context
from api.middleware.auth import caller_of, rate_limit_key
from api.wire.openapi import read_responses
from api.wire.problems import Problem, need_desired_state
from reconciler.controller.snapshot import ServiceView, Snapshot
from reconciler.errors import ContainerGone, EngineError

log = logging.getLogger(__name__)

MOST_LINES = 10_000
MOST_READERS = 32
"""Maximum number of open logs; each follower holds a connection to the engine."""
MOST_OF_A_CALLER = 10
"""Maximum number of open logs of one key, or of one address without keys: no caller can hold all."""
SIZE = 2**18
"""Bytes buffered for a client; while the buffer is full, nothing is read from the engine."""
FIRST = 1.0
"""Seconds that the response is held back for a first line, or for an error of the engine."""

ServiceName = Annotated[str, Path(description="a service of the Compose files", examples=["kafka"])]


class LogEndpoints:
    """Serves container logs."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._open: Counter[str] = Counter()

    async def logs(
        self,
        request: Request,
        service: ServiceName,
        tail: Annotated[
            int, Query(ge=0, le=MOST_LINES, description="number of last lines to start with")
        ] = 100,
        follow: Annotated[bool, Query(description="keep sending new lines until the container ends")] = False,
        previous: Annotated[
            bool,
            Query(description="last lines captured from the previous container that exited or was recreated"),
        ] = False,
    ) -> Response:
        """Log of a service's container as lines of plain text, oldest first.

        With `follow` the response stays open. It ends when the container exits or is removed, and when the
        daemon shuts down; a client that reads nothing for 30 seconds is disconnected. If the engine fails in
        the middle, the connection is cut, so that the response never looks complete. With `previous` it is
        the log that the daemon captured when the service last exited or was recreated; `follow` is ignored.
        """
        context = self._context
        snapshot = context.snapshots.current
        need_desired_state(snapshot)
        if previous:
            return await self._previous(_service(snapshot, service), tail)
        container = _container(snapshot, service)
        if context.closing.is_set():
            raise Problem(503, "going_down", "the daemon is shutting down", "try again in a few seconds")
        if not snapshot.engine.reachable:
            raise Problem(
                503,
                "engine_unreachable",
                f"the engine does not answer: {snapshot.engine.error or 'no reason known'}",
                "`service-manager doctor` says what is wrong",
            )
        caller = _caller_key(request.scope)
        if self._open.total() >= MOST_READERS:
            raise Problem(
                503, "too_many_readers", f"{MOST_READERS} logs are already open", "close some of them"
            )
        if self._open[caller] >= MOST_OF_A_CALLER:
            raise Problem(
                503,
                "too_many_readers",
                f"this caller has {MOST_OF_A_CALLER} logs open already",
                "close some of them",
            )
        assert context.logs is not None
        lines = _LineBuffer(context.logs(container.id, tail, follow))
        self._open[caller] += 1
        try:
            await lines.wait_first(FIRST if follow else None)
        except ContainerGone:
            self._closed(caller)
            raise _no_container(container) from None
        except BaseException:
            self._closed(caller)
            await lines.aclose()
            raise
        return LogStream(context, lines, partial(self._closed, caller))

    async def _previous(self, service: ServiceView, tail: int) -> Response:
        lines = await self._context.captured_logs(service.name) if self._context.captured_logs else None
        if lines is None:
            raise Problem(
                404,
                "no_previous",
                f"there is no captured log of an earlier container of {service.name}",
                "logs are captured when a container exits or is recreated",
            )
        text = "".join(f"{line}\n" for line in (lines[-tail:] if tail else ()))
        headers = {"cache-control": "no-store"}
        return Response(text.encode("utf-8", "replace"), media_type="text/plain", headers=headers)

    def _closed(self, caller: str) -> None:
        self._open[caller] -= 1
        # Drops callers without an open log.
        self._open = +self._open

    def register(self, app: FastAPI) -> None:
        """Add the endpoint to the application, if the context has a source of log lines."""
        if self._context.logs is not None:
            described = read_responses(None, 404, 409, 503, media_type="text/plain")
            app.get("/services/logs/{service}", **described)(self.logs)


def _caller_key(scope: Scope) -> str:
    caller = caller_of(scope)
    return f"key {caller.name}" if caller.digest else f"address {rate_limit_key(caller.source)}"


def _container(snapshot: Snapshot, service: str) -> ServiceView:
    view = _service(snapshot, service)
    if not view.id:
        raise _no_container(view)
    return view


def _service(snapshot: Snapshot, service: str) -> ServiceView:
    views = [view for group in snapshot.groups.values() for view in group.services]
    found = next((view for view in (*views, *snapshot.unmanaged) if view.name == service), None)
    if found is None:
        raise Problem(
            404,
            "unknown_service",
            f"there is no service {service!r}",
            f"the services are: {', '.join(view.name for view in views)}"
            if views
            else "there is no service yet",
        )
    return found


def _no_container(service: ServiceView) -> Problem:
    why = f": {service.message}" if service.message else ""
    remedy = f"it gets one when {service.group} is on" if service.group else "start it with docker compose"
    return Problem(404, "no_container", f"{service.name} has no container{why}", remedy)


class _LineBuffer:
    """Buffers lines from the engine for one client; at most ``SIZE`` bytes."""

    def __init__(self, source: AsyncIterator[str]) -> None:
        self._source = source
        self._buffer = bytearray()
        self._ready = asyncio.Event()
        self._room = asyncio.Event()
        self._task = asyncio.create_task(self._pump())

    async def wait_first(self, seconds: float | None) -> None:
        """Wait until there are lines to send or the log has ended; at most ``seconds``.

        Raises:
            EngineError: the log failed before its first line.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ready.wait()
        if self._task.done() and not self._buffer:
            self._task.result()

    async def next(self) -> bytes:
        """Wait for lines and return them; empty: the log has ended.

        Raises:
            EngineError: the engine failed in the middle.
        """
        await self._ready.wait()
        content = bytes(self._buffer)
        self._buffer.clear()
        self._room.set()
        if not self._task.done():
            self._ready.clear()
        elif not content:
            self._task.result()
        return content

    async def aclose(self) -> None:
        """Close the engine's stream."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _pump(self) -> None:
        try:
            async for line in self._source:
                self._buffer += line.encode("utf-8", "replace") + b"\n"
                self._ready.set()
                while len(self._buffer) >= SIZE:
                    self._room.clear()
                    await self._room.wait()
        finally:
            self._ready.set()
            close = getattr(self._source, "aclose", None)
            if close is not None:
                await close()


class LogStream(Response):
    """Response that ends with the log, the connection, the caller's key or the daemon.

    ``closed`` is called at its end. Like ``events.EventStream`` it is written against ASGI, because only
    there a stalled client differs from an idle one.
    """

    media_type = "text/plain"

    def __init__(self, context: Context, lines: _LineBuffer, closed: Callable[[], None]) -> None:
        super().__init__(headers={"x-accel-buffering": "no", "cache-control": "no-store"})
        del self.headers["content-length"]
        self._context = context
        self._lines = lines
        self._closed = closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send lines until the stream ends."""
        create = asyncio.get_running_loop().create_task
        tasks: list[asyncio.Task[object]] = []
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            stream = create(self._stream(scope, send))
            tasks = [stream, create(_disconnected(receive)), create(self._context.closing.wait())]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if stream not in done or _is_complete(stream):
                await self._send(send, b"", more=False)
        except TimeoutError:
            # The client has stalled. An unfinished response makes the server close the connection.
            return
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._lines.aclose()
            self._closed()

    async def _stream(self, scope: Scope, send: Send) -> None:
        heartbeat = self._context.settings.heartbeat
        while True:
            content: bytes | None = None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(heartbeat):
                    content = await self._lines.next()
            if content == b"" or not self._context.may_read(scope):
                # The log has ended, or the key was revoked: send no further line.
                return
            if content:
                await self._send(send, content)

    async def _send(self, send: Send, body: bytes, *, more: bool = True) -> None:
        async with asyncio.timeout(self._context.settings.patience):
            await send({"type": "http.response.body", "body": body, "more_body": more})


def _is_complete(stream: asyncio.Task[object]) -> bool:
    """Return whether the log is complete; False if it broke off, which the client must notice."""
    error = stream.exception()
    if error is None:
        return True
    if not isinstance(error, EngineError | TimeoutError):
        raise error
    log.info("log stream aborted", extra={"error": str(error) or "the client has stalled"})
    return False


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
