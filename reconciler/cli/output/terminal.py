"""Draws on a terminal with rich: lines redrawn in place, or the whole screen.

A frame is one write, and an unchanged frame is not written again, so nothing flickers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.live import Live
from rich.segment import Segment, Segments

from reconciler.cli.console import terminal_size
from reconciler.cli.output.tables import drawing_console

Size = tuple[int, int]

_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"
"""Synchronized output: terminals that support it show the whole frame at once, others ignore it."""


class _WholeFrames:
    """A stream for rich, which writes a frame at a time."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(f"{_BEGIN}{text}{_END}")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Area:
    """Shared by both kinds of drawing: knows the terminal's size and draws changed frames only."""

    def __init__(
        self, stream: TextIO, *, colour: bool, size: Callable[[TextIO], Size] = terminal_size
    ) -> None:
        self._stream = stream
        self._size = size
        self._shown: tuple[Size, list[list[Segment]]] | None = None
        self._console: Console = drawing_console(_WholeFrames(stream), width=80, colour=colour)  # type: ignore[arg-type]

    @property
    def size(self) -> Size:
        """The current columns and rows."""
        return self._size(self._stream)

    def _render(self, renderable: RenderableType) -> tuple[Size, list[list[Segment]]]:
        columns, rows = self.size
        # The last column stays free: after a full line, terminals put the cursor at different places.
        self._console.size = (max(1, columns - 1), max(1, rows))
        return (columns, rows), self._console.render_lines(renderable, pad=False)


class InlineArea(_Area):
    """Lines below the previous output, redrawn in place."""

    _live: Live | None = None

    def draw(self, renderable: RenderableType) -> None:
        """Replace what the previous call drew. If not all lines fit on the terminal, show the last ones."""
        size, lines = self._render(renderable)
        lines = lines[-max(1, size[1] - 1) :]
        if self._shown == (size, lines):
            return
        if self._shown:
            self._forget_wrapped_rows(size[0])
        self._shown = (size, lines)
        frame = Segments([part for line in lines for part in (*line, Segment.line())][:-1])
        if self._live is None:
            self._live = Live(
                console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
            )
            self._live.start()
        self._live.update(frame, refresh=True)

    def _forget_wrapped_rows(self, columns: int) -> None:
        """Erase the previous frame if the terminal became narrower and its lines wrap; rich does not."""
        assert self._shown
        lines = self._shown[1]
        rows = sum(max(1, -(-Segment.get_line_length(line) // columns)) for line in lines)
        if rows > len(lines):
            self._stream.write(f"\r\x1b[{rows - 1}A\x1b[J" + "\n" * (len(lines) - 1))

    def close(self) -> None:
        """Keep the last frame and move the cursor below it."""
        if self._live:
            self._live.stop()
            self._live, self._shown = None, None


class FullScreen(_Area):
    """The whole terminal; its content is restored at the end."""

    def __enter__(self) -> FullScreen:
        self._live = Live(
            console=self._console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def draw(self, renderable: RenderableType) -> None:
        """Show ``renderable`` from the top of the screen; cut what does not fit."""
        shown = self._render(renderable)
        if self._shown != shown:
            self._shown = shown
            self._live.update(renderable, refresh=True)
