"""From the values of a command to the daemon that it means: address and API key."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from reconciler.cli.client import STARTING, Client, ClientError
from reconciler.cli.options.parsing import UsageError, closest
from reconciler.cli.options.spec import OptionValues

_VARIABLE = "SERVICE_MANAGER_API_KEY"
_LONGEST_KEY = 4096


def client_from(
    values: OptionValues,
    environ: Mapping[str, str] | None = None,
    stdin: TextIO | None = None,
    *,
    absent: float = 0.0,
    waiting: Callable[[], None] = lambda: None,
) -> Client:
    """The client that ``--url`` and ``--api-key-file`` describe; ``absent`` and ``waiting`` as it takes them.

    A ``--timeout`` in seconds bounds its waiting for a daemon that is starting.

    Raises:
        ClientError: the key can't be read, or can't be one.
    """
    limit = values.get("timeout")
    within = float(limit) if isinstance(limit, int | float) else STARTING
    return Client(
        values["url"],
        _key(values["api_key_file"], environ, stdin),
        starting=min(STARTING, within),
        absent=min(absent, within),
        waiting=waiting,
    )


def _key(file: str | None, environ: Mapping[str, str] | None, stdin: TextIO | None) -> str:
    if file is None:
        key, source = (os.environ if environ is None else environ).get(_VARIABLE, ""), _VARIABLE
    elif file == "-":
        key, source = (stdin or sys.stdin).readline(_LONGEST_KEY), "standard input"
    else:
        key, source = _from_file(file), file
    key = key.strip()
    if file is not None and not key:
        raise ClientError(f"there is no API key in {source}")
    # Anything else can't stand in a header, and would be a file that was not meant.
    if not all("!" <= letter <= "~" for letter in key):
        raise ClientError(f"what is in {source} is not an API key: one line of plain characters is expected")
    return key


def _from_file(file: str) -> str:
    try:
        with Path(file).expanduser().open(encoding="utf-8") as opened:
            return opened.read(_LONGEST_KEY)
    except OSError as error:
        raise ClientError(f"the API key can't be read from {file}: {error.strerror}") from error
    except ValueError:
        raise ClientError(f"the API key file {file} is not text") from None


def known_groups(client: Client) -> dict[str, dict[str, Any]]:
    """Every group that the daemon has, with services, dependencies and estimate.

    Raises:
        ClientError: the daemon can't be asked.
    """
    answer = client.get("/services/groups")
    groups = answer.get("groups") if isinstance(answer, dict) else None
    return groups if isinstance(groups, dict) else {}


def check_group(name: str, known: Mapping[str, object]) -> None:
    """A mistyped group is a usage error, told before anything is changed.

    Raises:
        UsageError: there is no such group; the hint names the nearest one, or all.
    """
    if name not in known:
        hint = closest(name, known) or f"the groups are {', '.join(known)}"
        raise UsageError(f"there is no group {name!r}", hint)
