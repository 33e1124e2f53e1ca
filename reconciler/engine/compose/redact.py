"""Removes values from Compose's error messages: a malformed line of an env file is often half a password."""

from __future__ import annotations

import re

_QUOTED = r'"(?:\\.|[^"\\])*"'
_ASSIGNMENT = "the line must be NAME=VALUE"

# Written by the reader of env files in compose-go (package dotenv), its template package, and go-yaml. What a
# message quotes is a value, or a part of a line that was meant as one.
_FORMS = (
    (
        re.compile(r"unexpected character .*? in variable name .*", re.DOTALL),
        f"unexpected character; {_ASSIGNMENT}",
    ),
    (re.compile(r"key cannot contain a space.*", re.DOTALL), f"a space in the name; {_ASSIGNMENT}"),
    (re.compile(r"unterminated quoted value .*", re.DOTALL), "a quoted value has no closing quote"),
    (re.compile(rf"(?i)\b(invalid template:? ){_QUOTED}"), r"\1(write a $ of the value as $$)"),
    (re.compile(rf"(?i)\b(invalid interpolation format for [^\s:]+:? ){_QUOTED}"), r"\1(value left out)"),
    (re.compile(rf"(?i)\b(invalid environment variable:? )({_QUOTED}|\S.*)"), r"\1(value left out)"),
    (re.compile(r"(cannot (?:unmarshal|decode) \S+) `[^`]*`"), r"\1 value"),
)


def without_values(message: str) -> str:
    """Return an error message of Compose without the values that it quotes; keeps file, line and kind."""
    for form, replacement in _FORMS:
        message = form.sub(replacement, message)
    return message
