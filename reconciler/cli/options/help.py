"""Help texts, made from the table of commands."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from reconciler.cli.commands.definitions.table import COMMANDS, SECTIONS
from reconciler.cli.options.spec import PROGRAM, Command

_NARROWEST, _WIDEST = 50, 100
_COLUMN = 26


def program_help(width: int) -> str:
    """What ``service-manager --help`` says."""
    width = _bounded(width)
    lines = [f"Usage: {PROGRAM} COMMAND [options]", ""]
    lines += textwrap.wrap(
        "Keeps a stack of containers as its files say. Edit desired-state/groups.yaml, or use start and "
        "stop: the daemon brings the containers to what is desired, and keeps them there.",
        width,
    )
    for section in SECTIONS:
        pairs = [(command.name, command.summary) for command in COMMANDS if command.section == section]
        lines += ["", f"{section}:", *_table(pairs, width, 14)]
    lines += [
        "",
        *textwrap.wrap(
            f"`{PROGRAM} COMMAND --help` teaches a command. Every option --some-thing can be given as the "
            "environment variable SERVICE_MANAGER_SOME_THING; the option wins.",
            width,
        ),
    ]
    return "\n".join(lines)


def command_help(command: Command, width: int) -> str:
    """What ``service-manager COMMAND --help`` says."""
    width = _bounded(width)
    lines = [usage(command), "", *textwrap.wrap(command.description, width)]
    if command.arguments:
        lines += ["", "Arguments:", *_table(((a.name, a.help) for a in command.arguments), width, _COLUMN)]
    options = [(f"{o.flag} {o.metavar}".strip(), f"{o.help} [${o.variable}]") for o in command.options]
    options.append(("-h, --help", "this text"))
    lines += ["", "Options:", *_table(options, width, _COLUMN)]
    if command.examples:
        lines += ["", "Examples:", *_examples(command.examples)]
    lines += ["", "Exit codes:", *_table(command.exits, width, 6)]
    return "\n".join(lines)


def usage(command: Command) -> str:
    """The usage line."""
    words = [argument.shown for argument in command.arguments] + (["[options]"] if command.options else [])
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
    # An example is there to be copied, so it is never broken; what it does stands below it.
    for words, comment in examples:
        if words:
            yield f"  {PROGRAM} {words}"
        if comment:
            yield f"      {comment}"
