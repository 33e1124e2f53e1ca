"""``progress``: shows the steps of one generation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.cli.connection import Connection
from reconciler.cli.console import Cell, Console, Row, clean, duration
from reconciler.cli.output.status_rows import mapping
from reconciler.cli.output.time_format import unix_seconds

_STYLES = {
    "failed": "red",
    "running": "yellow",
    "waiting": "yellow",
    "degraded": "red",
    "progressing": "yellow",
}
_RESPONSE_MARGIN = 15.0
"""Seconds that a response may take in addition to the requested wait."""


def progress(
    console: Console, *, connection: Connection, generation: int | None, wait: float | None, output: str
) -> int:
    """Print the steps of the given generation, or of the current one."""
    client = connection.open()
    if generation is None:
        generation = mapping(client.get("/services/status")).get("generation", 0)
    answer = mapping(
        client.get(
            f"/services/progress/{generation}", {"wait": wait}, timeout=(wait or 0.0) + _RESPONSE_MARGIN
        )
    )
    if output == "json":
        console.json(answer)
        return 0
    state = clean(answer.get("state") or "?")
    done = f"{answer.get('done', 0)} of {answer.get('total', 0)} services"
    console.print(f"generation {generation}  {console.paint(state, _STYLES.get(state, ''))}  {done}")
    if answer.get("message"):
        console.print(clean(answer["message"]))
    steps = [mapping(step) for step in answer.get("steps") or ()]
    if steps:
        titles = ("SERVICE", "ACTION", "STATE", "TRIES", "TOOK", "")
        console.print()
        console.table(map(_row, steps), titles=titles, right=(3, 4))
    return 0


def _row(step: Mapping[str, Any]) -> Row:
    state = clean(step.get("state") or "")
    return (
        clean(step.get("service") or "?"),
        clean(step.get("action") or ""),
        Cell(state, _STYLES.get(state, "")),
        str(step.get("attempts") or "–"),
        _took(step),
        clean(step.get("error") or (step.get("reason") if state == "waiting" else "") or ""),
    )


def _took(step: Mapping[str, Any]) -> str:
    started, finished = unix_seconds(step.get("started_at")), unix_seconds(step.get("finished_at"))
    if started is None or finished is None:
        return "–"
    seconds = finished - started
    return f"{seconds:.1f} s" if seconds < 120 else duration(seconds)
