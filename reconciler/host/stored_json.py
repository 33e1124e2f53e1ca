"""Encodes and decodes values that are stored as JSON, described by pydantic adapters.

Files of the state directory may be damaged or edited: ``decode`` raises a one-line ``ValueError`` without
the offending value, which may be a secret.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

Value = TypeVar("Value")


def encode(adapter: TypeAdapter[Value], value: Value) -> bytes:
    """Encode a value as compact JSON."""
    try:
        return adapter.dump_json(value, warnings=False)
    except PydanticSerializationError:
        # A lone surrogate, for example from a file name that is not UTF-8: JSON can only escape it.
        plain = adapter.dump_python(value, mode="json", warnings=False)
        return json.dumps(plain, separators=(",", ":")).encode()


def decode(adapter: TypeAdapter[Value], value: Any) -> Value:
    """Convert parsed JSON (``load_json``) to a value.

    Raises:
        ValueError: the JSON does not have the shape of the value.
    """
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place}: {first['msg']}" if place else first["msg"]) from None
