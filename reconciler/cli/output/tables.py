"""Draws tables with rich. Only commands that draw import this module."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import IO

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from reconciler.cli.console import Cell, Row

_GAP = 2
"""Blanks between two columns."""


def drawing_console(file: IO[str], *, width: int, height: int = 24, colour: bool) -> Console:
    """Create a console of rich with these settings; it reads no environment variable and no terminal."""
    return Console(
        file=file,
        width=width,
        height=height,
        force_terminal=True,
        color_system="standard" if colour else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
        _environ={},
    )


def line_of(cells: Iterable[Cell | str]) -> Text:
    """Join cells to one line, which is cut with an ellipsis where it does not fit."""
    text = Text(no_wrap=True, overflow="ellipsis")
    for cell in cells:
        text.append(*(cell if isinstance(cell, Cell) else Cell(cell)))
    return text


class DataTable:
    """Rows in columns; ``right`` are the indexes of right-aligned columns.

    The last column is cut to fit. The others hold names and numbers and are never cut.
    """

    def __init__(self, rows: Sequence[Row], right: Sequence[int] = ()) -> None:
        texts = [[line_of([cell]) for cell in row] for row in rows]
        count = max((len(row) for row in texts), default=0)
        self._table = Table(box=None, show_header=False, padding=(0, _GAP, 0, 0), pad_edge=False)
        for index in range(count):
            justify = "right" if index in right else "left"
            self._table.add_column(justify=justify, no_wrap=index < count - 1)  # type: ignore[arg-type]
        for row in texts:
            self._table.add_row(*row)
        widths = [
            max((cell_len(row[index].plain) for row in texts if index < len(row)), default=0)
            for index in range(count)
        ]
        self._fixed = sum(widths[:-1]) + _GAP * (count - 1)
        self._last = widths[-1] if widths else 0

    @property
    def natural_width(self) -> int:
        """The columns that the table takes if nothing is cut."""
        return self._fixed + self._last

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the table; it is wider than the terminal if even the fixed columns do not fit."""
        width = max(1, self._fixed + min(self._last, max(1, options.max_width - self._fixed)))
        yield from console.render(self._table, options.update(width=width))


def table_lines(
    rows: Sequence[Row], *, right: Sequence[int] = (), width: int = 0, colour: bool = False
) -> list[str]:
    """Return the lines of a table. ``width`` is that of the terminal; 0: nothing is cut."""
    table = DataTable(rows, right)
    file = io.StringIO()
    console = drawing_console(file, width=width or max(1, table.natural_width), colour=colour)
    console.print(table, crop=False)
    return [line.rstrip() for line in file.getvalue().split("\n")[:-1]]
