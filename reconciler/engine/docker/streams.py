"""Reads streams of the engine, each over one connection: events, and the progress of a pull."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from reconciler.engine.docker.http import DockerHttp, HttpResponse, Refused
from reconciler.engine.docker.observe import Observer
from reconciler.engine.docker.parse import PROJECT, repository_and_tag
from reconciler.errors import EngineError, EngineUnavailable, OutcomeUnknown
from reconciler.host.untrusted import MALFORMED
from reconciler.model.stack import Stack

# Filtered by name, because the exec events of health checks come all day, cost CPU on both sides and mean
# nothing. `health_status` includes `health_status: healthy` and similar ones. An attached network can only
# repair, and is attached during a start.
_FILTERS = {
    "type": ["container", "network", "image"],
    "event": [
        *("create", "start", "die", "pause", "unpause", "rename", "oom", "update"),
        # A removal is "remove" in Podman.
        *("destroy", "remove"),
        *("health_status", "disconnect", "kill", "stop"),
        *("pull", "tag", "untag", "delete", "import", "load", "build"),
    ],
}
_STOPS = {"type": ["container"], "event": ["kill", "stop"]}
_ENDING_SIGNALS = frozenset({"2", "3", "9", "15"})
"""INT, QUIT, KILL and TERM: signals that end a process. HUP and USR1 commonly reload a configuration."""
_MISSED_WITHIN = 86_400.0
"""Seconds for which stops before the subscription are read."""
_MISSED_PATIENCE = 3.0
"""Seconds that reading them may take."""
_MOST_TEXTS = 64
"""Reasons kept for a busy consumer: one would be enough, a few are useful in the log."""
_LONGEST_LINE = 2**20


class Events:
    """One subscription: invalidates the observer's cache, and yields the reasons."""

    def __init__(self, http: DockerHttp, observer: Observer, stack: Stack) -> None:
        self._http = http
        self._observer = observer
        self._stack = stack
        self._names = {
            service.name_of(number)
            for service in stack.services.values()
            for number in range(1, max(1, service.replicas) + 1)
        }
        self._texts: dict[str, None] = {}
        self._woken = asyncio.Event()
        self._ended: BaseException | None = None
        self._heard_at = 0.0
        self._expected_by: float | None = None

    def expect_event(self, since: float, seconds: float) -> None:
        """Expect an event of a command that began at ``since`` (the event loop's time).

        If none has come since, and none comes within ``seconds``, the stream is dead although it is open.
        """
        if self._heard_at < since and self._expected_by is None:
            self._expected_by = asyncio.get_running_loop().time() + seconds
            self._woken.set()

    async def lines(self) -> AsyncGenerator[str, None]:
        """Yield ``subscribed`` once the engine sends events, then a text per reason to observe again.

        Raises:
            EngineUnavailable: the stream is lost.
        """
        filters = json.dumps(_FILTERS)
        try:
            async with self._http.stream("GET", "/events", filters=filters) as reply:
                # Events from before the subscription are lost.
                self._observer.invalidate_all()
                self._observer.subscribed = True
                pump = asyncio.create_task(self._pump(reply))
                try:
                    await self._read_missed_stops()
                    yield "subscribed"
                    while True:
                        for text in await self._next():
                            yield text
                finally:
                    self._observer.subscribed = False
                    pump.cancel()
                    await asyncio.gather(pump, return_exceptions=True)
        except Refused as error:
            raise EngineUnavailable(f"the engine sends no events: {error}", "events_lost") from error

    async def _read_missed_stops(self) -> None:
        """Read the stops from before the subscription that the engine still has.

        Docker keeps the last 256 events, of all kinds. Without them a container that another client stopped
        looks as if it had completed.
        """
        filters, now = json.dumps(_STOPS), time.time()
        since, until = int(now - _MISSED_WITHIN), f"{now:.6f}"
        # An engine whose clock is behind ends the answer only when its clock has reached ``until``.
        with contextlib.suppress(Refused, TimeoutError, *MALFORMED):
            async with (
                asyncio.timeout(_MISSED_PATIENCE),
                self._http.stream("GET", "/events", filters=filters, since=since, until=until) as reply,
                aclosing(lines_of(reply.chunks())) as lines,
            ):
                async for line in lines:
                    event = json.loads(line)
                    actor = event.get("Actor") or {}
                    self._note_stop(event, actor.get("ID", ""), actor.get("Attributes") or {})

    def _note_stop(self, event: Mapping[str, Any], container: str, attributes: Mapping[str, Any]) -> bool:
        """Record a stop by a client; False for another event, and for a signal that ends no process."""
        action = event.get("Action")
        if action != "stop" and (action != "kill" or attributes.get("signal") not in _ENDING_SIGNALS):
            return False
        self._observer.note_stop(container, event.get("timeNano", 0) / 1e9)
        return True

    async def _next(self) -> list[str]:
        loop = asyncio.get_running_loop()
        while True:
            left = None if self._expected_by is None else max(0.0, self._expected_by - loop.time())
            try:
                async with asyncio.timeout(left):
                    # A stream that ended together with its last event wakes once, for both.
                    if self._ended is None:
                        await self._woken.wait()
            except TimeoutError as error:
                if self._expected_by is not None:
                    message = "the engine's event stream is silent though something happened"
                    raise EngineUnavailable(message, "events_lost") from error
            self._woken.clear()
            texts, self._texts = list(self._texts), {}
            if texts:
                return texts
            if self._ended is not None:
                raise EngineUnavailable("the engine's event stream ended", "events_lost") from self._ended

    async def _pump(self, reply: HttpResponse) -> None:
        """Drain the stream independently of the consumer: the engine drops events for slow readers."""
        try:
            async with aclosing(lines_of(reply.chunks())) as lines:
                async for line in lines:
                    self._on_event(json.loads(line))
            self._ended = EOFError()
        except (OSError, EOFError, EngineError, *MALFORMED) as error:
            self._ended = error
        self._woken.set()

    def _on_event(self, event: Mapping[str, Any]) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        self._expected_by = None
        try:
            text = self._reason(event)
        except MALFORMED:
            # An event in an undocumented format still means that something happened.
            text = "an event that can't be read"
        if not text:
            return
        if len(self._texts) < _MOST_TEXTS:
            self._texts[text] = None
        self._woken.set()

    def _reason(self, event: Mapping[str, Any]) -> str:
        """Return why to observe again because of this event; empty if it does not concern the stack."""
        kind, action = event.get("Type", ""), event.get("Action", "")
        actor = event.get("Actor") or {}
        attributes = actor.get("Attributes") or {}
        if kind == "image":
            self._observer.invalidate_images()
            return f"image {action} {attributes.get('name', '')}".rstrip()
        if kind == "network":
            # Podman has no such attribute: there the event's id and name are those of the container.
            attached = attributes.get("container", "") or actor.get("ID", "")
            known = self._observer.is_known(attached) or self._observer.named(attributes.get("name", ""))
            attached = known.id if known else attached
            self._observer.invalidate(attached)
            return f"network {action} {known.name}" if known and not self._observer.is_held(attached) else ""
        moved, name = actor.get("ID", ""), attributes.get("name", "")
        if action in {"kill", "stop"} and (not self._note_stop(event, moved, attributes) or action == "kill"):
            # The end of the process follows as an event of its own.
            return ""
        self._observer.invalidate(moved)
        if action == "oom":
            self._observer.note_starved(moved, event.get("timeNano", 0) / 1e9)
        if self._observer.is_held(moved):
            # The effect of our own command, which must not be shown before it is done; its end causes a pass.
            died = action == "die" and self._observer.note_exit(moved, *_end_of(event, attributes))
            return f"container {action} {name}" if died else ""
        # The engine writes the former name with a leading slash, and the new one without.
        names = {name, attributes.get("oldName", "").removeprefix("/")}
        # Podman's events have no labels.
        ours = attributes.get(PROJECT) == self._stack.name or self._observer.is_known(moved)
        concerns = ours or self._names & names
        return f"container {action} {name}" if concerns else ""


