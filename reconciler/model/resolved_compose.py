"""The resolved Compose model, as it is frozen, and where Compose resolves it. Needs no adapter."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePath
from typing import NamedTuple


class Resolved(NamedTuple):
    """What Docker Compose made of the Compose files at one moment.

    ``text`` is the resolved model as JSON, byte for byte what is frozen and what containers are made
    from; it may hold secrets. ``hashes`` maps each service to the hash that Compose writes into its
    container's label, and ``version`` is the Compose that said so. ``warnings`` is what it warned of,
    such as a variable that is not set. ``values`` are those of configs and secrets that come from a variable,
    by ``start_work.value_key``, None where it is not set: the text only names the variable. ``digests`` are
    keyed digests of all values that are copied into containers, by the same names.
    """

    text: bytes
    hashes: Mapping[str, str]
    version: str
    warnings: tuple[str, ...] = ()
    values: Mapping[str, str | None] = {}
    digests: Mapping[str, str] = {}


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
