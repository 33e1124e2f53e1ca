"""The field types of ``stack.yaml`` and ``groups.yaml``: accepted notations and their error messages.

Each validator converts a value of the file to the core's value; ``schema`` uses them in its models.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from reconciler.model import units
from reconciler.model.stack import Strength

_ON = {"on": True, "true": True, "off": False, "false": False}

CUSTOM_ERROR = "field_type"
"""The pydantic error type of the messages made here."""


def _error(message: str) -> PydanticCustomError:
    return PydanticCustomError(CUSTOM_ERROR, "{message}", {"message": message})


def _switch(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _ON:
        return _ON[value.lower()]
    raise _error(f"expected on or off, found {shown(value)}")


def _parsed_by(parse: Any) -> Any:
    def read(value: Any) -> Any:
        try:
            return parse(value if isinstance(value, str) else json.dumps(value))
        except ValueError as error:
            raise _error(f"{error}; found {shown(value)}") from None

    return read


def _dependencies(value: Any) -> Any:
    if isinstance(value, list):
        if not all(isinstance(name, str) for name in value):
            raise _error("expected names of groups, as in [kafka] or {kafka: on}")
        return dict.fromkeys(value, Strength.READY)
    if isinstance(value, dict):
        return {name: _strength(name, strength) for name, strength in value.items()}
    raise _error(f"expected names of groups, as in [kafka] or {{kafka: on}}, found {shown(value)}")


def _strength(name: str, value: Any) -> Strength:
    if value is True or value == "on":
        return Strength.ON
    if value == "ready":
        return Strength.READY
    raise _error(f"{name}: expected on or ready, found {shown(value)}")


def short_state(value: Any) -> Any:
    """Expand `on` to `{state: on}`."""
    return value if isinstance(value, dict) else {"state": value}


def suspension(value: Any) -> Any:
    """Expand `true` to a suspension without end."""
    if isinstance(value, dict):
        return value
    if value in (True, False, "true", "false", "on", "off"):
        return {} if _switch(value) else None
    raise _error(f"expected true, false or {{until: TIME, reason: TEXT}}, found {shown(value)}")


def _flag(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if value in ("true", "false", "on", "off"):
        return _ON[value]
    raise _error(f"expected true or false, found {shown(value)}")


def _text(value: Any) -> Any:
    # YAML reads a description or reason such as 42 as a number.
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _schema(kind: dict[str, Any], *examples: object) -> WithJsonSchema:
    return WithJsonSchema(kind | ({"examples": list(examples)} if examples else {}))


SWITCH_SCHEMA = {"enum": ["on", "off", True, False]}
_TIME_SCHEMA = {"type": "string", "format": "date-time"}

Switch = Annotated[bool, BeforeValidator(_switch), WithJsonSchema(SWITCH_SCHEMA)]
Flag = Annotated[bool, BeforeValidator(_flag), WithJsonSchema({"type": "boolean"})]
Text = Annotated[str, BeforeValidator(_text)]
Memory = Annotated[
    int,
    BeforeValidator(_parsed_by(units.parse_memory)),
    _schema({"type": "string", "pattern": r"^\d+(\.\d+)?\s*([kKmMgGtT]i?)?[bB]$"}, "700MB", "1.5GiB"),
]
Duration = Annotated[
    float, BeforeValidator(_parsed_by(units.parse_duration)), _schema({"type": "string"}, "2m", "30s")
]
Limit = Annotated[
    tuple[int, float], BeforeValidator(_parsed_by(units.parse_limit)), _schema({"type": "string"}, "3 in 30m")
]
Time = Annotated[
    float, BeforeValidator(_parsed_by(units.parse_time)), _schema(_TIME_SCHEMA, "2026-11-23T18:00:00Z")
]
Dependencies = Annotated[
    dict[str, Strength],
    BeforeValidator(_dependencies),
    _schema(
        {
            "anyOf": [
                {"type": "array", "items": {"type": "string"}},
                {"type": "object", "additionalProperties": {"enum": ["on", "ready", True]}},
            ]
        },
        {"kafka": "on"},
        ["kafka"],
    ),
]


def shown(value: Any) -> str:
    """Return a value as text for a mistake, at most 60 characters long."""
    if value is None:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
