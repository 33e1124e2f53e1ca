"""The engine's own events, recorded independently of both sides."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from docker import APIClient

from tests.support.harness.private_engine import PrivateEngine


class EventRecorder:
    """Keeps (time, action, container name); the time is the engine's, in wall seconds."""

    def __init__(
        self, engine: PrivateEngine, heard: Callable[[str, str, str], None] = lambda *_: None
    ) -> None:
        self.events: list[tuple[float, str, str]] = []
        self._heard = heard
        self._client: APIClient = engine.client
        self._changed = threading.Condition()
        self._stream = self._client.events(decode=True, filters={"type": "container"})
        threading.Thread(target=self._listen, daemon=True).start()
        # The subscription is active when the response has started; the SDK returns only then.

    def __enter__(self) -> EventRecorder:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._client.close()

    def first(self, action: str, name: str, since: float, within: float = 30.0) -> float:
        """When the container first did this after ``since`` (wall)."""
        deadline = time.monotonic() + within
        with self._changed:
            while time.monotonic() < deadline:
                for at, what, who in self.events:
                    if who == name and what == action and at >= since:
                        return at
                self._changed.wait(0.2)
        raise RuntimeError(f"no {action} of {name} within {within:.0f} s")

    def _listen(self) -> None:
        try:
            for event in self._stream:
                self._hear(event)
        except Exception:  # noqa: BLE001 - closing the stream under the SDK raises various errors
            return

    def _hear(self, event: Mapping[str, Any]) -> None:
        actor = event["Actor"]
        name, action = actor["Attributes"].get("name", ""), event["Action"]
        self._heard(action, name, actor["ID"])
        with self._changed:
            self.events.append((event["timeNano"] / 1e9, action, name))
            self._changed.notify_all()
