"""Describes commands as data: arguments, options, examples and exit codes.

Help, parser and shell completion all use these values, so they always agree.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

PROGRAM = "service-manager"

OptionValues = Mapping[str, Any]
"""All options and arguments of one call, converted, by name with underscores."""


class Option(NamedTuple):
    """One ``--flag``. ``convert`` raises ``ValueError`` with a message for a bad value.

    ``complete`` is what the shell completes: files, dirs, groups, or words separated by blanks.
    ``default`` may be a function, which is called only when the default is used.
    """

    flag: str
    help: str
    metavar: str = ""
    convert: Callable[[str], Any] = str
    default: Any = None
    repeat: bool = False
    complete: str = ""

    @property
    def name(self) -> str:
        """The key in ``OptionValues``."""
        return self.flag.removeprefix("--").replace("-", "_")

    @property
    def variable(self) -> str:
        """The environment variable of this option."""
        return f"SERVICE_MANAGER_{self.name.upper()}"

    @property
    def is_switch(self) -> bool:
        """Whether the option takes no value."""
        return not self.metavar


class Argument(NamedTuple):
    """One positional argument; ``arity`` is argparse's ``nargs`` ('' for exactly one)."""

    name: str
    help: str
    arity: str = ""
    complete: str = ""
    default: Any = None

    @property
    def usage(self) -> str:
        """The argument in a usage line."""
        return {"?": f"[{self.name}]", "+": f"{self.name}…", "*": f"[{self.name}…]"}.get(
            self.arity, self.name
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command. ``handler`` is ``module:function``, imported when the command runs."""

    name: str
    section: str
    summary: str
    description: str
    handler: str
    arguments: tuple[Argument, ...] = ()
    options: tuple[Option, ...] = ()
    examples: tuple[tuple[str, str], ...] = ()
    exits: tuple[tuple[str, str], ...] = ()

    def load(self) -> Callable[..., int]:
        """Import the handler: it takes ``OptionValues`` and a ``Console`` and returns the exit code."""
        module, function = self.handler.split(":")
        handler: Callable[..., int] = getattr(
            importlib.import_module(f"reconciler.cli.commands.{module}"), function
        )
        return handler
