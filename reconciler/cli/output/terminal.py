"""Draws on a terminal: lines redrawn in place, or the whole screen.

A frame is one write, each line is cut to the current width, and text is overwritten without being erased
first, so nothing flickers. Uses no library, thread or signal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TextIO

from reconciler.cli.console import Cell, clip, styled, terminal_size, width_of

Line = Sequence[Cell]
Size = tuple[int, int]

_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"
"""Synchronized output: terminals that support it show the whole frame at once, others ignore it."""
_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"
_CLEAR_LINE, _CLEAR_BELOW = "\x1b[K", "\x1b[J"
_ALTERNATE, _NORMAL = "\x1b[?1049h", "\x1b[?1049l"


def fit_to_width(line: Line, width: int, *, colour: bool) -> tuple[str, int]:
    """Return the line cut to ``width`` columns, and its width."""
    parts, used = [], 0
    for text, style in line:
        shown = clip(text, width - used)
        used += width_of(shown)
        parts.append(styled(shown, style if colour else ""))
        if shown != text:
            break
    return "".join(parts), used


class InlineArea:
    """Lines below the previous output, redrawn in place."""

    def __init__(
        self, stream: TextIO, *, colour: bool, size: Callable[[TextIO], Size] = terminal_size
    ) -> None:
        self._stream = stream
        self._colour = colour
        self._size = size
        self._widths: list[int] = []
        self._shown: tuple[Size, list[str]] | None = None
        self._open = False

    def draw(self, lines: Sequence[Line]) -> None:
        """Replace the lines of the previous call; show as many as fit on the terminal."""
        size = self._size(self._stream)
        columns, rows = size
        # The last column stays free: after a full line, terminals put the cursor at different places.
        fits = [
            fit_to_width(line, max(1, columns - 1), colour=self._colour)
            for line in lines[-max(1, rows - 1) :]
        ]
        texts = [text for text, _ in fits]
        if self._shown == (size, texts):
            return
        frame = [_BEGIN, "" if self._open else _HIDE, self._to_top(columns)]
        frame.append("\r\n".join(text + _CLEAR_LINE for text in texts))
        frame += [_CLEAR_BELOW, _END]
        # Set before the write: after an interrupt, `close` must show the cursor again.
        self._open = True
        self._widths = [width for _, width in fits]
        self._shown = (size, texts)
        self._stream.write("".join(frame))
        self._stream.flush()

    def _to_top(self, columns: int) -> str:
        # On a narrower terminal the old lines have wrapped and take more rows.
        rows = sum(max(1, -(-width // columns)) for width in self._widths)
        return "\r" + (f"\x1b[{rows - 1}A" if rows > 1 else "")

    def close(self) -> None:
        """Keep the last frame and move the cursor below it."""
        if self._open:
            self._stream.write("\r\n" + _SHOW)
            self._stream.flush()
            self._open, self._shown, self._widths = False, None, []


class FullScreen:
    """The whole terminal; its content is restored at the end."""

    def __init__(
        self, stream: TextIO, *, colour: bool, size: Callable[[TextIO], Size] = terminal_size
    ) -> None:
        self._stream = stream
        self._colour = colour
        self._size = size
        self._shown: tuple[Size, list[str]] | None = None

    @property
    def size(self) -> Size:
        """The current columns and rows."""
        return self._size(self._stream)

    def __enter__(self) -> FullScreen:
        self._stream.write(_ALTERNATE + _HIDE)
        self._stream.flush()
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.write(_SHOW + _NORMAL)
        self._stream.flush()

    def draw(self, lines: Sequence[Line]) -> None:
        """Show these lines from the top; cut what does not fit."""
        size = self.size
        columns, rows = size
        texts = [fit_to_width(line, max(1, columns - 1), colour=self._colour)[0] for line in lines[:rows]]
        if self._shown == (size, texts):
            return
        body = "\r\n".join(text + _CLEAR_LINE for text in texts)
        self._stream.write(f"{_BEGIN}\x1b[H{body}{_CLEAR_BELOW}{_END}")
        self._stream.flush()
        self._shown = (size, texts)
