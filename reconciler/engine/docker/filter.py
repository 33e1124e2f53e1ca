"""Provides a socket through which Docker Compose sees the engine without some of its containers.

Compose identifies its containers by their labels. To Compose, a container that inherited them from its image
(see ``identity``) is a container of the service: Compose 2.40 recreates it, removes it, or creates no other
container. Therefore the socket leaves such a container out of every list that Compose requests. Everything
else passes through unchanged.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import tempfile
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

from reconciler.engine.docker.http import DockerHttp, HttpResponse
from reconciler.engine.docker.parse import id_of
from reconciler.errors import EngineUnavailable

_LIST = re.compile(r"(/v[0-9.]+)?/containers/json(\?|$)")
_CHUNK = 65536
_NOT_FORWARDED = frozenset({"connection", "keep-alive", "accept-encoding"})
"""Request headers that concern one connection: here every request has its own connection."""


@asynccontextmanager
async def without(http: DockerHttp, hidden: Collection[str]) -> AsyncIterator[dict[str, str]]:
    """Return the environment variables with which Compose does not see the containers ``hidden``.

    Empty if nothing is hidden. The socket is in a folder that only this user can enter, and is removed with
    the block.
    """
    if not hidden:
        yield {}
        return
    passing: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(_pass(http, hidden, reader, writer))
        passing.add(task)
        task.add_done_callback(passing.discard)

    with tempfile.TemporaryDirectory(prefix="service-manager-") as folder:
        path = Path(folder) / "engine.sock"
        server = await asyncio.start_unix_server(accept, path)
        try:
            yield {"DOCKER_HOST": f"unix://{path}", "DOCKER_CONTEXT": "", "DOCKER_TLS_VERIFY": ""}
        finally:
            server.close()
            for task in passing:
                task.cancel()
            await asyncio.gather(*passing, return_exceptions=True)


async def _pass(
    http: DockerHttp, hidden: Collection[str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Forward one request and its response, then close; Compose sees an error as a broken connection."""
    far: asyncio.StreamWriter | None = None
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        answers, far = await http.dial()
        request, forwarded = _forwarded(head)
        far.write(forwarded)
        await far.drain()
        if request.startswith("GET ") and _LIST.match(request.split(" ")[1]):
            writer.write(await _filtered(answers, hidden))
            await writer.drain()
        else:
            await _both_ways(reader, writer, answers, far)
    except (OSError, EOFError, ValueError, LookupError, EngineUnavailable, asyncio.LimitOverrunError):
        pass
    finally:
        writer.close()
        if far is not None:
            far.close()


def _forwarded(head: bytes) -> tuple[str, bytes]:
    """Return the first line of a request, and its head to forward: one request per connection."""
    request, *lines = head.decode("latin-1").split("\r\n")
    upgraded = any(line.lower().startswith("upgrade:") for line in lines)
    if upgraded:
        return request, head
    kept = [line for line in lines if line and line.partition(":")[0].lower() not in _NOT_FORWARDED]
    return request, "\r\n".join((request, *kept, "Connection: close", "", "")).encode("latin-1")


async def _filtered(answers: asyncio.StreamReader, hidden: Collection[str]) -> bytes:
    head = (await answers.readuntil(b"\r\n\r\n")).decode("latin-1")
    status, *lines = head.split("\r\n")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
    }
    content = await HttpResponse(int(status.split()[1]), headers, answers).read()
    with contextlib.suppress(ValueError, RecursionError):
        entries = json.loads(content)
        if isinstance(entries, list):
            content = json.dumps([entry for entry in entries if id_of(entry) not in hidden]).encode()
    kept = [f"{name}: {value}" for name, value in headers.items() if name in {"api-version", "content-type"}]
    ends = (f"Content-Length: {len(content)}", "Connection: close", "", "")
    return "\r\n".join((status, *kept, *ends)).encode("latin-1") + content


async def _both_ways(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    answers: asyncio.StreamReader,
    far: asyncio.StreamWriter,
) -> None:
    """Forward bytes in both directions until the engine closes the stream."""
    asking = asyncio.ensure_future(_copy(reader, far))
    try:
        await _copy(answers, writer)
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(_CHUNK):
        target.write(data)
        await target.drain()
    with contextlib.suppress(OSError):
        target.write_eof()
