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


class Fact(NamedTuple):
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


class Link(NamedTuple):
    """A place in the chain: the number of an entry and its hash; ``(0, GENESIS)`` before the first."""

    id: int
    hash: bytes


START = Link(0, GENESIS)


class Entry(NamedTuple):
    """One entry: the fact, its number, the hash of the entry before and its own."""

    id: int
    fact: Fact
    before: bytes
    hash: bytes


def link(before: Link, facts: Sequence[Fact]) -> list[Entry]:
    """The facts as entries that follow ``before``, their texts made harmless and short."""
    entries = []
    for given in facts:
        fact = tidy(given)
        number = before.id + 1
        entries.append(Entry(number, fact, before.hash, hash_of(number, fact, before.hash)))
        before = Link(number, entries[-1].hash)
    return entries


def hash_of(number: int, fact: Fact, before: bytes) -> bytes:
    """The hash that the entry with this number must have."""
    fields = [number, *row_of(fact)]
    text = json.dumps(fields, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(_FORMAT + before + text.encode()).digest()


def row_of(fact: Fact) -> tuple[Any, ...]:
    """The fact as plain values, in the order of ``COLUMNS``."""
    return (
        round(fact.at * 1e6),
        *fact[:7],
        fact.generation,
        json.dumps(fact.groups, separators=(",", ":")),
        fact.times,
    )


COLUMNS = ("at", *Fact._fields[:10])
"""The columns of an entry between its number and its two hashes; ``at`` in whole microseconds."""


def fact_of(row: Sequence[Any]) -> Fact:
    """What ``row_of`` gave.

    Raises:
        ValueError, TypeError: it is not one of ours; somebody wrote into the database.
    """
    at, *words, generation, groups, times = row
    action, target, result, user, reason, message, source = words
    return Fact(
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


def tidy(fact: Fact) -> Fact:
    """Every text on one line, without anything a terminal would obey, and of a sane length."""
    words = [tidy_text(word, most) for word, most in zip(fact[:7], _LONGEST, strict=True)]
    groups = tuple(tidy_text(name, _LONGEST_NAME) for name in fact.groups[:_MOST_GROUPS])
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


def tidy_text(text: str, longest: int) -> str:
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
