"""Records the engine's own events, independent of the daemon."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from docker import APIClient
from docker.errors import DockerException, NotFound

from tests.support.harness.private_engine import PrivateEngine

T = TypeVar("T")
PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
TOUCHES = ("create", "start", "stop", "kill", "die", "pause", "unpause", "destroy", "rename", "update")


class Event(NamedTuple):
    """One event; ``at`` is the engine's own wall clock, ``service`` Compose's label."""

    at: float
    kind: str
    action: str
    id: str
    name: str
    service: str
    project: str


class EngineRecorder:
    """Records every event from its start on; reconnects after the engine was away."""

    def __init__(self, engine: PrivateEngine) -> None:
        self._engine = engine
        self.client = engine.client
        self.events: list[Event] = []
        self.changed = threading.Condition()
        self._ending = False
        self._listening = threading.Event()
        self._stream: Any = None
        self._numbers = itertools.count(1)
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> EngineRecorder:
        self._thread.start()
        assert self._listening.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._ending = True
        self._hang_up()
        self._thread.join(5)
        self.client.close()

    # --- events ---

    def mark(self) -> int:
        """A position in the record, after everything that happened until now."""
        self._catch_up()
        return len(self.events)

    def since(self, mark: int, *, catch_up: bool = True) -> list[Event]:
        """All events since that position."""
        if catch_up:
            self._catch_up()
        return self.events[mark:]

    def touched(self, mark: int, project: str = "") -> list[Event]:
        """Container events since that position: all, or those of a project."""
        return [
            event
            for event in self.since(mark)
            if event.kind == "container"
            and event.action in TOUCHES
            and (not project or event.project == project)
        ]

    def count(self, mark: int, action: str, service: str) -> int:
        """How often this event occurred for a service since that position."""
        return sum(e.action == action and e.service == service for e in self.touched(mark))

    def until(self, good: Callable[[Event], Any], *, since: int, within: float = 20.0) -> Event:
        """Wait for an event."""
        deadline = time.monotonic() + within
        at = since
        while True:
            seen = len(self.events)
            found = next((event for event in self.events[at:seen] if good(event)), None)
            if found is not None:
                return found
            at = seen
            left = deadline - time.monotonic()
            assert left > 0, f"no such event in {within:g} s; there were {self.events[since:]}"
            with self.changed:
                if len(self.events) == at:
                    self.changed.wait(min(left, 0.5))

    def look_until(self, look: Callable[[], T], good: Callable[[T], Any], within: float = 20.0) -> T:
        """Inspect after each event (and at intervals) until the condition holds."""
        deadline = time.monotonic() + within
        while True:
            seen = len(self.events)
            try:
                found = look()
            except NotFound as error:
                found, answer = error, False  # type: ignore[assignment]
            else:
                answer = good(found)
            if answer:
                return found
            left = deadline - time.monotonic()
            assert left > 0, f"not in {within:g} s: {found}"
            with self.changed:
                if len(self.events) == seen:
                    self.changed.wait(min(left, 0.25))

    # --- state ---

    def containers(self, project: str) -> list[dict[str, Any]]:
        """Inspections of all containers of a project."""
        return self.inspect(self.client.containers(all=True, filters={"label": f"{PROJECT}={project}"}))

    def all_containers(self) -> list[dict[str, Any]]:
        """Inspections of everything on the engine."""
        return self.inspect(self.client.containers(all=True))

    def inspect(self, entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Inspect the containers of a list, without those removed in between."""
        found = []
        for entry in entries:
            with contextlib.suppress(NotFound):
                found.append(self.client.inspect_container(entry["Id"]))
        return found

    # --- reading ---

    def _catch_up(self) -> None:
        """Send a sentinel through the stream: everything before it has been recorded."""
        at, sent = len(self.events), set[str]()
        deadline = time.monotonic() + 20.0
        while True:
            # An event before the reconnect to a restarted engine is missed.
            name = f"sentinel-{next(self._numbers)}"
            sent.add(name)
            self.client.create_volume(name)
            try:
                self.until(lambda event: event.kind == "volume" and event.id in sent, since=at, within=1.0)
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
            else:
                return
            finally:
                self.client.remove_volume(name)

    def _listen(self) -> None:
        while not self._ending:
            client = APIClient(base_url=self._engine.host, version="1.41", timeout=None)
            try:
                self._stream = client.events(decode=True)
                self._listening.set()
                for event in self._stream:
                    self._note(event)
            except (DockerException, OSError, ValueError, AttributeError):
                pass
            except Exception:
                if not self._ending:
                    raise
            finally:
                self._hang_up()
                client.close()
            with self.changed:
                self.changed.wait(0.05)

    def _hang_up(self) -> None:
        # If the stream ended already, the SDK raises and leaves the socket open.
        stream = self._stream
        if stream is not None:
            with contextlib.suppress(Exception):
                stream.close()
            with contextlib.suppress(Exception):
                stream._response.close()

    def _note(self, event: dict[str, Any]) -> None:
        actor = event.get("Actor") or {}
        attributes = actor.get("Attributes") or {}
        event = Event(
            event.get("timeNano", 0) / 1e9,
            str(event.get("Type", "")),
            str(event.get("Action", "")).partition(":")[0],
            str(actor.get("ID", "")),
            str(attributes.get("name", "")),
            str(attributes.get(SERVICE, "")),
            str(attributes.get(PROJECT, "")),
        )
        with self.changed:
            self.events.append(event)
            self.changed.notify_all()
