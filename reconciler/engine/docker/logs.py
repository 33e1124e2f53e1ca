"""Log lines of one container, over as many connections as it takes.

Docker's json-file driver loses a follower when it rotates the file (moby#37646): the stream stays open and
sends nothing more. So a follower requests time stamps, and after ``SILENT`` seconds without a line checks
whether the log has newer ones; if so it opens a new stream just behind the last line. Repeated lines are
dropped: 20.10 sends lines again when a file is rotated while it is read.

Whatever an engine sends, memory is bounded, no single read waits without a deadline, and a stream that
ends at once is opened again with a growing pause.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import Any

from reconciler.engine.docker.frames import unframed
from reconciler.engine.docker.http import DockerHttp, Refused
from reconciler.engine.docker.parse import parse_timestamp
from reconciler.engine.docker.streams import lines_of
from reconciler.errors import ContainerGone, EngineUnavailable, StepFailed

SILENT = 5.0
"""Seconds of silence after which a follower checks whether the engine lost it."""

_AGAIN = 0.2
"""Seconds before a stream that ended is opened again; doubled up to ``SILENT`` while no line comes."""
_READ_DEADLINE = 30.0
"""Seconds without data after which a read that does not follow is given up."""
_REMEMBERED = 500
STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z) ")


async def log_lines(http: DockerHttp, container: str, tail: int, follow: bool) -> AsyncGenerator[str, None]:
    """Yield log lines of a container, oldest first, standard output and error in the engine's order.

    Raises:
        ContainerGone: there is no such container.
        StepFailed: the engine can't read its log (for example, the driver keeps none).
        EngineUnavailable: the engine does not answer, or sends invalid frames.
    """
    log = _Log(http, container)
    try:
        await log.inspect()
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

    def __init__(self, http: DockerHttp, container: str) -> None:
        self._http = http
        self._container = container
        self._terminal = False
        self._recent: dict[bytes, None] = {}
        self._count = 0
        self.last = b""

    async def inspect(self) -> bool:
        """Whether the container runs.

        Raises:
            Refused: the engine refuses to describe it.
            EngineUnavailable: no answer, or one of another shape than the API says.
        """
        details = await self._http.get(f"/containers/{self._container}/json")
        try:
            self._terminal = bool(details["Config"].get("Tty"))
            return bool(details["State"].get("Running"))
        except (AttributeError, LookupError, TypeError) as error:
            message = f"the inspection of container {self._container[:12]} can't be read"
            raise EngineUnavailable(message, "engine_nonsense") from error

    async def followed(self, tail: int) -> AsyncGenerator[bytes, None]:
        """Lines until the container ends, over as many streams as that takes."""
        if not tail:
            # Only to find the position to begin at.
            await self._read_newest()
        source = self.lines(tail=tail, follow=True)
        pause = _AGAIN
        while True:
            count = self._count
            async with aclosing(source) as lines, aclosing(self._until_lost(lines)) as received:
                async for line in received:
                    yield line
            if not await self.inspect():
                return
            pause = _AGAIN if self._count > count else min(2 * pause, SILENT)
            await asyncio.sleep(pause)
            source = self._since_last(follow=True)

    async def lines(
        self, *, tail: int | str, follow: bool, since: str = "", after: bytes = b"", repeats: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """One stream of lines, without their time stamps.

        Lines stamped ``after`` or before are left out. With ``repeats`` the stream begins with lines
        read before: those without a stamp belong to the stamped line before them, and go with it.

        Raises:
            Refused: the engine refuses to read the log.
            EngineUnavailable: the stream broke, or without ``follow`` nothing came for ``_READ_DEADLINE``.
        """
        query: dict[str, Any] = {"since": since} if since else {}
        path = f"/containers/{self._container}/logs"
        is_new = not repeats
        async with self._http.stream(
            "GET", path, stdout=True, stderr=True, timestamps=True, follow=follow, tail=tail, **query
        ) as reply:
            chunks = reply.chunks() if follow else _within(reply.chunks(), _READ_DEADLINE)
            source = lines_of(chunks if self._terminal else unframed(chunks, STAMP))
            async with aclosing(source) as stream:
                async for line in stream:
                    match = STAMP.match(line)
                    if match is not None:
                        is_new = self._is_new(line, match[1], after)
                    if is_new:
                        self._count += 1
                        yield line[match.end() :] if match else line

    def _since_last(self, *, follow: bool) -> AsyncGenerator[bytes, None]:
        since = ""
        if self.last:
            # The engine takes whole seconds and nanoseconds; a float would lose the latter.
            whole, fraction = self.last[:19].decode() + "Z", self.last[20:29].decode()
            # A stamp that is no date (month 99) reads the whole log again; old lines are dropped here.
            with suppress(ValueError, OverflowError):
                since = f"{parse_timestamp(whole):.0f}.{fraction}"
        return self.lines(
            tail="all", follow=follow, since=since, after=self.last, repeats=bool(self._count or self.last)
        )

    async def _read_newest(self) -> None:
        async with aclosing(self.lines(tail=1, follow=False)) as lines:
            async for _ in lines:
                pass

    async def _has_newer(self) -> bool:
        """Whether the log has lines behind ``last``, which the open stream did not send."""
        # The open stream goes on: this read must not move its position.
        probe = _Log(self._http, self._container)
        probe._terminal, probe.last, probe._count = self._terminal, self.last, self._count
        with suppress(Refused, TimeoutError):
            async with asyncio.timeout(_READ_DEADLINE), aclosing(probe._since_last(follow=False)) as lines:
                async for _ in lines:
                    return True
        return False

    async def _until_lost(self, lines: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """The lines of a stream until it ends, or is silent though the log has newer lines."""
        following = asyncio.ensure_future(anext(lines, None))
        try:
            while True:
                done, _ = await asyncio.wait([following], timeout=SILENT)
                if not done:
                    if await self._has_newer() and not following.done():
                        return
                    continue
                line = following.result()
                if line is None:
                    return
                following = asyncio.ensure_future(anext(lines, None))
                yield line
        finally:
            following.cancel()
            # An async generator can't be closed while its next item is awaited.
            await asyncio.gather(following, return_exceptions=True)

    def _is_new(self, line: bytes, stamp: bytes, after: bytes) -> bool:
        """Whether a stamped line is neither old nor a repetition; remembers it."""
        self.last = max(self.last, stamp)
        # Stamps count nanoseconds: the same stamp with the same text is the same line.
        if stamp <= after or line in self._recent:
            return False
        self._recent[line] = None
        if len(self._recent) > _REMEMBERED:
            del self._recent[next(iter(self._recent))]
        return True


async def _within(chunks: AsyncGenerator[bytes, None], seconds: float) -> AsyncGenerator[bytes, None]:
    """The chunks, each of which must come within ``seconds``.

    Raises:
        EngineUnavailable: one did not.
    """
    async with aclosing(chunks):
        while True:
            try:
                async with asyncio.timeout(seconds):
                    chunk = await anext(chunks, None)
            except TimeoutError as error:
                message = f"the engine sent nothing of a log for {seconds:.0f} s"
                raise EngineUnavailable(message, "engine_silent") from error
            if chunk is None:
                return
            yield chunk
