"""Parses untrusted JSON: strict syntax, finite numbers. Pure."""

from __future__ import annotations

import json
import math
from typing import Any


def load_json(content: bytes | str) -> Any:
    """Parse a JSON text.

    Raises:
        ValueError: it is not JSON, has a number that is not finite, or is nested too deeply.
    """
    try:
        return json.loads(content, parse_constant=_refused, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refused(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:20]} is too large")
    return number
