"""One accepted generation as a value, and its form on disk: a JSON object with the fields of ``Record``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from reconciler.host.stored_json import decode
from reconciler.model.change_reason import ChangeReason
from reconciler.model.json_text import load_json

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One accepted generation. Times are wall time in seconds since the epoch, 0: not yet.

    ``changes`` lists the changes for people. States with equal ``meaning`` (``diff.meaning_digest``) are one
    generation. ``sources``, ``resolved`` and ``values`` refer to frozen contents by their digests. ``values``
    has the configs and secrets that the resolved model only names, empty: none. ``progress`` is
    the JSON text of ``progress_codec``, ``{}`` until the generation has ended. It stays text because
    hundreds of records are in memory and their progress is rarely read.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    generation: int
    revision: str
    meaning: str
    at: float
    author: str = ""
    reason: str = ""
    changes: tuple[str, ...] = ()
    commit: str = ""
    outcome: str = ""
    outcome_reason: str = ""
    finished_at: float = 0.0
    progress: str = "{}"
    directory: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)
    resolved: str = ""
    values: str = ""
    hashes: Mapping[str, str] = field(default_factory=dict)
    compose_version: str = ""
    compose_warnings: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def cause(self) -> ChangeReason:
        """``reason`` as a value."""
        return ChangeReason.parse(self.reason)


_ADAPTER = TypeAdapter(Record)


def encode_record(record: Record) -> bytes:
    """Encode a record as JSON, with its progress as an object."""
    values = _ADAPTER.dump_python(record, mode="json", warnings=False)
    stored = values | {"schema": SCHEMA, "progress": json.loads(record.progress)}
    return json.dumps(stored, sort_keys=True).encode()


def decode_record(content: bytes | str, generation: int) -> Record:
    """Decode the result of ``encode_record``; ``generation`` is the number that the record must have.

    Raises:
        ValueError: the content is not the record of this generation.
    """
    record = decode(_ADAPTER, upgrade(load_json(content)))
    if record.generation != generation:
        raise ValueError(f"it contains generation {record.generation}")
    return record


def upgrade(value: Any) -> dict[str, Any]:
    """Return a stored record of any version as the fields of ``Record``.

    Fields that an earlier version did not write, ``progress``, ``values``, ``compose_warnings`` and
    ``files``, get the defaults of ``Record``.

    Raises:
        ValueError: it is not a record, or a later version with another schema wrote it.
    """
    if not isinstance(value, dict):
        raise ValueError("it is not a record")  # noqa: TRY004 - a damaged file, not a caller's mistake
    if value.get("schema") != SCHEMA:
        raise ValueError("it was written by another version of Service Manager")
    current = {name: item for name, item in value.items() if name != "schema"}
    return current | {"progress": json.dumps(value.get("progress", {}))}
