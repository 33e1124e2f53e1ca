"""Every command. Importing this must stay cheap: it is all that ``--help`` needs."""

from __future__ import annotations

from reconciler.commands.shared import SECTIONS
from reconciler.commands.spec import Command
from reconciler.commands.table_client import CLIENTS
from reconciler.commands.table_history import HISTORY
from reconciler.commands.table_local import LOCAL
from reconciler.commands.table_records import RECORDS
from reconciler.commands.table_suspend import SUSPENSIONS

__all__ = ["BY_NAME", "COMMANDS", "SECTIONS"]

COMMANDS: tuple[Command, ...] = (*LOCAL, *CLIENTS, *SUSPENSIONS, *HISTORY, *RECORDS)
BY_NAME = {command.name: command for command in COMMANDS}
