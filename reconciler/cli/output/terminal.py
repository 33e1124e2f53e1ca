"""Drawing on a terminal: a block of lines redrawn in place, or the whole screen.

A frame is written in one piece, each line is cut to the width that the terminal has at that moment, and
nothing is erased before it is written over, so nothing flickers. No library, no thread, no signal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TextIO

from reconciler.cli.console import Cell, clip, styled, terminal_size, width_of

Line = Sequence[Cell]
Size = tuple[int, int]

_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"
"""Synchronized output: terminals that know it show the frame at once, others ignore it."""
_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"
_CLEAR_LINE, _CLEAR_BELOW = "\x1b[K", "\x1b[J"
_ALTERNATE, _NORMAL = "\x1b[?1049h", "\x1b[?1049l"


def fit_to_width(line: Line, width: int, *, colour: bool) -> tuple[str, int]:
    """A line cut to ``width`` columns, and how many of them it takes."""
    parts, used = [], 0
    for text, style in line:
        shown = clip(text, width - used)
        used += width_of(shown)
        parts.append(styled(shown, style if colour else ""))
        if shown != text:
            break
    return "".join(parts), used


class InlineArea:
    """Lines at the bottom of what was printed so far, redrawn in place."""

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
        """Show these lines instead of the last ones; as many as the terminal has room for."""
        size = self._size(self._stream)
        columns, rows = size
        # The last column stays free: a full line leaves the cursor where terminals disagree.
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
        # Noted first: whoever interrupts us in the middle has to give the cursor back.
        self._open = True
        self._widths = [width for _, width in fits]
        self._shown = (size, texts)
        self._stream.write("".join(frame))
        self._stream.flush()

    def _to_top(self, columns: int) -> str:
        # A terminal made narrower has wrapped the old lines: they take more rows than they did.
        rows = sum(max(1, -(-width // columns)) for width in self._widths)
        return "\r" + (f"\x1b[{rows - 1}A" if rows > 1 else "")

    def close(self) -> None:
        """Leave the last frame standing, the cursor below it."""
        if self._open:
            self._stream.write("\r\n" + _SHOW)
            self._stream.flush()
            self._open, self._shown, self._widths = False, None, []


class FullScreen:
    """The whole terminal, given back as it was at the end."""

    def __init__(
        self, stream: TextIO, *, colour: bool, size: Callable[[TextIO], Size] = terminal_size
    ) -> None:
        self._stream = stream
        self._colour = colour
        self._size = size
        self._shown: tuple[Size, list[str]] | None = None

    @property
    def size(self) -> Size:
        """Columns and rows at this moment."""
        return self._size(self._stream)

    def __enter__(self) -> FullScreen:
        self._stream.write(_ALTERNATE + _HIDE)
        self._stream.flush()
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.write(_SHOW + _NORMAL)
        self._stream.flush()

    def draw(self, lines: Sequence[Line]) -> None:
        """Show these lines from the top; what does not fit is left out."""
        size = self.size
        columns, rows = size
        texts = [fit_to_width(line, max(1, columns - 1), colour=self._colour)[0] for line in lines[:rows]]
        if self._shown == (size, texts):
            return
        body = "\r\n".join(text + _CLEAR_LINE for text in texts)
        self._stream.write(f"{_BEGIN}\x1b[H{body}{_CLEAR_BELOW}{_END}")
        self._stream.flush()
        self._shown = (size, texts)
