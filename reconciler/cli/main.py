"""The entry point: finds the command, parses its options, runs it and returns its exit code.

Imports nothing heavy; a command's module is loaded when the command runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click
from click.core import ParameterSource

from reconciler.cli.commands.definitions.table import PROGRAM_COMMAND
from reconciler.cli.console import Console, standard_console
from reconciler.cli.options.command import COMPLETION_VARIABLE, PROGRAM
from reconciler.cli.options.parameters import UsageError, closest

USAGE = 64
INTERRUPTED = 130
_PIPE_CLOSED = 141


def main(words: Sequence[str] | None = None) -> int:
    """Run a command line; return the exit code."""
    console = standard_console()
    try:
        if instruction := os.environ.get(COMPLETION_VARIABLE):
            return _complete(instruction)
        code = run(list(sys.argv[1:] if words is None else words), console)
        console.out.flush()
    except BrokenPipeError:
        # The reader of the output has exited (`| head`). Write nothing more, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _complete(instruction: str) -> int:
    from click.shell_completion import shell_complete

    return shell_complete(PROGRAM_COMMAND, {}, PROGRAM, COMPLETION_VARIABLE, instruction)


def run(words: list[str], console: Console) -> int:
    """Run a command line on this console; return the exit code."""
    try:
        with PROGRAM_COMMAND.open_context(_without_aliases(words), console, console.width) as context:
            if not words:
                console.error(context.get_help())
                return USAGE
            return _invoke(context, console)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.UsageError as error:
        message, hint = explain(error)
        program = error.ctx.command_path if error.ctx else PROGRAM
        console.failure(f"{program}: {message}", hint)
        console.error(f"Try `{program} --help`.")
        return USAGE


def _without_aliases(words: list[str]) -> list[str]:
    """Return the words with ``help COMMAND`` and ``--version`` in their usual form."""
    first, *rest = words or [""]
    if first == "help":
        return [*(word for word in rest[:1] if not word.startswith("-")), "--help"]
    return ["version", *rest] if first == "--version" else words


def _invoke(context: click.Context, console: Console) -> int:
    # Importing this module earlier would slow --help down.
    from reconciler.errors import EngineError, InvalidDesiredState, ServiceManagerError

    try:
        code: int = PROGRAM_COMMAND.invoke(context)
    except InvalidDesiredState as error:
        for mistake in error.mistakes:
            console.error(str(mistake))
    except ServiceManagerError as error:
        remedy = "`service-manager doctor` shows the cause" if isinstance(error, EngineError) else ""
        console.failure(str(error), getattr(error, "remedy", remedy))
    else:
        return code
    return 1


def explain(error: click.UsageError) -> tuple[str, str]:
    """Return the message of a usage error and a hint, which may be empty."""
    if isinstance(error, UsageError):
        return error.message, error.hint
    if isinstance(error, click.NoSuchCommand):
        names = list(PROGRAM_COMMAND.commands)
        hint = closest(error.command_name, names) or f"the commands are {', '.join(names)}"
        return f"there is no command {error.command_name!r}", hint
    if isinstance(error, click.NoSuchOption):
        return f"unknown option {error.option_name}", _known_options(error)
    if isinstance(error, click.MissingParameter) and error.param:
        return f"{error.param.human_readable_name} is missing", ""
    if isinstance(error, click.BadParameter) and error.param:
        return f"{_source(error, error.param)}: {error.message}", ""
    return error.format_message().rstrip("."), ""


def _known_options(error: click.NoSuchOption) -> str:
    command = error.ctx.command if error.ctx else PROGRAM_COMMAND
    if command is PROGRAM_COMMAND:
        return "put options after the command"
    known = [option.opts[-1] for option in command.params if isinstance(option, click.Option)]
    if not known:
        return "this command has no options"
    return closest(error.option_name, known) or f"the options are {', '.join(known)}"


def _source(error: click.BadParameter, param: click.Parameter) -> str:
    """Return where an invalid value comes from: a variable, an option or an argument."""
    source = error.ctx.get_parameter_source(str(param.name)) if error.ctx else None
    if source is ParameterSource.ENVIRONMENT:
        return str(param.envvar)
    return param.opts[-1] if isinstance(param, click.Option) else param.human_readable_name
