"""Every command. Keep this import cheap: ``--help`` needs nothing else."""

from __future__ import annotations

from reconciler.cli.commands.definitions.client import CLIENTS
from reconciler.cli.commands.definitions.history import HISTORY
from reconciler.cli.commands.definitions.local import LOCAL
from reconciler.cli.commands.definitions.records import RECORDS
from reconciler.cli.commands.definitions.suspend import SUSPENSIONS
from reconciler.cli.options.common_options import SECTIONS
from reconciler.cli.options.spec import Command

__all__ = ["BY_NAME", "COMMANDS", "SECTIONS"]

COMMANDS: tuple[Command, ...] = (*LOCAL, *CLIENTS, *SUSPENSIONS, *HISTORY, *RECORDS)
BY_NAME = {command.name: command for command in COMMANDS}
