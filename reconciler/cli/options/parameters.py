"""Options, switches and positional arguments: click's, with this program's conventions.

Each option ``--some-thing`` also has a variable ``SERVICE_MANAGER_SOME_THING``; the option takes precedence.
A switch may have a value, as in ``--some-switch=no``, which overrides a variable that turns it on.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from reconciler.cli.options.option_types import parse_switch

_COLON = re.compile(os.pathsep)
_SWITCHES = "reconciler.switches"
"""Key in ``Context.meta`` of the values given as ``--switch=VALUE``, by parameter name."""


class UsageError(click.UsageError):
    """The command line is wrong (exit 64). ``hint`` suggests a correction."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, click.get_current_context(silent=True))
        self.hint = hint


def closest(word: str, known: Iterable[str]) -> str:
    """Return 'did you mean X?' for the most similar known word; empty if none is similar."""
    matches = difflib.get_close_matches(word, list(known), 1, 0.55)
    return f"did you mean {matches[0]!r}?" if matches else ""


class Converted(click.ParamType[Any]):
    """A value that a function of ``option_types`` converts.

    ``complete`` is what the shell completes: files, dirs, groups, or words separated by blanks.
    """

    name = "text"
    # Colon-separated values in one variable, as in COMPOSE_FILE.
    envvar_list_splitter = os.pathsep

    def __init__(
        self, convert: Callable[[str], Any], complete: str = "", separator: re.Pattern[str] = _COLON
    ) -> None:
        self._convert = convert
        self._complete = complete
        self._separator = separator

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert a text. A value of another type is a default and is returned unchanged."""
        if not isinstance(value, str):
            return value
        try:
            return self._convert(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """Return None: the parameter has a metavar."""
        return None

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        """Split the value of a variable; empty parts are left out."""
        return [part for part in self._separator.split(rv) if part]

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[Any]]:
        """Return what the shell offers for an incomplete value."""
        if self._complete in {"files", "dirs"}:
            return [CompletionItem(incomplete, type=self._complete.removesuffix("s"))]
        if self._complete == "groups":
            from reconciler.cli.commands.completion import group_names

            words = group_names()
        else:
            words = self._complete.split()
        return [CompletionItem(word) for word in words if word.startswith(incomplete)]


class Word(Converted):
    """One of several words. An unknown word is reported as ``error``, with a suggestion.

    ``hidden`` words are accepted, but neither completed nor suggested.
    """

    def __init__(self, error: str, *words: str, hidden: Sequence[str] = ()) -> None:
        super().__init__(str, " ".join(words))
        self._error = error
        self.words = words
        self._hidden = hidden

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the word; raise ``UsageError`` if it is unknown."""
        if value in self.words or value in self._hidden:
            return value
        hint = closest(value, self.words) or f"expected {', '.join(self.words[:-1])} or {self.words[-1]}"
        raise UsageError(self._error.format(repr(value)), hint)


class _Switch(click.types.BoolParamType):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bool:
        if isinstance(value, bool):
            return value
        try:
            return parse_switch(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Option(click.Option):
    """One option. Without ``metavar`` it is a switch.

    ``convert`` raises ``ValueError`` with a message for a bad value. ``default`` is not converted. It may be
    a function, which is called only when the default is needed. ``separator`` splits the variable of an
    option that may be repeated.
    """

    def __init__(
        self,
        flag: str,
        help: str,
        metavar: str = "",
        convert: Callable[[str], Any] = str,
        default: Any = None,
        *,
        short: str = "",
        repeat: bool = False,
        complete: str = "",
        separator: re.Pattern[str] = _COLON,
    ) -> None:
        super().__init__(
            [short, flag] if short else [flag],
            help=help,
            metavar=metavar or None,
            is_flag=None if metavar else True,
            type=Converted(convert, complete, separator) if metavar else _Switch(),
            default=default if metavar else False,
            multiple=repeat,
            envvar=f"SERVICE_MANAGER_{flag.removeprefix('--').replace('-', '_').upper()}",
            show_envvar=True,
        )
        self.flag = flag

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """Return the value of the variable; None if it holds blanks only."""
        text = super().resolve_envvar_value(ctx)
        return text if text and text.strip() else None

    def consume_value(
        self, ctx: click.Context, opts: Mapping[str, click.Parameter]
    ) -> tuple[Any, ParameterSource]:
        """Return the value of ``--switch=VALUE`` if it was given, else as click does."""
        given = ctx.meta.get(_SWITCHES, {}).get(self.name)
        if given is not None:
            return given, ParameterSource.COMMANDLINE
        return super().consume_value(ctx, opts)

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Convert a given value; a default needs no conversion."""
        if ctx.get_parameter_source(str(self.name)) is ParameterSource.DEFAULT:
            return value
        return super().type_cast_value(ctx, value)


class Argument(click.Argument):
    """One positional argument; ``arity`` is '' (exactly one), '?' (optional) or '+' (one or more)."""

    def __init__(
        self,
        name: str,
        help: str,
        arity: str = "",
        complete: str = "",
        convert: Callable[[str], Any] | Converted = str,
    ) -> None:
        super().__init__(
            [name.lower()],
            help=help,
            nargs=-1 if arity == "+" else 1,
            required=arity != "?",
            type=convert if isinstance(convert, Converted) else Converted(convert, complete),
        )

    @property
    def words(self) -> Sequence[str]:
        """The words to choose from; empty if every text is accepted."""
        return self.type.words if isinstance(self.type, Word) else ()


def split_switches(ctx: click.Context, words: Sequence[str]) -> list[str]:
    """Take ``--switch=VALUE`` out of the words and keep the values in the context."""
    switches = {
        option.flag: option.name
        for option in ctx.command.params
        if isinstance(option, Option) and option.is_flag
    }
    values: dict[str, str] = ctx.meta.setdefault(_SWITCHES, {})
    end = words.index("--") if "--" in words else len(words)
    plain = []
    for word in words[:end]:
        flag, equals, text = word.partition("=")
        if equals and flag in switches:
            values[str(switches[flag])] = text
        else:
            plain.append(word)
    return [*plain, *words[end:]]
