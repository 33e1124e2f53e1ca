"""``logs``: what a container prints, through the daemon."""

from __future__ import annotations

import json
import re

from reconciler.cli.client import quote_path
from reconciler.cli.connection import client_from
from reconciler.cli.console import Console, clean
from reconciler.cli.options.spec import OptionValues

_PATIENCE = 60.0
"""Seconds in which a log that is not followed must go on."""

_COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")


def logs(values: OptionValues, console: Console) -> int:
    """The lines as they are; on a terminal, without whatever would do more than colour it."""
    follow, service = values["follow"], values["service"]
    query = {"tail": values["tail"], "follow": follow}
    if values["previous"]:
        query["previous"] = True
    as_json = values["output"] == "json"
    kept: list[str] = []
    try:
        with client_from(values).lines(
            f"/services/logs/{quote_path(service)}", query, idle_timeout=None if follow else _PATIENCE
        ) as lines:
            for line in lines:
                if as_json and not follow:
                    kept.append(line)
                    continue
                # One object a line, since a list that never ends is none.
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
    # Every other part is a colour.
    return "".join(part if index % 2 else _harmless(part) for index, part in enumerate(parts))


def _harmless(text: str) -> str:
    inner = clean(text)
    if not inner:
        return text if text.isspace() and text.isprintable() else ""
    # `clean` trims, and a log is indented for a reason.
    return text[: len(text) - len(text.lstrip(" "))] + inner + text[len(text.rstrip(" ")) :]
