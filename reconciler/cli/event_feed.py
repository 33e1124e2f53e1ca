"""News from the daemon in a thread of its own: the stream of events, or asking again and again.

What comes is put where the command's own loop picks it up, so that it can also look at the clock and
the keyboard. The stream is opened anew whenever it breaks off; a daemon without one is polled.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from reconciler.cli.client import Client, ClientError, Refused, UnexpectedServer, Unreachable

_EVENTS = "/services/events"
_STATUS = "/services/status"
_NO_STREAM = frozenset({404, 405, 406, 501})
_AGAIN_AFTER = 1.0
"""Seconds before a lost daemon is asked again, and between two polls."""
_SHORT = 0.2
_QUIET = 45.0
"""Seconds that a stream may say nothing; the daemon sends a comment well within."""


class FeedItem(NamedTuple):
    """``kind`` is status or progress (an answer), lost (an error, being mended) or failed (the end)."""

    kind: str
    value: Any


class EventFeed(threading.Thread):
    """Follows a daemon. With a generation: its progress too, also of those that overtake it."""

    def __init__(
        self, client: Client, put: Callable[[FeedItem], None], generation: int | None = None
    ) -> None:
        super().__init__(name="feed", daemon=True)
        self.generation = generation
        self._client = client
        self._put = put
        self._stop = threading.Event()
        self._streaming = True
        self._last_id = ""

    def stop(self) -> None:
        """Nothing more is put. The thread ends by itself, with the process at the latest."""
        self._stop.set()

    def run(self) -> None:
        """Runs until stopped, or until the daemon says no for good."""
        while not self._stop.is_set():
            try:
                if self._streaming:
                    self._stream()
                else:
                    self._poll()
            except ClientError as error:
                if _passing(error):
                    self._tell("lost", error)
                    self._stop.wait(_AGAIN_AFTER)
                    continue
                if not self._without_stream(error):
                    self._tell("failed", error)
                    return
                continue
            else:
                if not self._streaming and self.generation is not None:
                    # Its answer was waited for already.
                    self._stop.wait(_SHORT)
                    continue
            self._stop.wait(_AGAIN_AFTER)

    def _without_stream(self, error: ClientError) -> bool:
        if not self._streaming:
            return False
        self._streaming = not (
            isinstance(error, UnexpectedServer) or (isinstance(error, Refused) and error.status in _NO_STREAM)
        )
        return not self._streaming

    def _stream(self) -> None:
        with self._client.events(_EVENTS, last_id=self._last_id, quiet=_QUIET) as events:
            # Asked only now that the stream stands, so that nothing falls between the two.
            self._ask()
            for event in events:
                if self._stop.is_set():
                    return
                self._last_id = event.id or self._last_id
                if event.name in {"status", "progress"}:
                    self._tell(event.name, event.value)

    def _poll(self) -> None:
        self._ask(wait=1)

    def _ask(self, wait: int = 0) -> None:
        if self.generation is not None:
            path = f"/services/progress/{self.generation}"
            self._tell("progress", self._client.get(path, {"wait": wait} if wait else None))
        self._tell("status", self._client.get(_STATUS))

    def _tell(self, kind: str, value: Any) -> None:
        if not self._stop.is_set():
            self._put(FeedItem(kind, value))


def _passing(error: ClientError) -> bool:
    """Whether the daemon may well answer in a moment: it is away, going down, or asked too often."""
    if isinstance(error, Refused):
        return error.status == 429 or (error.status >= 500 and error.status not in _NO_STREAM)
    return isinstance(error, Unreachable)
