"""Log lines of one container, over as many connections as it takes.

Docker's json-file driver forgets a follower when it rotates the file (moby#37646): the stream stays open and
says nothing more. So a follower asks for time stamps, and where it hears nothing for a while looks whether
there is something to be heard; if so it begins a new stream just behind the last line. Nor does it believe
one that says everything twice: 20.10 repeats what it has said of a file that is rotated under its reader.
"""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import Any

from reconciler.engine.docker.http import DockerHttp, Refused
from reconciler.engine.docker.parse import parse_timestamp
from reconciler.engine.docker.streams import lines_of
from reconciler.errors import ContainerGone, EngineUnavailable, StepFailed

SILENT = 5.0
"""Seconds of silence after which a follower looks whether it was forgotten."""

_AGAIN = 0.2
_LONGEST_LINE = 2**20
_LONGEST_FRAME = 2**24
"""Bytes; Docker's own are 16 kB. What claims more would be gathered without end."""
_REMEMBERED = 500
_FRAME = struct.Struct(">BxxxL")
_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z) ")


async def log_lines(wire: DockerHttp, container: str, tail: int, follow: bool) -> AsyncGenerator[str, None]:
    """Log lines of a container, oldest first, standard output and error as they came.

    Raises:
        Gone: there is no such container.
        StepFailed: the engine can't read its log (a driver that keeps none, say).
    """
    log = _Log(wire, container)
    try:
        await log.look()
        source = log.followed(tail) if follow else log.lines(tail=tail, follow=False)
        async with aclosing(source) as lines:
            async for line in lines:
                yield line.decode(errors="replace").rstrip("\r")
    except Refused as error:
        if error.status == 404:
            raise ContainerGone(f"container {container[:12]} is gone") from error
        raise StepFailed(str(error), "no_logs") from error


class _Log:
    """One container's log. ``last`` is the time stamp of the newest line read, as the engine wrote it."""

    def __init__(self, wire: DockerHttp, container: str) -> None:
        self._wire = wire
        self._container = container
        self._terminal = False
        self._told: dict[bytes, None] = {}
        self.last = b""

    async def look(self) -> bool:
        """Whether the container runs."""
        seen = await self._wire.get(f"/containers/{self._container}/json")
        self._terminal = bool(seen["Config"].get("Tty"))
        return bool(seen["State"].get("Running"))

    async def followed(self, tail: int) -> AsyncGenerator[bytes, None]:
        """Lines until the container ends, whatever becomes of a single stream."""
        if not tail:
            # Only to know where to begin.
            await self._newest()
        first = True
        while True:
            source = self.lines(tail=tail, follow=True) if first else self._since_last(follow=True)
            first = False
            async with aclosing(source) as lines, aclosing(self._while_heard(lines)) as heard:
                async for line in heard:
                    yield line
            if not await self.look():
                return
            await asyncio.sleep(_AGAIN)

    async def lines(
        self, *, tail: int | str, follow: bool, since: str = "", after: bytes = b""
    ) -> AsyncGenerator[bytes, None]:
        """One stream of lines, without their time stamps; those stamped ``after`` or before are left out."""
        query: dict[str, Any] = {"since": since} if since else {}
        path = f"/containers/{self._container}/logs"
        async with self._wire.stream(
            "GET", path, stdout=True, stderr=True, timestamps=True, follow=follow, tail=tail, **query
        ) as reply:
            chunks = reply.chunks()
            async with aclosing(lines_of(chunks if self._terminal else _unframed(chunks))) as found:
                async for line in found:
                    text = self._unstamped(line, after)
                    if text is not None:
                        yield text

    def _since_last(self, *, follow: bool) -> AsyncGenerator[bytes, None]:
        since = ""
        if self.last:
            # The engine takes whole seconds and nanoseconds; a float would lose the latter.
            whole, fraction = self.last[:19].decode() + "Z", self.last[20:29].decode()
            since = f"{parse_timestamp(whole):.0f}.{fraction}"
        return self.lines(tail="all", follow=follow, since=since, after=self.last)

    async def _newest(self) -> None:
        async with aclosing(self.lines(tail=1, follow=False)) as lines:
            async for _ in lines:
                pass

    async def _missed(self) -> bool:
        """Whether there are lines that no stream told of."""
        # The stream goes on meanwhile: what this one finds must not move the place where that one is.
        apart = _Log(self._wire, self._container)
        apart._terminal, apart.last = self._terminal, self.last
        with suppress(Refused):
            async with aclosing(apart._since_last(follow=False)) as lines:
                async for _ in lines:
                    return True
        return False

    async def _while_heard(self, lines: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        following = asyncio.ensure_future(anext(lines, None))
        try:
            while True:
                done, _ = await asyncio.wait([following], timeout=SILENT)
                if not done:
                    if await self._missed() and not following.done():
                        return
                    continue
                line = following.result()
                if line is None:
                    return
                following = asyncio.ensure_future(anext(lines, None))
                yield line
        finally:
            following.cancel()
            # Its generator can't be closed while it is being asked.
            await asyncio.gather(following, return_exceptions=True)

    def _unstamped(self, line: bytes, after: bytes) -> bytes | None:
        match = _STAMP.match(line)
        if match is None:
            return line
        stamp = match[1]
        self.last = max(self.last, stamp)
        if stamp <= after or line in self._told:
            return None
        # Stamps count nanoseconds: the same stamp and the same words are the same line.
        self._told[line] = None
        if len(self._told) > _REMEMBERED:
            del self._told[next(iter(self._told))]
        return line[match.end() :]


async def _unframed(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Whole lines out of the frames in which the engine mixes standard output and error."""
    buffer = bytearray()
    partial: dict[int, bytes] = {}
    async for chunk in chunks:
        buffer += chunk
        while len(buffer) >= _FRAME.size:
            stream, size = _FRAME.unpack_from(buffer)
            if size > _LONGEST_FRAME:
                raise EngineUnavailable(f"the engine sends a frame of {size} bytes", "engine_nonsense")
            if len(buffer) < _FRAME.size + size:
                break
            piece = bytes(buffer[_FRAME.size : _FRAME.size + size])
            del buffer[: _FRAME.size + size]
            begun = partial.pop(stream, b"")
            # A line longer than the engine's own pieces has a time stamp before each of them.
            text = begun + (_STAMP.sub(b"", piece, count=1) if begun and _STAMP.match(piece) else piece)
            # A line may come in several frames, with the other stream's lines in between.
            whole, newline, rest = text.rpartition(b"\n")
            if newline:
                yield whole + newline
            if len(rest) > _LONGEST_LINE:
                yield rest + b"\n"
            elif rest:
                partial[stream] = rest
    for rest in partial.values():
        yield rest + b"\n"
