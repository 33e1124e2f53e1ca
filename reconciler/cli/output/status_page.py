"""Draws the page of ``watch``: stack, problems, groups and services."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Group, RenderableType

from reconciler.cli.console import Cell, Row, clean
from reconciler.cli.output.status_rows import (
    HEADER,
    JsonObject,
    group_rows,
    groups_of,
    headline,
    problems,
)
from reconciler.cli.output.tables import DataTable, line_of


def render_page(status: JsonObject, rows: int, lost: str = "") -> RenderableType:
    """Return what the screen shows. ``lost`` is the reason for a lost connection, empty if connected.

    If not all services fit in the rows, converged groups are shown without services.
    """
    top = [line_of(part for cell in headline(status) for part in (cell, "  "))]
    if lost:
        top.append(line_of([Cell(f"no connection, showing the last known state: {clean(lost)}", "red")]))
    top += [line_of([cell]) for cell in problems(status)]
    top.append(line_of([]))
    bottom = [line_of([Cell("q quits", "dim")])]
    room = rows - len(top) - len(bottom)
    table = _rows(status, lambda _: True)
    if len(table) > room:
        table = _rows(status, lambda group: group.get("phase") != "converged")
    if len(table) > room:
        hidden = len(table) - max(0, room - 1)
        table = table[: max(0, room - 1)]
        bottom.insert(0, line_of([Cell(f"… {hidden} more lines; `service-manager status` shows all", "dim")]))
    return Group(*top, *([DataTable(table, right=(3,))] if table else []), *bottom)


def _rows(status: JsonObject, shows_services: Callable[[JsonObject], bool]) -> list[Row]:
    rows: list[Row] = [HEADER]
    for name, group in groups_of(status).items():
        rows += group_rows(name, group, services=shows_services(group))
    return rows
