"""What a command is, as data: its words, options, examples and exit codes.

Help, parsing and shell completion are all made from these values, so none can say what another doesn't.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

PROGRAM = "service-manager"

OptionValues = Mapping[str, Any]
"""The options and arguments of one call, by name with underscores, converted and complete."""


class Option(NamedTuple):
    """One ``--flag``. ``convert`` raises ``ValueError`` with a sentence for a bad value.

    ``complete`` says what a shell offers for the value: files, dirs, or words separated by blanks.
    ``default`` may be a function, called only when it is needed.
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
        """The name among the parsed values."""
        return self.flag.removeprefix("--").replace("-", "_")

    @property
    def variable(self) -> str:
        """The environment variable that says the same."""
        return f"SERVICE_MANAGER_{self.name.upper()}"

    @property
    def switch(self) -> bool:
        """Whether it takes no value."""
        return not self.metavar


class Argument(NamedTuple):
    """One positional argument; ``arity`` as argparse's nargs ('' for exactly one)."""

    name: str
    help: str
    arity: str = ""
    complete: str = ""
    default: Any = None

    @property
    def shown(self) -> str:
        """As it stands in a usage line."""
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
        """The function that does the work: takes ``OptionValues`` and a ``Console``, returns the exit
        code."""
        module, function = self.handler.split(":")
        found: Callable[..., int] = getattr(
            importlib.import_module(f"reconciler.cli.commands.{module}"), function
        )
        return found
