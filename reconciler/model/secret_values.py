"""Digests and frozen form of the config and secret values that the resolved model only names.

Pure. A frozen model names the file with its values, so that a container created from it gets exactly those
values at every start, whatever the desired-state files contain by then.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from reconciler.model.json_text import load_json
from reconciler.model.keyed_digest import DigestKey
from reconciler.model.resolved_compose import Resolved
from reconciler.model.start_work import CONFIG, SECRET, unescaped, value_key

POINTER = "x-service-manager-values"
"""The extension key of a frozen model that names its file of values, relative to the model's folder."""


def variables_of(model: Mapping[str, Any]) -> dict[str, str]:
    """Map the ``start_work.value_key`` of each config and secret that comes from a variable to its name."""
    return {
        value_key(kind, name): entry["environment"]
        for kind in (CONFIG, SECRET)
        for name, entry in (model.get(f"{kind}s") or {}).items()
        if (entry or {}).get("environment")
    }


def with_digests(resolved: Resolved, key: DigestKey | None) -> Resolved:
    """Add a keyed digest of every value that is copied into containers; without a key, change nothing.

    Raises:
        ValueError: the text is not JSON.
    """
    if key is None:
        return resolved
    contents = _contents(resolved.text)
    values: dict[str, str | None] = {**contents, **resolved.values}
    return resolved._replace(digests={name: key.digest(name, value) for name, value in values.items()})


@lru_cache(maxsize=4)
def _contents(text: bytes) -> Mapping[str, str]:
    model = load_json(text)
    if not isinstance(model, dict):
        return {}
    return {
        value_key(kind, name): unescaped(entry["content"])
        for kind in (CONFIG, SECRET)
        for name, entry in (model.get(f"{kind}s") or {}).items()
        if entry and not entry.get("environment") and entry.get("content") is not None
    }


def encode_values(values: Mapping[str, str | None], key: DigestKey | None) -> bytes:
    """Encode the values as the content of a frozen file; equal values give equal content.

    The content is salted: its plain digest names the file and is part of a container's label, where guessed
    values could be tested against it.
    """
    text = json.dumps(dict(sorted(values.items())))
    salt = key.digest("salt of frozen values", text) if key else ""
    return json.dumps({"salt": salt, "values": load_json(text)}).encode()


def decode_values(content: bytes) -> dict[str, str | None]:
    """Decode the result of ``encode_values``.

    Raises:
        ValueError: the content is something else.
    """
    document = load_json(content)
    values = document.get("values") if isinstance(document, dict) else None
    if not isinstance(values, dict):
        raise ValueError("holds no values")  # noqa: TRY004 - one kind of error for one kind of damage
    return {str(name): None if value is None else str(value) for name, value in values.items()}


def with_values_file(text: bytes, place: str) -> bytes:
    """Return a resolved model that names its file of values; ``place`` is relative to the model's folder."""
    return json.dumps({**load_json(text), POINTER: place}).encode()
