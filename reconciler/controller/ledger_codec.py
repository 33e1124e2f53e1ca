"""Encodes the ledger as JSON for the state directory, and decodes what every earlier version wrote.

Lists of values, for example ``made``, are positional: a new item goes to the end, with its default in
``LATER_ITEMS``; a new key gets its default in ``LATER_KEYS``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from reconciler.host.stored_json import decode, encode
from reconciler.model.backoff import Failure
from reconciler.model.fingerprint import from_text
from reconciler.model.json_text import load_json
from reconciler.model.ledger import (
    BuiltFrom,
    Clock,
    ContainerExit,
    HeldChange,
    Ledger,
    Named,
    ParentRuns,
    ReadyWindow,
    Renaming,
)

SCHEMA = 1

LATER_KEYS: dict[str, Any] = {
    "tied": {},
    "changes": {},
    "at_work": {},
    "cut": {},
    "hooks": {},
    "named": None,
    "renaming": None,
    "boot": "",
    "surplus": {},
    "halted": {},
    "completed": {},
}
"""Keys that the first version did not write."""

_LATER_BUILT_FROM = (5, [{}, {}, "", ""])  # mounts, churn, inputs, compose

LATER_ITEMS: dict[str, tuple[int, list[Any]]] = {
    "made": _LATER_BUILT_FROM,
    "making": _LATER_BUILT_FROM,
    "failures": (5, [""]),  # container
}
"""The number of items that the first version wrote, and the items that came later."""


class StoredFailure(NamedTuple):
    """``backoff.Failure`` without ``due``: monotonic times are meaningless after a reboot."""

    attempts: int
    inputs: str
    reason: str
    error: str
    at: float
    container: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLedger:
    """The part of ``ledger.Ledger`` that is stored: all but monotonic times and what each pass observes."""

    schema: int
    made: dict[str, BuiltFrom]
    making: dict[str, BuiltFrom]
    failures: dict[str, StoredFailure]
    settled: dict[str, str]  # the text of a ``DesiredFingerprint``, as version 0.1 wrote it
    restarted: dict[str, float]
    followed: dict[str, str]
    tied: dict[str, ParentRuns]
    stopped: dict[str, float]
    exits: dict[str, ContainerExit]
    durations: dict[str, tuple[float, ...]]
    brackets: dict[str, ReadyWindow]
    changes: dict[str, HeldChange]
    at_work: dict[str, float]
    cut: dict[str, float]
    hooks: dict[str, bool]
    named: Named | None
    renaming: Renaming | None
    boot: str
    surplus: dict[str, HeldChange]
    halted: dict[str, float]
    completed: dict[str, BuiltFrom]


_ADAPTER = TypeAdapter(StoredLedger)
_SAME = tuple(one.name for one in fields(StoredLedger) if one.name not in {"schema", "failures", "settled"})


def encode_ledger(ledger: Ledger) -> bytes:
    """Encode a ledger as JSON."""
    failures = {
        key: StoredFailure(one.attempts, one.inputs, one.reason, one.error, one.at, one.container)
        for key, one in ledger.failures.items()
    }
    same: dict[str, Any] = {name: getattr(ledger, name) for name in _SAME}
    settled = {key: fingerprint.text() for key, fingerprint in ledger.settled.items()}
    return encode(_ADAPTER, StoredLedger(schema=SCHEMA, failures=failures, settled=settled, **same))


def decode_ledger(content: bytes | str, now: Clock) -> Ledger:
    """Decode the result of ``encode_ledger``. Failures are due at once, so a restart retries immediately.

    Raises:
        ValueError: the content is not a ledger; begin with an empty one.
    """
    stored = decode(_ADAPTER, upgrade(load_json(content)))
    failures = {
        key: Failure(one.attempts, now.mono, one.inputs, one.reason, one.error, one.at, one.container)
        for key, one in stored.failures.items()
    }
    same: dict[str, Any] = {name: getattr(stored, name) for name in _SAME}
    settled = {key: from_text(text) for key, text in stored.settled.items()}
    return Ledger(failures=failures, settled=settled, **same)


def upgrade(value: Any) -> dict[str, Any]:
    """Return a stored ledger of any version in the current shape.

    Raises:
        ValueError: it is not a ledger, or a later version with another schema wrote it.
    """
    if not isinstance(value, dict):
        raise ValueError("it is not a ledger")  # noqa: TRY004 - a damaged file, not a caller's mistake
    if value.get("schema") != SCHEMA:
        raise ValueError(f"ledger schema {value.get('schema')!r} is not {SCHEMA}")
    current = LATER_KEYS | value
    for name, (first, later) in LATER_ITEMS.items():
        if isinstance(current.get(name), dict):
            current[name] = {key: _extended(items, first, later) for key, items in current[name].items()}
    return current


def _extended(items: Any, first: int, later: list[Any]) -> Any:
    """Append the defaults of items that were added after the first version."""
    if not isinstance(items, list) or len(items) < first:
        return items
    return items + later[len(items) - first :]
