"""Parses arguments and environment variables into option values. A flag overrides its variable.

argparse splits the arguments; the error messages and suggestions are ours.
"""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from reconciler.cli.options.option_types import parse_switch
from reconciler.cli.options.spec import PROGRAM, Argument, Command, Option


class UsageError(Exception):
    """The command line is wrong (exit 64). ``hint`` suggests a correction."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class HelpRequested(Exception):
    """The arguments contain ``--help``."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def closest(word: str, known: Iterable[str]) -> str:
    """'did you mean X?' for the most similar known word; empty if none is similar."""
    matches = difflib.get_close_matches(word, list(known), 1, 0.55)
    return f"did you mean {matches[0]!r}?" if matches else ""


def parse(command: Command, words: Sequence[str], environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the value of every option and argument of the command.

    Raises:
        UsageError: an option is unknown or incomplete, or a value is invalid; the message names the option
            or the environment variable.
        HelpRequested: the arguments contain ``--help``.
    """
    parser = _Parser(prog=f"{PROGRAM} {command.name}", add_help=False, allow_abbrev=False)
    parser.add_argument("-h", "--help", action="store_true")
    for option in command.options:
        _add_option(parser, option)
    for argument in command.arguments:
        # Missing arguments are reported below, after --help was handled.
        count = {"": "?", "+": "*"}.get(argument.arity, argument.arity)
        parser.add_argument(argument.name, nargs=count, default=None)
    plain, switch_values = _split_switches(command, words)
    try:
        # Intermixed: options may appear between groups, as in `start kafka --force search`.
        parsed, unknown = parser.parse_known_intermixed_args(plain)
    except argparse.ArgumentError as error:
        raise UsageError(str(error)) from None
    given = vars(parsed)
    if given.pop("help"):
        raise HelpRequested
    if unknown:
        raise UsageError(*_unknown(command, unknown[0]))
    variables = os.environ if environ is None else environ
    values = {
        option.name: _value(option, given.get(option.name), switch_values, variables)
        for option in command.options
    }
    for argument in command.arguments:
        values[argument.name.lower()] = _positional(argument, given.get(argument.name))
    return values


def _add_option(parser: argparse.ArgumentParser, option: Option) -> None:
    short = ["-o"] if option.flag == "--output" else []
    if option.is_switch:
        parser.add_argument(option.flag, dest=option.name, action="store_true", default=None)
    elif option.repeat:
        parser.add_argument(option.flag, dest=option.name, action="append", default=None)
    else:
        parser.add_argument(option.flag, *short, dest=option.name, default=None)


def _split_switches(command: Command, words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Extract ``--switch=no``, the only way to override a variable that turns a switch on."""
    flags = {option.flag: option for option in command.options if option.is_switch}
    plain: list[str] = []
    switch_values: dict[str, str] = {}
    for index, word in enumerate(words):
        if word == "--":
            plain += words[index:]
            break
        flag, equals, text = word.partition("=")
        if equals and flag in flags:
            switch_values[flags[flag].name] = text
        else:
            plain.append(word)
    return plain, switch_values


def _value(option: Option, given: Any, switch_values: Mapping[str, str], environ: Mapping[str, str]) -> Any:
    if option.is_switch and option.name in switch_values:
        return _converted(option.flag, parse_switch, switch_values[option.name])
    if given is True:
        return True
    convert = parse_switch if option.is_switch else option.convert
    if given is not None:
        texts = given if option.repeat else [given]
        values = [_converted(option.flag, convert, text) for text in texts]
        return tuple(values) if option.repeat else values[0]
    text = environ.get(option.variable, "")
    if text.strip():
        # Colon-separated values in one variable, as in COMPOSE_FILE.
        texts = [part for part in text.split(os.pathsep) if part] if option.repeat else [text]
        values = [_converted(option.variable, convert, part) for part in texts]
        return tuple(values) if option.repeat else values[0]
    if option.is_switch:
        return False
    return option.default() if callable(option.default) else option.default


def _converted(source: str, convert: Any, text: str) -> Any:
    try:
        return convert(text)
    except ValueError as error:
        raise UsageError(f"{source}: {error}") from None


def _positional(argument: Argument, given: Any) -> Any:
    if argument.arity in {"+", "*"}:
        if argument.arity == "+" and not given:
            raise UsageError(f"{argument.name} is missing")
        return tuple(given or ())
    if given is None:
        if argument.arity == "":
            raise UsageError(f"{argument.name} is missing")
        return argument.default
    return given


def _unknown(command: Command, word: str) -> tuple[str, str]:
    if not word.startswith("-"):
        return f"unexpected argument {word!r}", ""
    known = [option.flag for option in command.options]
    flag = word.partition("=")[0]
    hint = closest(flag, known) or (
        f"the options are {', '.join(known)}" if known else "this command has no options"
    )
    return f"unknown option {flag}", hint
