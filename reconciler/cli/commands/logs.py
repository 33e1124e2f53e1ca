"""``logs``: prints the log of a container, read through the daemon."""

from __future__ import annotations

import json
import re

from reconciler.cli.client import quote_path
from reconciler.cli.connection import Connection
from reconciler.cli.console import Console, clean

_IDLE_TIMEOUT = 60.0
"""Seconds between two lines of a log that is not followed."""

_COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")


def logs(
    console: Console,
    *,
    connection: Connection,
    service: str,
    tail: int,
    follow: bool,
    previous: bool,
    output: str,
) -> int:
    """Print the lines unchanged; on a terminal, remove all control codes but colours."""
    query = {"tail": tail, "follow": follow}
    if previous:
        query["previous"] = True
    as_json = output == "json"
    kept: list[str] = []
    try:
        with connection.open().lines(
            f"/services/logs/{quote_path(service)}", query, idle_timeout=None if follow else _IDLE_TIMEOUT
        ) as lines:
            for line in lines:
                if as_json and not follow:
                    kept.append(line)
                    continue
                # One JSON value per line: an endless list would never be valid JSON.
                console.print(json.dumps(line, ensure_ascii=False) if as_json else _shown(line, console))
                if follow:
                    console.out.flush()
    except KeyboardInterrupt:
        return 0
    if as_json and not follow:
        console.json({"service": service, "lines": kept})
    return 0


def _shown(line: str, console: Console) -> str:
    if not console.columns:
        return line
    parts = _COLOUR.split(line.expandtabs())
    # Parts with an odd index are colour codes.
    return "".join(part if index % 2 else _harmless(part) for index, part in enumerate(parts))


def _harmless(text: str) -> str:
    inner = clean(text)
    if not inner:
        return text if text.isspace() and text.isprintable() else ""
    # `clean` strips blanks, but the indentation of a log line matters.
    return text[: len(text) - len(text.lstrip(" "))] + inner + text[len(text.rstrip(" ")) :]
