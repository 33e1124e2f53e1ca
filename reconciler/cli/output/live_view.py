"""Draws the progress of a generation on a terminal: a line with a bar per service, then the total."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from reconciler.cli.console import Cell, Console, clean, duration, terminal_size
from reconciler.cli.output.progress_rows import Row, step_rows
from reconciler.cli.output.status_rows import JsonObject
from reconciler.cli.output.tables import line_of
from reconciler.cli.output.terminal import InlineArea
from reconciler.cli.output.time_format import unix_seconds

_LONGEST_NAME = 28
_BAR = 10
_WIDE = 60
"""Minimum columns of a terminal that shows bars."""


class LiveView:
    """A line per service, redrawn in place. See ``commands.wait.View``."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._area = InlineArea(console.out, colour=console.colour)
        self._progress: JsonObject = {}
        self._status: JsonObject = {}
        self._at = clock()
        self._note = ""

    def update(self, progress: JsonObject, status: JsonObject, passed: float) -> None:
        """Show new data; ``passed`` is in seconds since the start of watching."""
        if status is not self._status:
            self._at = self._clock()
        self._progress, self._status, self._note = progress, status, ""
        self.tick(passed)

    def tick(self, passed: float) -> None:
        """Update elapsed times, without new data."""
        width, height = terminal_size(self._console.out)
        rows = step_rows(self._progress, self._status, self._clock() - self._at)
        frame = render_frame(
            rows, self._progress, width=width, height=height, passed=passed, wall=time.time()
        )
        self._area.draw(Group(frame, line_of([Cell(self._note, "red")])) if self._note else frame)

    def say(self, text: str, passed: float) -> None:
        """Show a message of the client itself."""
        self._note = clean(text)
        self.tick(passed)

    def close(self) -> None:
        """End the view."""
        self._area.close()


def render_frame(
    rows: list[Row], progress: JsonObject, *, width: int, height: int, passed: float, wall: float
) -> RenderableType:
    """Return the live view of a generation: a line per service, then the total. Fits any size.

    ``passed`` is in seconds since the start of watching; ``wall`` is the current Unix time.
    """
    room = max(0, height - 2)
    tail = []
    if len(rows) > room:
        # Hide finished services; keep the order of the others.
        unfinished = [row for row in rows if row.share < 1.0][: max(0, room - 1)]
        tail = [line_of([Cell(f"  … and {len(rows) - len(unfinished)} more", "dim")])]
        rows = unfinished
    names = Table.grid(padding=(0, 2, 0, 0))
    names.add_column(no_wrap=True, max_width=2 + min(_LONGEST_NAME, max(4, width // 3)))
    for row in rows:
        bar = [_bar(row.share, row.style or "green")] if width >= _WIDE else []
        names.add_row(Text(f"  {row.service}"), *bar, Text(f"{row.word:9}", row.style), _remark(row))
    return Group(*([names] if rows else []), *tail, _total(progress, width, passed, wall))


def _bar(share: float, style: str) -> ProgressBar:
    return ProgressBar(
        total=1.0, completed=share, width=_BAR, style="dim", complete_style=style, finished_style=style
    )


def _remark(row: Row) -> Text:
    left = [f"~{duration(row.left)}"] if row.left is not None and row.left >= 1 else []
    return line_of(
        [Cell("  ".join([*left, row.note] if row.note else left), "" if row.style == "yellow" else row.style)]
    )


def _total(progress: JsonObject, width: int, passed: float, wall: float) -> RenderableType:
    state = clean(progress.get("state") or "progressing")
    style = {"converged": "bold", "degraded": "red"}.get(state, "yellow")
    cells = [Cell(state, style)]
    if progress.get("total"):
        cells.append(Cell(f"  {progress.get('done', 0)} of {progress['total']}"))
    expected = unix_seconds(progress.get("expected_at"))
    if state == "progressing" and expected is not None and expected - wall >= 1:
        cells.append(Cell(f"  ~{duration(expected - wall)} left"))
    cells.append(Cell(f"  {duration(passed)}", "dim"))
    line = Table.grid(padding=(0, 2, 0, 0))
    line.add_column(no_wrap=True)
    bar = [_bar(_number(progress.get("percent")) / 100, style)] if width >= _WIDE else []
    line.add_row(Text(f"generation {progress.get('generation', '?')}"), *bar, line_of(cells))
    return line


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