def _end_of(event: Mapping[str, Any], attributes: Mapping[str, Any]) -> tuple[float, int]:
    code = str(attributes.get("exitCode", ""))
    return event.get("timeNano", 0) / 1e9, int(code) if code.isdecimal() else 0


async def pull_image(
    http: DockerHttp, image: str, platform: str, credentials: Mapping[str, str], quiet: float
) -> str:
    """Pull one image; return the problem, or an empty string. Cancelling ends the pull in the engine.

    Raises:
        EngineUnavailable: the engine does not answer.
        OutcomeUnknown: no progress for ``quiet`` seconds.
    """
    repository, tag = repository_and_tag(image)
    query = {"fromImage": repository, "tag": tag, **({"platform": platform} if platform else {})}
    problem = ""
    loop = asyncio.get_running_loop()
    try:
        async with (
            asyncio.timeout(quiet) as patience,
            http.stream("POST", "/images/create", {}, credentials, within=quiet, **query) as reply,
            aclosing(lines_of(reply.chunks())) as lines,
        ):
            async for line in lines:
                patience.reschedule(loop.time() + quiet)
                # Read to the end: only then is the image complete in the engine.
                problem = _problem_in(line) or problem
    except TimeoutError as error:
        raise OutcomeUnknown(f"the pull of {image} made no progress for {quiet:.0f} s") from error
    except Refused as error:
        return str(error)
    return problem


def _problem_in(line: bytes) -> str:
    """Return the problem in a line of a pull; empty for progress, or if the line is not JSON."""
    try:
        return str(json.loads(line).get("error") or "")
    except MALFORMED:
        return ""


async def lines_of(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Split chunks into lines, without line ends; a line of more than 1 MiB is cut."""
    rest = bytearray()
    async for chunk in chunks:
        first, newline, others = chunk.partition(b"\n")
        rest += first
        if newline:
            yield bytes(rest)
            *whole, last = others.split(b"\n")
            for line in whole:
                yield line
            rest = bytearray(last)
        if len(rest) > _LONGEST_LINE:
            yield bytes(rest)
            rest.clear()
    if rest:
        yield bytes(rest)
