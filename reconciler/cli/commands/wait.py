"""Follows a generation to its end and shows it: live on a terminal, a line per event elsewhere."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from reconciler.cli.client import Client, ClientError
from reconciler.cli.console import Console, clean, pad, terminal_size
from reconciler.cli.event_feed import EventFeed, FeedItem
from reconciler.cli.output.progress_rows import ProgressNarrator, is_finished, render_frame, step_rows
from reconciler.cli.output.status_rows import JsonObject, mapping
from reconciler.cli.output.terminal import InlineArea

_TICK = 0.25
_NAME = 24
"""Columns for the name of a service; a longer one only shifts its own line."""


class WaitResult(NamedTuple):
    """How the watching ended: ``state`` as the progress has it, or ``timeout``."""

    state: str
    progress: JsonObject
    generation: int


class View(Protocol):
    """Where a generation is shown."""

    def update(self, progress: JsonObject, status: JsonObject, passed: float) -> None:
        """Something is new; ``passed`` is seconds since the watching began."""

    def tick(self, passed: float) -> None:
        """Nothing is new, but time went on."""

    def say(self, text: str, passed: float) -> None:
        """A sentence from this side of the wire."""

    def close(self) -> None:
        """Nothing more comes."""


class NullView:
    """Shows nothing, for programs."""

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
        self._story = ProgressNarrator()

    def update(self, progress: JsonObject, status: JsonObject, passed: float) -> None:
        """See ``View``."""
        for service, text in self._story.news(progress, status):
            self._console.print(f"{passed:7.1f}s  {pad(clean(service), _NAME)}  {text}")
        self._console.out.flush()

    def tick(self, passed: float) -> None:
        """See ``View``."""

    def say(self, text: str, passed: float) -> None:
        """See ``View``."""
        self._console.print(f"{passed:7.1f}s  {clean(text)}")
        self._console.out.flush()

    def close(self) -> None:
        """See ``View``."""


class LiveView:
    """A line per service, redrawn in place."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._block = InlineArea(console.out, colour=console.colour)
        self._progress: JsonObject = {}
        self._status: JsonObject = {}
        self._at = clock()
        self._note = ""

    def update(self, progress: JsonObject, status: JsonObject, passed: float) -> None:
        """See ``View``."""
        if status is not self._status:
            self._at = self._clock()
        self._progress, self._status, self._note = progress, status, ""
        self.tick(passed)

    def tick(self, passed: float) -> None:
        """See ``View``."""
        width, height = terminal_size(self._console.out)
        rows = step_rows(self._progress, self._status, self._clock() - self._at)
        lines = render_frame(
            rows, self._progress, width=width, height=height, passed=passed, wall=time.time()
        )
        if self._note:
            from reconciler.cli.console import Cell

            lines.append([Cell(self._note, "red")])
        self._block.draw(lines)

    def say(self, text: str, passed: float) -> None:
        """See ``View``."""
        self._note = clean(text)
        self.tick(passed)

    def close(self) -> None:
        """See ``View``."""
        self._block.close()


def view_for(console: Console, output: str) -> View:
    """The view that fits where the output goes."""
    if output == "json":
        return NullView()
    return LiveView(console) if console.columns else LineView(console)


def follow(
    client: Client,
    generation: int,
    view: View,
    *,
    timeout: float,
    clock: Callable[[], float] = time.monotonic,
) -> WaitResult:
    """Show a generation until it ends, or for ``timeout`` seconds. One that is overtaken is followed on.

    Raises:
        ClientError: the daemon said no. A daemon that is away for a while is waited for.
        KeyboardInterrupt: the person has seen enough.
    """
    news: queue.SimpleQueue[FeedItem] = queue.SimpleQueue()
    feed = EventFeed(client, news.put, generation)
    feed.start()
    try:
        return _Following(feed, news, view, generation, clock).until_over(timeout)
    finally:
        feed.stop()
        view.close()


class _Following:
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

    def until_over(self, timeout: float) -> WaitResult:
        while True:
            passed = self._clock() - self._began
            if passed >= timeout:
                return WaitResult("timeout", self._progress, self._generation)
            try:
                news = self._news.get(timeout=min(_TICK, timeout - passed))
            except queue.Empty:
                self._view.tick(self._clock() - self._began)
                continue
            if self._take(news):
                return WaitResult(str(self._progress["state"]), self._progress, self._generation)

    def _take(self, news: FeedItem) -> bool:
        """Take in one piece of news; True: it is over."""
        passed = self._clock() - self._began
        if news.kind == "failed":
            raise _as_error(news.value)
        if news.kind == "lost":
            self._view.say(f"{news.value}; waiting for it to come back", passed)
            return False
        value = mapping(news.value)
        if news.kind == "status":
            self._status = value
            value = mapping(value.get("progress"))
        if not self._belongs(value):
            self._view.update(self._progress, self._status, passed)
            return False
        self._progress = value
        self._view.update(self._progress, self._status, passed)
        return is_finished(value)

    def _belongs(self, progress: JsonObject) -> bool:
        number = progress.get("generation")
        if not isinstance(number, int) or number < self._generation:
            return False
        if number > self._generation:
            # Somebody changed something else meanwhile; what we asked for is part of that too.
            self._generation = self._feed.generation = number
            passed = self._clock() - self._began
            self._view.say(f"desired state was changed again: going on with generation {number}", passed)
        # "Superseded" is no end of ours: the generation that overtook it is on its way to us.
        return progress.get("state") != "superseded"


def _as_error(value: Any) -> ClientError:
    return value if isinstance(value, ClientError) else ClientError(str(value))
