"""Generates the parts of the reference pages that come from the code, when mkdocs builds them.

A page holds a marker such as ``<!-- generated: rest -->``; the text that replaces it describes the code as it
is, so the page can't become wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import MagicMock

from api.app import create_app
from api.metrics.registry import Metrics
from reconciler.cli.commands.definitions.table import COMMANDS
from reconciler.cli.options.command import help_text
from reconciler.cli.options.common_options import SECTIONS
from reconciler.controller.snapshot import SnapshotPublisher

MARKER = re.compile(r"<!-- generated: (\w+) -->")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the markers of a page; mkdocs calls this for every page."""
    return MARKER.sub(lambda found: GENERATORS[found[1]](), markdown)


def commands() -> str:
    """Every command with its help text."""
    return "\n\n".join(
        f"## {command.name}\n\n```text\n{help_text(command)}\n```"
        for section in SECTIONS
        for command in COMMANDS
        if command.section == section
    )


def rest() -> str:
    """Every endpoint of the OpenAPI document, with parameters and status codes."""
    anything = MagicMock()
    app = create_app(
        writer=anything,
        snapshots=SnapshotPublisher(),
        settings=anything,
        preview=anything,
        logs=anything,
        captured_logs=anything,
        audit=anything,
        history=anything,
        metrics=Metrics(SnapshotPublisher()),
    )
    document = app.openapi()
    return "\n\n".join(
        section
        for path, methods in sorted(document["paths"].items())
        for method, operation in methods.items()
        for section in _endpoint(path, method, operation)
    )


def _endpoint(path: str, method: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"### {method.upper()} {path}"
    yield operation.get("description") or operation.get("summary", "")
    parameters = operation.get("parameters", ())
    if parameters:
        rows = [f"| `{p['name']}` | {p['in']} | {_cell(p.get('description', ''))} |" for p in parameters]
        yield "\n".join(["| parameter | in | meaning |", "|---|---|---|", *rows])
    rows = [f"| {code} | {_cell(r.get('description', ''))} |" for code, r in operation["responses"].items()]
    yield "\n".join(["| status | meaning |", "|---|---|", *rows])


def metrics() -> str:
    """Every metric family with its type and help text."""
    exposition = Metrics(SnapshotPublisher()).render("text/plain")[0].decode()
    helps = dict(re.findall(r"^# HELP (\S+) (.*)$", exposition, re.MULTILINE))
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", exposition, re.MULTILINE))
    rows = [f"| `{name}` | {types[name]} | {_cell(text)} |" for name, text in sorted(helps.items())]
    return "\n".join(["| name | type | meaning |", "|---|---|---|", *rows])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


GENERATORS: dict[str, Callable[[], str]] = {"commands": commands, "rest": rest, "metrics": metrics}
