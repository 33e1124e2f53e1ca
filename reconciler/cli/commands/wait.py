"""Shows the progress of a generation until it ends: live on a terminal, otherwise a line per event."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from reconciler.cli.client import Client, ClientError
from reconciler.cli.console import Console, clean
from reconciler.cli.event_feed import EventFeed, FeedItem
from reconciler.cli.output.progress_rows import ProgressNarrator, is_finished
from reconciler.cli.output.status_rows import JsonObject, mapping

CONVERGED, FAILED, TIMED_OUT, INTERRUPTED = 0, 1, 3, 130
"""Exit codes of commands that change desired state."""
TIMEOUT_MESSAGE = "not converged in time; the change continues, `service-manager watch` shows it"
_TICK = 0.25
_NAME_WIDTH = 24
"""Columns for the name of a service; a longer name shifts its line."""


class WaitResult(NamedTuple):
    """The result of ``follow``: ``state`` is that of the progress, or ``timeout``."""

    state: str
    progress: JsonObject
    generation: int


class View(Protocol):
    """Shows the progress of a generation."""

    def update(self, progress: JsonObject, status: JsonObject, passed: float) -> None:
        """Show new data; ``passed`` is in seconds since the start of watching."""

    def tick(self, passed: float) -> None:
        """Update elapsed times, without new data."""

    def say(self, text: str, passed: float) -> None:
        """Show a message of the client itself."""

    def close(self) -> None:
        """End the view."""


class NullView:
    """Shows nothing, for JSON output."""

    def update(self, progress: JsonObject, status: JsonObject, passed: float) -> None:
        """See ``View``."""

    def tick(self, passed: float) -> None:
        """See ``View``."""

    def say(self, text: str, passed: float) -> None:
        """See ``View``."""

    def close(self) -> None:
        """See ``View``."""


class LineView:
    """One line per event, with the seconds since the start."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._narrator = ProgressNarrator()

    def update(self, progress: JsonObject, status: JsonObject, passed: float) -> None:
        """See ``View``."""
        for service, text in self._narrator.news(progress, status):
            self._console.print(f"{passed:7.1f}s  {clean(service):{_NAME_WIDTH}}  {text}")
        self._console.out.flush()

    def tick(self, passed: float) -> None:
        """See ``View``."""

    def say(self, text: str, passed: float) -> None:
        """See ``View``."""
        self._console.print(f"{passed:7.1f}s  {clean(text)}")
        self._console.out.flush()

    def close(self) -> None:
        """See ``View``."""


def view_for(console: Console, output: str) -> View:
    """Return the view for this output format and console."""
    if output == "json":
        return NullView()
    if not console.can_redraw:
        return LineView(console)
    from reconciler.cli.output.live_view import LiveView

    return LiveView(console)


def follow_change(
    client: Client, answer: JsonObject, console: Console, *, output: str, timeout: float, revert: str = ""
) -> WaitResult | None:
    """Show the generation of an accepted change until it ends; None after Ctrl-C, which is reported.

    ``timeout`` is in seconds; ``revert`` is the command that reverts the change.

    Raises:
        ClientError: the answer has no generation, or the daemon refuses a request.
    """
    generation = answer.get("generation")
    if not isinstance(generation, int):
        raise ClientError("the response of the daemon has no generation", "check the version of the daemon")
    try:
        return follow(client, generation, view_for(console, output), timeout=timeout)
    except KeyboardInterrupt:
        console.error(
            "Stopped watching. The change continues; `service-manager status` shows its progress"
            + (f", `service-manager {revert}` reverts it." if revert else ".")
        )
        return None


def follow(
    client: Client,
    generation: int,
    view: View,
    *,
    timeout: float,
    clock: Callable[[], float] = time.monotonic,
) -> WaitResult:
    """Show a generation until it ends, or for ``timeout`` seconds. Switches to newer generations.

    Raises:
        ClientError: the daemon refuses the request. If the daemon is unreachable, this retries.
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    news: queue.SimpleQueue[FeedItem] = queue.SimpleQueue()
    feed = EventFeed(client, news.put, generation)
    feed.start()
    try:
        return _Follower(feed, news, view, generation, clock).run(timeout)
    finally:
        feed.stop()
        view.close()


class _Follower:
    def __init__(
        self,
        feed: EventFeed,
        news: queue.SimpleQueue[FeedItem],
        view: View,
        generation: int,
        clock: Callable[[], float],
    ) -> None:
        self._feed = feed
        self._news = news
        self._view = view
        self._generation = generation
        self._clock = clock
        self._began = clock()
        self._progress: JsonObject = {"generation": generation}
        self._status: JsonObject = {}

    def run(self, timeout: float) -> WaitResult:
        while True:
            passed = self._clock() - self._began
            if passed >= timeout:
                return WaitResult("timeout", self._progress, self._generation)
            try:
                news = self._news.get(timeout=min(_TICK, timeout - passed))
            except queue.Empty:
                self._view.tick(self._clock() - self._began)
                continue
            if self._process(news):
                return WaitResult(str(self._progress["state"]), self._progress, self._generation)

    def _process(self, news: FeedItem) -> bool:
        """Process one item; return True when the generation has ended."""
        passed = self._clock() - self._began
        if news.kind == "failed":
            raise news.value
        if news.kind == "lost":
            self._view.say(f"{news.value}; waiting for the daemon", passed)
            return False
        value = mapping(news.value)
        if news.kind == "status":
            self._status = value
            value = mapping(value.get("progress"))
        if not self._is_current(value):
            self._view.update(self._progress, self._status, passed)
            return False
        self._progress = value
        self._view.update(self._progress, self._status, passed)
        return is_finished(value)

    def _is_current(self, progress: JsonObject) -> bool:
        number = progress.get("generation")
        if not isinstance(number, int) or number < self._generation:
            return False
        if number > self._generation:
            # Another change was accepted in between; its generation includes the change that is followed.
            self._generation = self._feed.generation = number
            passed = self._clock() - self._began
            self._view.say(f"desired state has changed again; following generation {number}", passed)
        # After "superseded", the progress of the newer generation follows.
        return progress.get("state") != "superseded"
