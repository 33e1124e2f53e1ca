"""Generates help texts from the table of commands."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from reconciler.cli.commands.definitions.table import COMMANDS, SECTIONS
from reconciler.cli.options.spec import PROGRAM, Command

_NARROWEST, _WIDEST = 50, 100
_COLUMN = 26


def program_help(width: int) -> str:
    """The text of ``service-manager --help``."""
    width = _bounded(width)
    lines = [f"Usage: {PROGRAM} COMMAND [options]", ""]
    lines += textwrap.wrap(
        "Reconcile a stack of containers with its files. Edit desired-state/groups.yaml, or use start and "
        "stop: the daemon brings the containers to the desired state and keeps them there.",
        width,
    )
    for section in SECTIONS:
        pairs = [(command.name, command.summary) for command in COMMANDS if command.section == section]
        lines += ["", f"{section}:", *_table(pairs, width, 14)]
    lines += [
        "",
        *textwrap.wrap(
            f"`{PROGRAM} COMMAND --help` describes a command. Every option has an environment variable: "
            "SERVICE_MANAGER_SOME_THING for --some-thing. The option takes precedence.",
            width,
        ),
    ]
    return "\n".join(lines)


def command_help(command: Command, width: int) -> str:
    """The text of ``service-manager COMMAND --help``."""
    width = _bounded(width)
    lines = [usage(command), "", *textwrap.wrap(command.description, width)]
    if command.arguments:
        lines += ["", "Arguments:", *_table(((a.name, a.help) for a in command.arguments), width, _COLUMN)]
    options = [(f"{o.flag} {o.metavar}".strip(), f"{o.help} [${o.variable}]") for o in command.options]
    options.append(("-h, --help", "show this help"))
    lines += ["", "Options:", *_table(options, width, _COLUMN)]
    if command.examples:
        lines += ["", "Examples:", *_examples(command.examples)]
    lines += ["", "Exit codes:", *_table(command.exits, width, 6)]
    return "\n".join(lines)


def usage(command: Command) -> str:
    """The usage line."""
    words = [argument.usage for argument in command.arguments] + (["[options]"] if command.options else [])
    return " ".join(["Usage:", PROGRAM, command.name, *words])


def _bounded(width: int) -> int:
    return max(_NARROWEST, min(width, _WIDEST))


def _table(pairs: Iterable[tuple[str, str]], width: int, column: int) -> Iterator[str]:
    for name, text in pairs:
        rows = textwrap.wrap(text, width - column - 2, break_long_words=False, break_on_hyphens=False) or [""]
        if len(name) >= column:
            yield f"  {name}"
        else:
            yield f"  {name:<{column}}{rows.pop(0)}"
        yield from (f"  {'':<{column}}{row}" for row in rows)


def _examples(examples: Sequence[tuple[str, str]]) -> Iterator[str]:
    # Examples are copied by users, so they are never wrapped; the comment is on its own line.
    for words, comment in examples:
        if words:
            yield f"  {PROGRAM} {words}"
        if comment:
            yield f"      {comment}"
