"""Prints text, tables and JSON. Removes control characters. Loads rich only to draw a table."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TextIO

import click

_PHASE_STYLES = {
    "progressing": "yellow",
    "waiting": "yellow",
    "blocked": "red",
    "degraded": "red",
    "suspended": "blue",
}


class Cell(NamedTuple):
    """One cell of a table. ``style`` is bold, dim or a colour."""

    text: str
    style: str = ""


Row = Sequence[Cell | str]


@dataclass(frozen=True, slots=True)
class Console:
    """The output of a command. ``columns`` is the width of the terminal; 0: no terminal, nothing is cut.

    ``dumb`` terminals can't move the cursor.
    """

    out: TextIO
    err: TextIO
    colour: bool = False
    err_colour: bool = False
    columns: int = 0
    dumb: bool = False

    @property
    def can_redraw(self) -> bool:
        """Whether lines can be redrawn in place."""
        return bool(self.columns) and not self.dumb

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

    def table(self, rows: Iterable[Row], *, titles: Sequence[str] = (), right: Sequence[int] = ()) -> None:
        """Print rows in aligned columns below their titles. ``right``: indexes of right-aligned columns."""
        from reconciler.cli.output.tables import table_lines

        if titles:
            rows = [[Cell(title, "dim") for title in titles], *rows]
        for line in table_lines(list(rows), right=right, width=self.columns, colour=self.colour):
            self.print(line)


def standard_console(environ: Mapping[str, str] | None = None) -> Console:
    """Return the console of this process: colour only on a terminal, not with NO_COLOR or TERM=dumb."""
    variables = os.environ if environ is None else environ
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    dumb = variables.get("TERM") == "dumb"
    colour = not variables.get("NO_COLOR") and not dumb
    return Console(
        sys.stdout,
        sys.stderr,
        colour=colour and sys.stdout.isatty(),
        err_colour=colour and sys.stderr.isatty(),
        columns=terminal_size(sys.stdout)[0] if sys.stdout.isatty() else 0,
        dumb=dumb,
    )


def terminal_size(stream: TextIO) -> tuple[int, int]:
    """Return the current columns and rows of a terminal; 80 × 24 if unknown."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return 80, 24
    return size.columns or 80, size.lines or 24


def styled(text: str, style: str) -> str:
    """Return the text with the codes of a style; unchanged if the style is empty."""
    if not style or not text:
        return text
    return click.style(text, **{style: True}) if style in {"bold", "dim"} else click.style(text, fg=style)


def phase_style(phase: str) -> str:
    """Return the style of a phase; empty if the phase needs no attention."""
    return _PHASE_STYLES.get(phase, "")


def clean(text: object) -> str:
    """Return one line without control characters: texts come from containers and files."""
    return "".join(letter if _harmless(letter) else " " for letter in str(text)).strip()


def _harmless(letter: str) -> bool:
    return unicodedata.category(letter) not in {"Cc", "Cf", "Zl", "Zp", "Cs"}


def megabytes(value: object) -> str:
    """Return '612 MB' for 612.3; a dash if not measured."""
    return f"{value:.0f} MB" if isinstance(value, int | float) else "–"


def duration(seconds: object) -> str:
    """Return '45 s', '3 min', '2 h' or '5 d' for a number of seconds; a dash if unknown."""
    if not isinstance(seconds, int | float):
        return "–"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"
