"""Printing: colour where it is wanted, tables that fit, texts that can do a terminal no harm. Stdlib only."""

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
    """Where a command prints. ``width`` is in columns; 0: not a terminal, so nothing is cut."""

    out: TextIO
    err: TextIO
    colour: bool = False
    err_colour: bool = False
    columns: int = 0

    @property
    def width(self) -> int:
        """Columns to lay text out for."""
        return self.columns or 100

    def print(self, text: str = "") -> None:
        """A line for standard output."""
        self.out.write(text + "\n")

    def error(self, text: str) -> None:
        """A line for standard error, after what was printed so far."""
        self.out.flush()
        self.err.write(text + "\n")
        self.err.flush()

    def failure(self, message: str, remedy: str = "") -> None:
        """What went wrong, and what to do about it, on standard error."""
        self.error(styled(clean(message), "red" if self.err_colour else ""))
        if remedy:
            self.error(f"  → {clean(remedy)}")

    def paint(self, text: str, style: str) -> str:
        """The text in a style, where colours are wanted."""
        return styled(text, style if self.colour else "")

    def json(self, value: Any) -> None:
        """A value for programs."""
        self.print(json.dumps(value, indent=2, ensure_ascii=False))

    def table(self, rows: Sequence[Row], right: Sequence[int] = ()) -> None:
        """Rows in aligned columns; the first is the header."""
        for line in table(rows, right=right, width=self.columns, colour=self.colour):
            self.print(line)


def standard_console(environ: Mapping[str, str] | None = None) -> Console:
    """The console of this process: colour on a terminal alone, and not with NO_COLOR or a dumb one."""
    surroundings = os.environ if environ is None else environ
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    wanted = not surroundings.get("NO_COLOR") and surroundings.get("TERM") != "dumb"
    return Console(
        sys.stdout,
        sys.stderr,
        colour=wanted and sys.stdout.isatty(),
        err_colour=wanted and sys.stderr.isatty(),
        columns=terminal_size(sys.stdout)[0] if sys.stdout.isatty() else 0,
    )


def terminal_size(stream: TextIO) -> tuple[int, int]:
    """Columns and rows of a terminal as they are at this moment; 80 × 24 where it does not say."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return 80, 24
    return size.columns or 80, size.lines or 24


def styled(text: str, style: str) -> str:
    """The text between the codes of a style; as it is without one."""
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if style and text else text


def phase_style(phase: str) -> str:
    """The colour of a phase: none when all is well."""
    return _PHASE_STYLES.get(phase, "")


def clean(text: object) -> str:
    """One line without anything that a terminal would obey: texts come from containers and files."""
    return "".join(letter if _harmless(letter) else " " for letter in str(text)).strip()


def _harmless(letter: str) -> bool:
    return unicodedata.category(letter) not in {"Cc", "Cf", "Zl", "Zp", "Cs"}


def width_of(text: str) -> int:
    """Columns that a text without style codes takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(_columns(letter) for letter in text)


def _columns(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def clip(text: str, width: int) -> str:
    """The text in at most ``width`` columns; what is cut off is told by an ellipsis."""
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
    """The text filled up with blanks to ``width`` columns."""
    blanks = " " * max(0, width - width_of(text))
    return blanks + text if right else text + blanks


def table(
    rows: Sequence[Row], *, right: Sequence[int] = (), width: int = 0, colour: bool = False
) -> list[str]:
    """Rows in aligned columns, two blanks between them. ``right`` are the columns aligned to the right.

    With a ``width``, the last column is cut to fit; the others hold names and numbers, which are not.
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
    """A bar of ``width`` columns, filled to ``share`` (0 to 1) in eighths of a column."""
    share = min(1.0, max(0.0, share))
    eighths = round(share * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width, "░") if width > 0 else ""


def megabytes(value: object) -> str:
    """'612 MB' for 612.3; a dash where it was not measured."""
    return f"{value:.0f} MB" if isinstance(value, int | float) else "–"


def duration(seconds: object) -> str:
    """'45 s', '3 min', '2 h', '5 d': one unit is enough for a glance."""
    if not isinstance(seconds, int | float):
        return "–"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"
