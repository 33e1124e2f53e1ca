"""Opens the client of a command from its ``--url`` and ``--api-key-file``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from reconciler.cli.client import STARTING, Client, ClientError
from reconciler.cli.options.parameters import UsageError, closest

_VARIABLE = "SERVICE_MANAGER_API_KEY"
_LONGEST_KEY = 4096


class Connection(NamedTuple):
    """``--url``, ``--api-key-file`` and ``--timeout`` (seconds; None: the command has no such option)."""

    url: str
    api_key_file: str | None = None
    timeout: float | None = None

    def open(
        self,
        environ: Mapping[str, str] | None = None,
        stdin: TextIO | None = None,
        *,
        absent_timeout: float = 0.0,
        on_wait: Callable[[], None] = lambda: None,
    ) -> Client:
        """Create the client; ``absent_timeout`` and ``on_wait`` are those of ``Client``.

        ``timeout`` also limits the time to wait for a daemon that is starting.

        Raises:
            ClientError: the API key can't be read or is malformed.
        """
        longest = STARTING if self.timeout is None else self.timeout
        return Client(
            self.url,
            _key(self.api_key_file, environ, stdin),
            starting_timeout=min(STARTING, longest),
            absent_timeout=min(absent_timeout, longest),
            on_wait=on_wait,
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
    # Other characters are not valid in a header; the file is probably not a key file.
    if not all("!" <= letter <= "~" for letter in key):
        raise ClientError(f"{source} holds no valid API key: expected one line of printable ASCII characters")
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
    """Return every group by name, with services, dependencies and memory estimate.

    Raises:
        ClientError: the request failed.
    """
    answer = client.get("/services/groups")
    groups = answer.get("groups") if isinstance(answer, dict) else None
    return groups if isinstance(groups, dict) else {}


def check_group(name: str, known: Mapping[str, object]) -> None:
    """Check the name of a group before anything is changed.

    Raises:
        UsageError: unknown group; the hint names the most similar group, or all groups.
    """
    if name not in known:
        hint = closest(name, known) or f"the groups are {', '.join(known)}"
        raise UsageError(f"there is no group {name!r}", hint)
