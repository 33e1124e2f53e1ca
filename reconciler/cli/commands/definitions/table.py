"""Every command. Keep this import cheap: ``--help`` needs nothing else."""

from __future__ import annotations

from reconciler.cli.commands.definitions.client import CLIENTS
from reconciler.cli.commands.definitions.history import HISTORY
from reconciler.cli.commands.definitions.local import LOCAL
from reconciler.cli.commands.definitions.records import RECORDS
from reconciler.cli.commands.definitions.suspend import SUSPENSIONS
from reconciler.cli.options.command import PROGRAM, Command, Program
from reconciler.cli.options.common_options import SECTIONS

COMMANDS: tuple[Command, ...] = (*LOCAL, *CLIENTS, *SUSPENSIONS, *HISTORY, *RECORDS)
BY_NAME = {str(command.name): command for command in COMMANDS}

PROGRAM_COMMAND = Program(
    "Reconcile a stack of containers with its files. Edit desired-state/groups.yaml, or use start and stop: "
    "the daemon brings the containers to the desired state and keeps them there.",
    f"`{PROGRAM} COMMAND --help` describes a command. Every option has an environment variable: "
    "SERVICE_MANAGER_SOME_THING for --some-thing. The option takes precedence.",
    COMMANDS,
    SECTIONS,
)
