"""``completion``: prints the script for a shell; the script requests completions from this program."""

from __future__ import annotations

import os
import re

from reconciler.cli.client import Client, ClientError
from reconciler.cli.connection import known_groups
from reconciler.cli.console import Console
from reconciler.cli.options import option_types
from reconciler.cli.options.command import COMPLETION_VARIABLE, PROGRAM
from reconciler.errors import ServiceManagerError

_TIMEOUT = 0.5
"""Seconds to wait for the daemon after Tab is pressed."""
_COMPLETABLE = re.compile(r"[\w.@%+-]+")


def completion(console: Console, *, shell: str) -> int:
    """Print the script for a shell, or with ``groups`` (for scripts of earlier versions) the group names."""
    from click.shell_completion import get_completion_class

    from reconciler.cli.commands.definitions.table import PROGRAM_COMMAND

    if shell == "groups":
        for name in group_names():
            console.print(name)
        return 0
    kind = get_completion_class(shell)
    assert kind is not None  # the argument accepts only shells that click knows
    console.out.write(kind(PROGRAM_COMMAND, {}, PROGRAM, COMPLETION_VARIABLE).source())
    return 0


def group_names() -> list[str]:
    """Return names of groups from the daemon, else from stack.yaml; empty if neither can be read."""
    names: list[str] = []
    try:
        url = option_types.url(os.environ.get("SERVICE_MANAGER_URL") or option_types.default_url())
        key = os.environ.get("SERVICE_MANAGER_API_KEY", "")
        names = list(known_groups(Client(url, key, timeout=_TIMEOUT, starting_timeout=0.0)))
    except (ClientError, ValueError):
        names = _from_file()
    # Leave out a name with a blank, which the shell would split; it can still be typed.
    return [name for name in names if _COMPLETABLE.fullmatch(name)]


def _from_file() -> list[str]:
    from reconciler.host.yaml_positions import parse_document

    try:
        file = (
            option_types.path(os.environ.get("SERVICE_MANAGER_DESIRED_STATE") or "desired-state")
            / "stack.yaml"
        )
        plain = parse_document("stack.yaml", file.read_bytes()).plain
    except (OSError, ValueError, ServiceManagerError):
        return []
    groups = plain.get("groups") if isinstance(plain, dict) else None
    return [str(name) for name in groups] if isinstance(groups, dict) else []
