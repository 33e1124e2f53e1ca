"""``watch``: shows the stack as it changes: full screen on a terminal, otherwise a line per change."""

from __future__ import annotations

import contextlib
import os
import queue
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.cli.connection import Connection
from reconciler.cli.console import Console, clean
from reconciler.cli.event_feed import EventFeed, FeedItem
from reconciler.cli.output.status_rows import (
    JsonObject,
    groups_of,
    headline,
    mapping,
    mistake,
    service_drift,
    service_state,
    word_for_switch,
)

_TICK = 1.0


def watch(console: Console, *, connection: Connection) -> int:
    """Show the stack until q or Ctrl-C."""
    client = connection.open()
    # Make the first request before the screen is cleared, so that an error of it stays readable.
    first = mapping(client.get("/services/status"))
    news: queue.SimpleQueue[FeedItem] = queue.SimpleQueue()
    woken, wake = os.pipe()

    def put(item: FeedItem) -> None:
        news.put(item)
        with contextlib.suppress(OSError):
            os.write(wake, b".")

    feed = EventFeed(client, put)
    feed.start()
    try:
        if console.can_redraw and sys.stdin.isatty():
            _on_screen(console, first, news, woken)
        else:
            _in_lines(console, first, news)
    except KeyboardInterrupt:
        return 0
    finally:
        feed.stop()
        os.close(woken)
    return 0


# --- a line per change ------------------------------------------------------------------------------


def _in_lines(console: Console, first: JsonObject, news: queue.SimpleQueue[FeedItem]) -> None:
    before = watched_values(first)
    for key, value in before.items():
        console.print(f"{_clock()}  {key}: {value}")
    console.out.flush()
    while True:
        item = news.get()
        if item.kind == "failed":
            raise item.value
        after = before | {"daemon": str(item.value)} if item.kind == "lost" else before
        if item.kind == "status":
            after = watched_values(mapping(item.value))
        for key in [*before, *(key for key in after if key not in before)]:
            if before.get(key) != after.get(key):
                console.print(f"{_clock()}  {key}: {after.get(key, 'gone')}")
        console.out.flush()
        before = after


def _clock() -> str:
    return time.strftime("%H:%M:%S")


def watched_values(status: JsonObject) -> dict[str, str]:
    """Return the values whose changes are printed, by key; not memory and uptime, which always change."""
    values = {"daemon": "answers"}
    engine = mapping(status.get("engine"))
    values["engine"] = (
        "reachable" if engine.get("reachable", True) else clean(f"unreachable {engine.get('error') or ''}")
    )
    values["stack"] = ", ".join(cell.text for cell in headline(status)[1:3])
    values["files"] = "; ".join(mistake(error) for error in status.get("errors") or ()) or "valid"
    for name, group in groups_of(status).items():
        phase, message = clean(group.get("phase") or ""), clean(group.get("message") or "")
        values[f"group {name}"] = f"{word_for_switch(group.get('desired'))}, {phase}" + (
            f": {message}" if message and phase != "converged" else ""
        )
        for service in group.get("services") or ():
            drift = ", ".join(service_drift(service))
            values[f"service {clean(service.get('name', '?'))}"] = service_state(service) + (
                f", differs: {clean(drift)}" if drift else ""
            )
    return values


# --- full screen ------------------------------------------------------------------------------------


def _on_screen(console: Console, first: JsonObject, news: queue.SimpleQueue[FeedItem], woken: int) -> None:
    # Line mode does not load rich.
    from reconciler.cli.output.status_page import render_page
    from reconciler.cli.output.terminal import FullScreen

    status, lost = first, ""
    with _single_keys() as keyboard, FullScreen(console.out, colour=console.colour) as screen:
        while True:
            screen.draw(render_page(status, screen.size[1], lost))
            ready, _, _ = select.select([keyboard, woken], [], [], _TICK)
            if woken in ready:
                os.read(woken, 4096)
            if keyboard in ready and os.read(keyboard, 64)[:1] in {b"q", b"Q", b"\x03", b""}:
                return
            while not news.empty():
                item = news.get()
                if item.kind == "failed":
                    raise item.value
                lost = str(item.value) if item.kind == "lost" else ""
                status = mapping(item.value) if item.kind == "status" else status


@contextmanager
def _single_keys() -> Iterator[int]:
    """Read single keys without echo; restore the terminal at the end, also after SIGTERM."""
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    handler = signal.signal(signal.SIGTERM, _interrupted)
    try:
        tty.setcbreak(keyboard)
        yield keyboard
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
        signal.signal(signal.SIGTERM, handler)


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt
