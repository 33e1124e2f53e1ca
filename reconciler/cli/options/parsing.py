"""From arguments and environment to the values of a command. A flag wins over its variable.

argparse does the splitting; what is wrong with the words is said here, with a suggestion.
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
    """The command line can't be understood (exit 64). ``hint`` is the line that helps."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class HelpRequested(Exception):
    """``--help`` stood among the arguments."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def closest(word: str, known: Iterable[str]) -> str:
    """'did you mean X?' for the known word that is nearest; empty if none is near."""
    found = difflib.get_close_matches(word, list(known), 1, 0.55)
    return f"did you mean {found[0]!r}?" if found else ""


def parse(command: Command, words: Sequence[str], environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The values of one call, every option and argument of the command among them.

    Raises:
        UsageError: unknown or incomplete options, a value that can't be one; a bad value in the
            environment names its variable.
        HelpWanted: help was asked for.
    """
    parser = _Parser(prog=f"{PROGRAM} {command.name}", add_help=False, allow_abbrev=False)
    parser.add_argument("-h", "--help", action="store_true")
    for option in command.options:
        _add_option(parser, option)
    for argument in command.arguments:
        # Told missing below, in our own words, and not before --help is seen.
        count = {"": "?", "+": "*"}.get(argument.arity, argument.arity)
        parser.add_argument(argument.name, nargs=count, default=None)
    plain, switched = _split_switches(command, words)
    try:
        # Intermixed, so that options may stand between groups: `start kafka --force search`.
        found, unknown = parser.parse_known_intermixed_args(plain)
    except argparse.ArgumentError as error:
        raise UsageError(str(error)) from None
    given = vars(found)
    if given.pop("help"):
        raise HelpRequested
    if unknown:
        raise UsageError(*_unknown(command, unknown[0]))
    surroundings = os.environ if environ is None else environ
    values = {
        option.name: _value(option, given.get(option.name), switched, surroundings)
        for option in command.options
    }
    for argument in command.arguments:
        values[argument.name.lower()] = _positional(argument, given.get(argument.name))
    return values


def _add_option(parser: argparse.ArgumentParser, option: Option) -> None:
    short = ["-o"] if option.flag == "--output" else []
    if option.switch:
        parser.add_argument(option.flag, dest=option.name, action="store_true", default=None)
    elif option.repeat:
        parser.add_argument(option.flag, dest=option.name, action="append", default=None)
    else:
        parser.add_argument(option.flag, *short, dest=option.name, default=None)


def _split_switches(command: Command, words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Takes out ``--switch=no``: the one way to unsay what a variable says."""
    flags = {option.flag: option for option in command.options if option.switch}
    plain: list[str] = []
    switched: dict[str, str] = {}
    for index, word in enumerate(words):
        if word == "--":
            plain += words[index:]
            break
        flag, equals, text = word.partition("=")
        if equals and flag in flags:
            switched[flags[flag].name] = text
        else:
            plain.append(word)
    return plain, switched


def _value(option: Option, given: Any, switched: Mapping[str, str], environ: Mapping[str, str]) -> Any:
    if option.switch and option.name in switched:
        return _converted(option.flag, parse_switch, switched[option.name])
    if given is True:
        return True
    convert = parse_switch if option.switch else option.convert
    if given is not None:
        texts = given if option.repeat else [given]
        found = [_converted(option.flag, convert, text) for text in texts]
        return tuple(found) if option.repeat else found[0]
    text = environ.get(option.variable, "")
    if text.strip():
        # As COMPOSE_FILE does it: several in one variable, between colons.
        texts = [part for part in text.split(os.pathsep) if part] if option.repeat else [text]
        found = [_converted(option.variable, convert, part) for part in texts]
        return tuple(found) if option.repeat else found[0]
    if option.switch:
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
        return f"{word!r} is one argument too many", ""
    known = [option.flag for option in command.options]
    flag = word.partition("=")[0]
    hint = closest(flag, known) or (f"its options are {', '.join(known)}" if known else "it has no options")
    return f"unknown option {flag}", hint
