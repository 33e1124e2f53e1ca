"""``completion``: prints the script for a shell, and the names of groups for the scripts."""

from __future__ import annotations

import os
import re

from reconciler.cli.client import Client, ClientError
from reconciler.cli.completion import SHELLS
from reconciler.cli.connection import known_groups
from reconciler.cli.console import Console
from reconciler.cli.options import option_types
from reconciler.cli.options.parsing import UsageError, closest
from reconciler.cli.options.spec import OptionValues
from reconciler.errors import ServiceManagerError

_TIMEOUT = 0.5
"""Seconds to wait for the daemon after Tab is pressed."""
_COMPLETABLE = re.compile(r"[\w.@%+-]+")


def completion(values: OptionValues, console: Console) -> int:
    """Print the script for a shell, or with ``groups`` (which the scripts call) the names of groups."""
    shell = values["shell"]
    if shell == "groups":
        for name in _groups():
            console.print(name)
        return 0
    if shell not in SHELLS:
        raise UsageError(
            f"there is no completion for {shell!r}", closest(shell, SHELLS) or "bash, zsh or fish"
        )
    console.out.write(SHELLS[shell]())
    return 0


def _groups() -> list[str]:
    """Names of groups from the daemon, else from stack.yaml; empty if neither can be read."""
    names: list[str] = []
    try:
        url = option_types.url(os.environ.get("SERVICE_MANAGER_URL") or option_types.default_url())
        key = os.environ.get("SERVICE_MANAGER_API_KEY", "")
        names = list(known_groups(Client(url, key, timeout=_TIMEOUT, starting_timeout=0.0)))
    except (ClientError, ValueError):
        names = _from_file()
    # The shell would split a name with a blank; such a name can still be typed.
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
