"""The program and its commands: click's, with sections, examples and exit codes in the help texts.

A command's handler is imported when the command runs. Help, parser and shell completion use the same
description.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from reconciler.cli.options.parameters import Argument, Option, UsageError, split_switches

PROGRAM = "service-manager"
COMPLETION_VARIABLE = "_SERVICE_MANAGER_COMPLETE"
"""The variable with which the shell's script requests completions."""
_HELP = ("-h", "--help")
_NARROWEST, _WIDEST = 50, 100
_NARROW, _NARROW_COLUMN = 70, 8
"""On a terminal with fewer than 70 columns, the first column of the help has 8, so that no variable wraps."""


class _HelpFormatter(click.HelpFormatter):
    """Breaks no word at a hyphen, so that options and paths stay whole."""

    _HYPHEN = "\ue000"
    """Replaces a hyphen while lines are wrapped: no line is broken at this private character."""

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write terms with their descriptions; on a narrow terminal, long terms have lines of their own."""
        whole = [(term, text.replace("-", self._HYPHEN)) for term, text in rows]
        super().write_dl(whole, col_max if self.width >= _NARROW else _NARROW_COLUMN, col_spacing)

    def write_text(self, text: str) -> None:
        """Write a paragraph."""
        super().write_text(text.replace("-", self._HYPHEN))

    def getvalue(self) -> str:
        """Return what was written."""
        return super().getvalue().replace(self._HYPHEN, "-")


class _Context(click.Context):
    formatter_class = _HelpFormatter


class Described(click.Command):
    """Base of the program and its commands: its help option prints to the command's console."""

    context_class = _Context

    def get_help_option(self, ctx: click.Context) -> click.Option:
        """Return the help option."""
        return _HELP_OPTION


class Command(Described):
    """One command. ``handler`` is ``module:function`` in ``reconciler.cli.commands``.

    The function takes the console and the parameters by name, and returns the exit code. ``--url`` and
    ``--api-key-file`` arrive as one ``Connection``. ``exits`` are exit codes with their meaning.
    """

    def __init__(
        self,
        *,
        name: str,
        section: str,
        summary: str,
        description: str,
        handler: str,
        arguments: Sequence[Argument] = (),
        options: Sequence[Option] = (),
        examples: Sequence[tuple[str, str]] = (),
        exits: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(
            name,
            params=[*arguments, *options],
            help=description,
            short_help=summary,
            options_metavar="[OPTIONS]" if options else "",
            context_settings={"allow_extra_args": True},
        )
        self.section = section
        self.summary = summary
        self.arguments = arguments
        self.options = options
        self.examples = examples
        self.exits = exits
        self._handler = handler

    def load(self) -> Callable[..., int]:
        """Import the handler."""
        module, function = self._handler.split(":")
        handler: Callable[..., int] = getattr(
            importlib.import_module(f"reconciler.cli.commands.{module}"), function
        )
        return handler

    def values(self, ctx: click.Context) -> dict[str, Any]:
        """Return the parameters of the handler by name."""
        values = dict(ctx.params)
        if "url" in values:
            from reconciler.cli.connection import Connection

            values["connection"] = Connection(
                values.pop("url"), values.pop("api_key_file"), values.get("timeout")
            )
        return values

    def invoke(self, ctx: click.Context) -> int:
        """Run the handler; return its exit code."""
        return self.load()(ctx.obj, **self.values(ctx))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words. ``--help`` is handled first, also after a mistake.

        Raises:
            click.UsageError: an option is unknown, or a value is missing or invalid.
        """
        try:
            rest = super().parse_args(ctx, split_switches(ctx, args))
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            before = args[: args.index("--")] if "--" in args else args
            if not ctx.resilient_parsing and not set(_HELP).isdisjoint(before):
                _show_help(ctx, None, True)
            raise
        if rest and not ctx.resilient_parsing:
            raise UsageError(f"unexpected argument {rest[0]!r}")
        return rest

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write examples and exit codes."""
        with formatter.section("Examples"):
            for words, comment in self.examples:
                # Examples are copied by users, so they are never wrapped; the comment is on its own line.
                formatter.write(f"  {PROGRAM} {words}\n" if words else "")
                formatter.write(f"      {comment}\n" if comment else "")
        with formatter.section("Exit codes"):
            formatter.write_dl(self.exits)


class Program(Described, click.Group):
    """``service-manager`` itself. Lists its commands by section, in the order of ``commands``."""

    def __init__(
        self, description: str, epilog: str, commands: Sequence[Command], sections: Sequence[str]
    ) -> None:
        super().__init__(
            PROGRAM,
            help=description,
            epilog=epilog,
            commands={str(command.name): command for command in commands},
            subcommand_metavar="COMMAND [ARGS]...",
            no_args_is_help=False,
            context_settings={"help_option_names": list(_HELP)},
        )
        self._sections = sections

    def open_context(self, words: Sequence[str], obj: object, width: int = _WIDEST) -> click.Context:
        """Parse the words up to the command. ``width`` is that of the terminal, in columns."""
        return self.make_context(PROGRAM, list(words), obj=obj, terminal_width=_help_width(width))

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, in their order."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by section."""
        for section in self._sections:
            with formatter.section(section):
                formatter.write_dl(
                    (name, command.short_help or "")
                    for name, command in self.commands.items()
                    if isinstance(command, Command) and command.section == section
                )


def help_text(command: click.Command, width: int = _WIDEST) -> str:
    """Return the text of ``service-manager COMMAND --help``, wrapped at ``width`` columns."""
    program = _Context(click.Command(PROGRAM), info_name=PROGRAM, terminal_width=_help_width(width))
    return command.get_help(_Context(command, info_name=command.name, parent=program))


def _show_help(ctx: click.Context, _: click.Parameter | None, requested: bool) -> None:
    if requested and not ctx.resilient_parsing:
        ctx.obj.print(ctx.get_help())
        ctx.exit()


def _help_width(width: int) -> int:
    return max(_NARROWEST, min(width, _WIDEST))


_HELP_OPTION = click.Option(
    _HELP, is_flag=True, is_eager=True, expose_value=False, callback=_show_help, help="show this help"
)
