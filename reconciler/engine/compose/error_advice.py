"""Adds to Compose's messages what a person has to do, and which variable was not set. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

_UNSET = re.compile(r'The \\?"(?P<name>[^"\\]+)\\?" variable is not set')
_MOST_NAMED = 5

_ADVICE = (
    (
        re.compile(r"^project name must not be empty"),
        "the name of the folder has no Latin letter or digit, so it gives no project name: add a line "
        "`name: shop` to the Compose file, or COMPOSE_PROJECT_NAME=shop to .env",
    ),
    (
        re.compile(r"^(?P<all>invalid project name .*)", re.DOTALL),
        r"\g<all>; correct `name:` in the Compose file, or COMPOSE_PROJECT_NAME in .env",
    ),
    (
        re.compile(r"^empty compose file"),
        "empty compose file, which has no services: add at least one below `services:`",
    ),
    (
        re.compile(r"^unmarshal errors: line 1: cannot unmarshal .*"),
        "expected keys and values, such as `services:`",
    ),
)

NO_SERVICES = "the Compose files have no services: add at least one below `services:`"


def advised(sentence: str) -> str:
    """Return the message with advice, if there is advice for it."""
    for pattern, advice in _ADVICE:
        match = pattern.match(sentence)
        if match:
            return match.expand(advice) if r"\g" in advice else advice
    return sentence


def unset_variables(messages: Sequence[str]) -> tuple[str, ...]:
    """Return the variables that Compose's output says are not set, each once."""
    return tuple(dict.fromkeys(match["name"] for line in messages for match in _UNSET.finditer(line)))


def with_unset(sentence: str, unset: Sequence[str], text: str) -> str:
    """Return the message with the unset variables that ``text`` uses, the source of the mistake.

    With an empty ``text``, the place is unknown and every unset variable may be the cause.
    """
    used = [name for name in unset if not text or re.search(rf"\$\{{?{re.escape(name)}\b", text)]
    used = [name for name in used if name not in sentence]
    if not used:
        return sentence
    named = ", ".join(used[:_MOST_NAMED]) + (", ..." if used[_MOST_NAMED:] else "")
    return f"{sentence} (not set: the variable{'s' if used[1:] else ''} {named})"
