"""Paths as Docker Compose makes them."""

from __future__ import annotations

import os
import os.path
from contextlib import suppress
from pathlib import Path, PurePath


def working_directory(directory: PurePath | str) -> str:
    """The working directory and PWD of every Compose call for a project whose directory is this.

    Made absolute and free of ``..`` as Compose does it, by text alone: ``/srv/stack/desired/..`` is
    ``/srv/stack``, the folder in which a person calls ``docker compose up``.
    """
    return os.path.abspath(directory) if str(directory) else "/"  # noqa: PTH100 - resolve() follows links


def current_directory() -> str:
    """The directory that this process was called in, as the shell of its caller names it.

    In ``/srv/stack``, reached by a link as ``~/stack``, that is ``~/stack``: there Docker Compose names paths
    in containers so, and the same files named otherwise are another definition.
    """
    named = Path(os.environ.get("PWD", ""))
    with suppress(OSError):
        if named.is_absolute() and named.samefile("."):
            return str(named)
    return str(Path.cwd())
