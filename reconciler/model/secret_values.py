"""Values of configs and secrets that the resolved model only names: their digests, and how they freeze.

Pure. A frozen model names the file with its values, so that a container that was made from it gets exactly
those values whenever it is started, whatever the files of the directory say by then.
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
"""The extension of a frozen model that names the file of its values, relative to the model's own folder."""


def variables_of(model: Mapping[str, Any]) -> dict[str, str]:
    """The variable behind each config and secret that has one, by ``start_work.value_key``."""
    return {
        value_key(kind, name): entry["environment"]
        for kind in (CONFIG, SECRET)
        for name, entry in (model.get(f"{kind}s") or {}).items()
        if (entry or {}).get("environment")
    }


def with_digests(resolved: Resolved, key: DigestKey | None) -> Resolved:
    """``resolved`` with a keyed digest of every value that is copied into containers; as it is without a key.

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


def packed(values: Mapping[str, str | None], key: DigestKey | None) -> bytes:
    """The values as a content to freeze; equal values, equal content.

    Salted, since frozen contents are named by a plain digest, which is part of a label of the container.
    """
    text = json.dumps(dict(sorted(values.items())))
    salt = key.digest("salt of frozen values", text) if key else ""
    return json.dumps({"salt": salt, "values": load_json(text)}).encode()


def unpacked(content: bytes) -> dict[str, str | None]:
    """The values that ``packed`` wrote.

    Raises:
        ValueError: it is nothing that ``packed`` wrote.
    """
    told = load_json(content)
    values = told.get("values") if isinstance(told, dict) else None
    if not isinstance(values, dict):
        raise ValueError("holds no values")  # noqa: TRY004 - one kind of error for one kind of damage
    return {str(name): None if value is None else str(value) for name, value in values.items()}


def pointing_to(text: bytes, place: str) -> bytes:
    """A resolved model that names the file of its values."""
    return json.dumps({**load_json(text), POINTER: place}).encode()
