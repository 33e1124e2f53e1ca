"""Receives events from the daemon in a thread, from its event stream or by polling.

Items go to a queue, so that the command's own loop can also watch the clock and the keyboard. A stream that
breaks off is reopened; a daemon without a stream is polled.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from reconciler.cli.client import Client, ClientError, Refused, UnexpectedServer, Unreachable

_EVENTS = "/services/events"
_STATUS = "/services/status"
_NO_STREAM = frozenset({404, 405, 406, 501})
_RETRY_PAUSE = 1.0
"""Seconds before the next attempt after an error, and between two polls."""
_POLL_PAUSE = 0.2
"""Seconds between two polls if the daemon delays its response itself."""
_IDLE_TIMEOUT = 45.0
"""Seconds without an event until the stream counts as lost; the daemon sends comments more often."""


class FeedItem(NamedTuple):
    """One item. ``kind`` says what ``value`` is:

    - ``status``, ``progress``: a response of the daemon;
    - ``lost``: a ``ClientError``; the feed tries again;
    - ``failed``: a ``ClientError`` that ends the feed.
    """

    kind: str
    value: Any


class EventFeed(threading.Thread):
    """Follows a daemon's status. With ``generation``: also its progress, and that of newer generations."""

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
        """Put no further item. The thread ends at its next wake-up, or with the process."""
        self._stop.set()

    def run(self) -> None:
        """Put items until stopped, or until an error that a retry can't fix."""
        while not self._stop.is_set():
            try:
                if self._streaming:
                    self._stream()
                else:
                    self._poll()
            except ClientError as error:
                if _is_transient(error):
                    self._emit("lost", error)
                    self._stop.wait(_RETRY_PAUSE)
                    continue
                if not self._switch_to_polling(error):
                    self._emit("failed", error)
                    return
                continue
            else:
                if not self._streaming and self.generation is not None:
                    # The daemon has delayed its response already.
                    self._stop.wait(_POLL_PAUSE)
                    continue
            self._stop.wait(_RETRY_PAUSE)

    def _switch_to_polling(self, error: ClientError) -> bool:
        if not self._streaming:
            return False
        self._streaming = not (
            isinstance(error, UnexpectedServer) or (isinstance(error, Refused) and error.status in _NO_STREAM)
        )
        return not self._streaming

    def _stream(self) -> None:
        with self._client.events(_EVENTS, last_id=self._last_id, idle_timeout=_IDLE_TIMEOUT) as events:
            # Request the state after the stream is open, so that no event is lost between the two.
            self._request_state()
            for event in events:
                if self._stop.is_set():
                    return
                self._last_id = event.id or self._last_id
                if event.name in {"status", "progress"}:
                    self._emit(event.name, event.value)

    def _poll(self) -> None:
        self._request_state(wait=1)

    def _request_state(self, wait: int = 0) -> None:
        if self.generation is not None:
            path = f"/services/progress/{self.generation}"
            self._emit("progress", self._client.get(path, {"wait": wait} if wait else None))
        self._emit("status", self._client.get(_STATUS))

    def _emit(self, kind: str, value: Any) -> None:
        if not self._stop.is_set():
            self._put(FeedItem(kind, value))


def _is_transient(error: ClientError) -> bool:
    """Return whether a retry may succeed: the daemon is unreachable, shutting down or rate-limiting."""
    if isinstance(error, Refused):
        return error.status == 429 or (error.status >= 500 and error.status not in _NO_STREAM)
    return isinstance(error, Unreachable)
