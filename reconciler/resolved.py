"""The resolved Compose model, as it is frozen. A value of its own, so that the store needs no adapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Resolved(NamedTuple):
    """What Docker Compose made of the Compose files at one moment.

    ``text`` is the resolved model as JSON, byte for byte what is frozen and what containers are made
    from; it may hold secrets. ``hashes`` maps each service to the hash that Compose writes into its
    container's label, and ``version`` is the Compose that said so. ``warnings`` is what it warned of,
    such as a variable that is not set.
    """

    text: bytes
    hashes: Mapping[str, str]
    version: str
    warnings: tuple[str, ...] = ()
