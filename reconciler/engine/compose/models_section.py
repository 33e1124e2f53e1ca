"""Puts the top-level ``models`` back into the JSON form of a resolved model. Pure.

Compose 2.38 to 5.5 writes them into the YAML form of ``config`` only, and then refuses its own JSON: "service
refers to undefined model".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from reconciler.errors import InvalidDesiredState
from reconciler.host.yaml_positions import parse_document


def lacks_models(model: Mapping[str, Any]) -> bool:
    """Return whether a service uses models, but the resolved model defines none."""
    return "models" not in model and any((entry or {}).get("models") for entry in model["services"].values())


def with_models(text: bytes, yaml: bytes) -> bytes:
    """Return the JSON form with the ``models`` of the YAML form; every other byte stays."""
    try:
        model = parse_document("resolved model", yaml, lenient=True).plain
    except InvalidDesiredState:
        return text
    models = model.get("models") if isinstance(model, dict) else None
    if not models:
        return text
    return b'{"models": ' + json.dumps(models, ensure_ascii=False).encode() + b"," + text.lstrip()[1:]
