"""Compute paths as Docker Compose does."""

from __future__ import annotations

import os
import os.path
from contextlib import suppress
from pathlib import Path, PurePath


def working_directory(directory: PurePath | str) -> str:
    """Return the working directory and PWD of every Compose call for this project directory.

    Like Compose, this makes the path absolute and removes ``..`` without following links:
    ``/srv/stack/desired/..`` is ``/srv/stack``, where a user runs ``docker compose up``.
    """
    return os.path.abspath(directory) if str(directory) else "/"  # noqa: PTH100 - resolve() follows links


def current_directory() -> str:
    """Return the current directory as the calling shell names it (PWD).

    In ``/srv/stack``, reached through the link ``~/stack``, this is ``~/stack``: Docker Compose uses that
    name in container paths, and another name for the same files changes the definition.
    """
    named = Path(os.environ.get("PWD", ""))
    with suppress(OSError):
        if named.is_absolute() and named.samefile("."):
            return str(named)
    return str(Path.cwd())
