"""What stands in the audit log: facts, and the chain that each entry is a link of. Pure.

An entry's hash covers its number, all its fields and the hash of the entry before it. One that was changed
no longer fits its own hash, one that was taken out or moved leaves a neighbour that does not fit.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

GENESIS = bytes(32)
"""Stands where the hash of the entry before the first one would."""

_FORMAT = b"service-manager audit 1\n"
_LONGEST = (100, 200, 100, 100, 100, 500, 100)
"""Characters of action, target, result, user, reason, message and source."""
_LONGEST_NAME = 100
_MOST_GROUPS = 64


class AuditEvent(NamedTuple):
    """Something that happened, as it is to be recorded.

    ``action`` and ``result`` are stable words, ``reason`` a stable word for why, ``message`` the same for
    people. ``user`` is a key's name, ``file``, ``loop``, ``daemon`` or ``anonymous``; ``source`` the address
    that it came from. ``times`` tells how often it happened, where repeats are recorded as one. ``at`` is
    wall time in seconds since the epoch.
    """

    action: str
    target: str = ""
    result: str = ""
    user: str = ""
    reason: str = ""
    message: str = ""
    source: str = ""
    generation: int = 0
    groups: tuple[str, ...] = ()
    times: int = 1
    at: float = 0.0


class ChainLink(NamedTuple):
    """A place in the chain: the number of an entry and its hash; ``(0, GENESIS)`` before the first."""

    id: int
    hash: bytes


START = ChainLink(0, GENESIS)


class Entry(NamedTuple):
    """One entry: the fact, its number, the hash of the entry before and its own."""

    id: int
    fact: AuditEvent
    before: bytes
    hash: bytes


def append_link(before: ChainLink, facts: Sequence[AuditEvent]) -> list[Entry]:
    """The facts as entries that follow ``before``, their texts made harmless and short."""
    entries = []
    for given in facts:
        fact = clean(given)
        number = before.id + 1
        entries.append(Entry(number, fact, before.hash, entry_hash(number, fact, before.hash)))
        before = ChainLink(number, entries[-1].hash)
    return entries


def entry_hash(number: int, fact: AuditEvent, before: bytes) -> bytes:
    """The hash that the entry with this number must have."""
    fields = [number, *to_row(fact)]
    text = json.dumps(fields, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(_FORMAT + before + text.encode()).digest()


def to_row(fact: AuditEvent) -> tuple[Any, ...]:
    """The fact as plain values, in the order of ``COLUMNS``."""
    return (
        round(fact.at * 1e6),
        *fact[:7],
        fact.generation,
        json.dumps(fact.groups, separators=(",", ":")),
        fact.times,
    )


COLUMNS = ("at", *AuditEvent._fields[:10])
"""The columns of an entry between its number and its two hashes; ``at`` in whole microseconds."""


def from_row(row: Sequence[Any]) -> AuditEvent:
    """What ``to_row`` gave.

    Raises:
        ValueError, TypeError: it is not one of ours; somebody wrote into the database.
    """
    at, *words, generation, groups, times = row
    action, target, result, user, reason, message, source = words
    return AuditEvent(
        action,
        target,
        result,
        user,
        reason,
        message,
        source,
        generation,
        _names(groups),
        times,
        at / 1e6,
    )


def clean(fact: AuditEvent) -> AuditEvent:
    """Every text on one line, without anything a terminal would obey, and of a sane length."""
    words = [clean_text(word, most) for word, most in zip(fact[:7], _LONGEST, strict=True)]
    groups = tuple(clean_text(name, _LONGEST_NAME) for name in fact.groups[:_MOST_GROUPS])
    action, target, result, user, reason, message, source = words
    return fact._replace(
        action=action,
        target=target,
        result=result,
        user=user,
        reason=reason,
        message=message,
        source=source,
        groups=groups,
        at=round(fact.at * 1e6) / 1e6,
    )


def clean_text(text: str, longest: int) -> str:
    """One text, cut where it is too long; half a surrogate pair, which no database takes, becomes ``?``."""
    if len(text) > longest:
        text = f"{text[: longest - 1]}…"
    if text.isascii() and text.isprintable():
        return text
    text = text.encode("utf-8", "replace").decode()
    return "".join(" " if unicodedata.category(c) in {"Cc", "Cf", "Zl", "Zp"} else c for c in text).strip()


def _names(groups: str) -> tuple[str, ...]:
    try:
        return tuple(map(str, json.loads(groups)))
    except RecursionError:
        raise ValueError("groups are nested too deeply") from None
