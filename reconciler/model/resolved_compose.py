"""The resolved Compose model in the form that is frozen. Independent of the adapter that resolves it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Resolved(NamedTuple):
    """The Compose files as Docker Compose resolved them at one moment.

    ``text`` is the resolved model as JSON, byte for byte what is frozen and what containers are created
    from; it may hold secrets. ``hashes`` maps each service to the hash that Compose writes into its
    container's label, and ``version`` is the version of that Compose. ``warnings`` are Compose's, such as
    a variable that is not set. ``values`` maps ``start_work.value_key`` to the value of each config and
    secret that comes from a variable, since the text only names the variable; None: it is not set.
    ``digests`` are keyed digests of all values that are copied into containers, with the same keys.
    """

    text: bytes
    hashes: Mapping[str, str]
    version: str
    warnings: tuple[str, ...] = ()
    values: Mapping[str, str | None] = {}
    digests: Mapping[str, str] = {}
