"""Audit events, and the hash chain that links their entries. Pure.

An entry's hash covers its number, all its fields and the hash of the previous entry. A changed entry no
longer matches its own hash; a removed or moved one breaks the link to its neighbour.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

GENESIS = bytes(32)
"""The previous hash of the first entry."""

_FORMAT = b"service-manager audit 1\n"
_LONGEST = (100, 200, 100, 100, 100, 500, 100)
"""Characters of action, target, result, user, reason, message and source."""
_LONGEST_NAME = 100
_MOST_GROUPS = 64


class AuditEvent(NamedTuple):
    """Something that happened, ready to be recorded.

    ``action``, ``result`` and ``reason`` are stable words; ``message`` gives the reason for people. ``user``
    is a key's name, ``file``, ``loop``, ``daemon`` or ``anonymous``; ``source`` the address of the client.
    ``times`` counts occurrences, where repeats are recorded as one event. ``at`` is wall time in seconds
    since the epoch.
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
    """A position in the chain: an entry's number and hash; ``(0, GENESIS)`` before the first entry."""

    id: int
    hash: bytes


START = ChainLink(0, GENESIS)


class Entry(NamedTuple):
    """One entry: its number, the event, the hash of the previous entry and its own hash."""

    id: int
    event: AuditEvent
    before: bytes
    hash: bytes


def append_link(before: ChainLink, events: Sequence[AuditEvent]) -> list[Entry]:
    """Turn events into entries that follow ``before``, with their texts cleaned (see ``clean``)."""
    entries = []
    for raw in events:
        event = clean(raw)
        number = before.id + 1
        entries.append(Entry(number, event, before.hash, entry_hash(number, event, before.hash)))
        before = ChainLink(number, entries[-1].hash)
    return entries


def entry_hash(number: int, event: AuditEvent, before: bytes) -> bytes:
    """Return the hash that the entry with this number must have."""
    fields = [number, *to_row(event)]
    text = json.dumps(fields, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(_FORMAT + before + text.encode()).digest()


def to_row(event: AuditEvent) -> tuple[Any, ...]:
    """Return the event as plain values, in the order of ``COLUMNS``."""
    return (
        round(event.at * 1e6),
        *event[:7],
        event.generation,
        json.dumps(event.groups, separators=(",", ":")),
        event.times,
    )


COLUMNS = ("at", *AuditEvent._fields[:10])
"""The columns of an entry between its number and its two hashes; ``at`` in whole microseconds."""


def from_row(row: Sequence[Any]) -> AuditEvent:
    """Return the event that ``to_row`` turned into this row.

    Raises:
        ValueError, TypeError: ``to_row`` never makes such a row; another program wrote it.
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


def clean(event: AuditEvent) -> AuditEvent:
    """Limit every text to one line of bounded length without control characters."""
    words = [clean_text(word, most) for word, most in zip(event[:7], _LONGEST, strict=True)]
    groups = tuple(clean_text(name, _LONGEST_NAME) for name in event.groups[:_MOST_GROUPS])
    action, target, result, user, reason, message, source = words
    return event._replace(
        action=action,
        target=target,
        result=result,
        user=user,
        reason=reason,
        message=message,
        source=source,
        groups=groups,
        at=round(event.at * 1e6) / 1e6,
    )


def clean_text(text: str, longest: int) -> str:
    """Clean one text and cut it to ``longest``; a lone surrogate, which SQLite can't store, becomes ``?``."""
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
