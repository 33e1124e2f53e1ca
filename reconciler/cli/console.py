"""Prints text, tables and JSON. Removes control characters. Standard library only."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TextIO

_STYLES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "amber": "33",
    "blue": "34",
}
_PHASE_STYLES = {
    "progressing": "amber",
    "waiting": "amber",
    "blocked": "red",
    "degraded": "red",
    "suspended": "blue",
}
_EIGHTHS = " ▏▎▍▌▋▊▉"


class Cell(NamedTuple):
    """One cell of a table."""

    text: str
    style: str = ""


Row = Sequence[Cell | str]


@dataclass(frozen=True, slots=True)
class Console:
    """The output of a command. ``columns`` is the width of the terminal; 0: no terminal, nothing is cut."""

    out: TextIO
    err: TextIO
    colour: bool = False
    err_colour: bool = False
    columns: int = 0

    @property
    def width(self) -> int:
        """Columns for wrapped text."""
        return self.columns or 100

    def print(self, text: str = "") -> None:
        """Print a line to standard output."""
        self.out.write(text + "\n")

    def error(self, text: str) -> None:
        """Print a line to standard error, after flushing standard output."""
        self.out.flush()
        self.err.write(text + "\n")
        self.err.flush()

    def failure(self, message: str, remedy: str = "") -> None:
        """Print an error and its remedy to standard error."""
        self.error(styled(clean(message), "red" if self.err_colour else ""))
        if remedy:
            self.error(f"  → {clean(remedy)}")

    def paint(self, text: str, style: str) -> str:
        """Return the text with the codes of a style if colour is on."""
        return styled(text, style if self.colour else "")

    def json(self, value: Any) -> None:
        """Print a value as JSON."""
        self.print(json.dumps(value, indent=2, ensure_ascii=False))

    def table(self, rows: Sequence[Row], right: Sequence[int] = ()) -> None:
        """Print rows in aligned columns; the first row is the header."""
        for line in table(rows, right=right, width=self.columns, colour=self.colour):
            self.print(line)


def standard_console(environ: Mapping[str, str] | None = None) -> Console:
    """The console of this process: colour only on a terminal, not with NO_COLOR or TERM=dumb."""
    variables = os.environ if environ is None else environ
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    colour = not variables.get("NO_COLOR") and variables.get("TERM") != "dumb"
    return Console(
        sys.stdout,
        sys.stderr,
        colour=colour and sys.stdout.isatty(),
        err_colour=colour and sys.stderr.isatty(),
        columns=terminal_size(sys.stdout)[0] if sys.stdout.isatty() else 0,
    )


def terminal_size(stream: TextIO) -> tuple[int, int]:
    """The current columns and rows of a terminal; 80 × 24 if unknown."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return 80, 24
    return size.columns or 80, size.lines or 24


def styled(text: str, style: str) -> str:
    """The text with the codes of a style; unchanged if the style is empty."""
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if style and text else text


def phase_style(phase: str) -> str:
    """The style of a phase; empty if the phase needs no attention."""
    return _PHASE_STYLES.get(phase, "")


def clean(text: object) -> str:
    """One line without control characters: texts come from containers and files."""
    return "".join(letter if _harmless(letter) else " " for letter in str(text)).strip()


def _harmless(letter: str) -> bool:
    return unicodedata.category(letter) not in {"Cc", "Cf", "Zl", "Zp", "Cs"}


def width_of(text: str) -> int:
    """The width of a text without style codes, in terminal columns."""
    if text.isascii():
        return len(text)
    return sum(_columns(letter) for letter in text)


def _columns(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def clip(text: str, width: int) -> str:
    """The text cut to ``width`` columns, with an ellipsis if it was cut."""
    if width_of(text) <= width:
        return text
    if width <= 0:
        return ""
    kept, used = [], 0
    for letter in text:
        used += _columns(letter)
        if used > width - 1:
            break
        kept.append(letter)
    return "".join(kept).rstrip() + "…"


def pad(text: str, width: int, *, right: bool = False) -> str:
    """The text padded with blanks to ``width`` columns."""
    blanks = " " * max(0, width - width_of(text))
    return blanks + text if right else text + blanks


def table(
    rows: Sequence[Row], *, right: Sequence[int] = (), width: int = 0, colour: bool = False
) -> list[str]:
    """Rows in columns with two blanks between them. ``right`` are the indexes of right-aligned columns.

    With ``width``, the last column is cut to fit. The others hold names and numbers and are never cut.
    """
    cells = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
    count = max((len(row) for row in cells), default=0)
    widths = [max((width_of(row[i].text) for row in cells if i < len(row)), default=0) for i in range(count)]
    lines = []
    for row in cells:
        parts, used = [], 0
        for index, cell in enumerate(row):
            text = cell.text
            last = index == len(row) - 1
            if last and width:
                text = clip(text, max(1, width - used))
            filled = text if last and index not in right else pad(text, widths[index], right=index in right)
            parts.append(styled(filled, cell.style if colour else ""))
            used += widths[index] + 2
        lines.append("  ".join(parts).rstrip())
    return lines


def bar(share: float, width: int) -> str:
    """A bar of ``width`` columns, filled to ``share`` (0 to 1), in steps of one eighth of a column."""
    share = min(1.0, max(0.0, share))
    eighths = round(share * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width, "░") if width > 0 else ""


def megabytes(value: object) -> str:
    """'612 MB' for 612.3; a dash if not measured."""
    return f"{value:.0f} MB" if isinstance(value, int | float) else "–"


def duration(seconds: object) -> str:
    """'45 s', '3 min', '2 h' or '5 d' for a number of seconds; a dash if unknown."""
    if not isinstance(seconds, int | float):
        return "–"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"
