"""The entry point: finds the command, parses its options, runs it and returns its exit code.

Imports nothing heavy; a command's module is loaded when the command runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from reconciler.cli.commands.definitions.table import BY_NAME
from reconciler.cli.console import Console, standard_console
from reconciler.cli.options.help import command_help, program_help
from reconciler.cli.options.parsing import HelpRequested, UsageError, closest, parse
from reconciler.cli.options.spec import PROGRAM, Command

USAGE = 64
INTERRUPTED = 130
_PIPE_CLOSED = 141


def main(words: Sequence[str] | None = None) -> int:
    """Run a command line; return the exit code."""
    console = standard_console()
    try:
        code = run(list(sys.argv[1:] if words is None else words), console)
        console.out.flush()
    except BrokenPipeError:
        # The reader of our output has exited (`| head`). Write nothing more, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def run(words: list[str], console: Console) -> int:
    """Run a command line on this console; return the exit code."""
    if not words:
        console.error(program_help(console.width))
        return USAGE
    first, *rest = words
    if first in {"-h", "--help", "help"}:
        return _help(rest, console)
    if first == "--version":
        first = "version"
    command = BY_NAME.get(first)
    if command is None:
        return _misused(console, UsageError(*_unknown(first)), PROGRAM)
    try:
        values = parse(command, rest)
        return _run(command, values, console)
    except HelpRequested:
        console.print(command_help(command, console.width))
        return 0
    except UsageError as error:
        return _misused(console, error, f"{PROGRAM} {command.name}")


def _run(command: Command, values: dict[str, object], console: Console) -> int:
    handler = command.load()
    # Every handler has imported this module by now; importing it earlier would slow --help down.
    from reconciler.errors import EngineError, InvalidDesiredState, ServiceManagerError

    try:
        return handler(values, console)
    except InvalidDesiredState as error:
        for mistake in error.mistakes:
            console.error(str(mistake))
    except ServiceManagerError as error:
        remedy = "`service-manager doctor` shows the cause" if isinstance(error, EngineError) else ""
        console.failure(str(error), getattr(error, "remedy", remedy))
    return 1


def _help(rest: Sequence[str], console: Console) -> int:
    command = BY_NAME.get(rest[0]) if rest else None
    if rest and command is None and not rest[0].startswith("-"):
        return _misused(console, UsageError(*_unknown(rest[0])), PROGRAM)
    console.print(command_help(command, console.width) if command else program_help(console.width))
    return 0


def _unknown(word: str) -> tuple[str, str]:
    if word.startswith("-"):
        return f"unknown option {word}", "put options after the command"
    return f"there is no command {word!r}", closest(word, BY_NAME) or f"the commands are {', '.join(BY_NAME)}"


def _misused(console: Console, error: UsageError, program: str) -> int:
    console.failure(f"{program}: {error}", error.hint)
    console.error(f"Try `{program} --help`.")
    return USAGE
