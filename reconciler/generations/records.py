"""Records of generations on disk: one JSON file each, and the file contents that they refer to by digest.

A damaged record is neither deleted nor an error: it is renamed and reported as a warning.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from reconciler.host.atomic_files import mkdir_private, write_file
from reconciler.host.content_digest import digest
from reconciler.host.untrusted import MALFORMED, read_regular
from reconciler.model.json_text import load_json

SCHEMA = 1
_DAMAGED = ".damaged"
_WIDTH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One accepted generation. Times are wall time in seconds since the epoch, 0: not yet.

    ``changes`` lists the changes for people. ``meaning`` is the digest that decides whether a state is a
    change at all. ``sources``, ``resolved`` and ``values`` refer to frozen contents by their digests.
    ``values`` has the configs and secrets that the resolved model only names, empty: none. ``progress`` is
    the JSON text of ``progress_to_json``, ``{}`` until the generation has ended. It stays text because
    hundreds of records are in memory and their progress is rarely read.
    """

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


class CorruptRecord(Exception):
    """A frozen content is missing, or does not match its digest."""


class Records:
    """The directory of records and contents. Not thread-safe: the owner locks."""

    def __init__(self, directory: Path) -> None:
        self._records = directory / "generations"
        self._contents = directory / "contents"
        self._models = directory / "resolved"
        for place in (directory, self._records, self._contents, self._models):
            mkdir_private(place)
        self.warnings: list[str] = []
        self.highest = 0
        self.all: dict[int, Record] = {}
        # Contents whose digest has been verified, and the stat signature of their file then.
        self._sound: dict[Path, tuple[int, ...]] = {}
        for path in sorted(self._records.iterdir()):
            self._take_in(path)

    def save(self, record: Record) -> None:
        """Write a record, replacing an earlier one of the same number; durable when this returns."""
        values = {one.name: getattr(record, one.name) for one in fields(record)}
        values["progress"] = json.loads(record.progress)
        text = json.dumps({"schema": SCHEMA, **values}, sort_keys=True)
        write_file(self._records / f"{record.generation:0{_WIDTH}}.json", text.encode())
        self._hold(record)
        self.highest = max(self.highest, record.generation)

    def save_model(self, content: bytes) -> str:
        """Store a content; return its digest, which is its name."""
        name = digest(content)
        self._keep_at(self._contents / name, name, content)
        return name

    def freeze_model(self, content: bytes) -> tuple[str, Path]:
        """Store a resolved model as a file for Compose; return its digest and path."""
        name = digest(content)
        self._keep_at(self.model(name), name, content)
        return name, self.model(name)

    def _keep_at(self, path: Path, name: str, content: bytes) -> None:
        stamp = _stamp(path)
        if stamp and self._sound.get(path) == stamp:
            return
        try:
            _thawed(path, name)
        except CorruptRecord:
            write_file(path, content)
            stamp = _stamp(path)
        self._sound[path] = stamp

    def model(self, name: str) -> Path:
        """Return the path of a resolved model."""
        return self._models / f"{name}.json"

    def from_model(self, name: str) -> str:
        """Return the path of a frozen content, relative to the folder of the resolved models."""
        return f"../{self._contents.name}/{name}"

    def content(self, name: str) -> bytes:
        """Read a frozen content.

        Raises:
            CorruptRecord: it is missing, or does not match its digest.
        """
        return _thawed(self._contents / name, name)

    def model_text(self, name: str) -> bytes:
        """Read a frozen resolved model; raises as ``content``."""
        return _thawed(self.model(name), name)

    def keep(self, count: int) -> None:
        """Delete all records but the last ``count``, and all contents that no remaining record refers to."""
        gone = sorted(self.all)[:-count]
        if not gone:
            return
        for number in gone:
            (self._records / f"{number:0{_WIDTH}}.json").unlink(missing_ok=True)
            del self.all[number]
        used = {name for record in self.all.values() for name in record.sources.values()}
        used |= {record.values for record in self.all.values()}
        models = {f"{record.resolved}.json" for record in self.all.values()}
        for path in (*_unused(self._contents, used), *_unused(self._models, models)):
            path.unlink(missing_ok=True)
            self._sound.pop(path, None)

    def _take_in(self, path: Path) -> None:
        number = path.name.partition(".")[0]
        if not number.isdigit():
            return
        # A renamed record counts as well: its number was used and must not be reused.
        self.highest = max(self.highest, int(number))
        if path.suffix != ".json":
            return
        try:
            record = _record(load_json(read_regular(path)), int(number))
        except (OSError, *MALFORMED) as error:
            self._set_aside(path, error)
        else:
            self._hold(record)

    def _hold(self, record: Record) -> None:
        # Consecutive generations share nearly all names and digests, so they share the strings in memory.
        before = self.all.get(record.generation - 1)
        if before is not None:
            sources, hashes = _shared(record.sources, before.sources), _shared(record.hashes, before.hashes)
            record = replace(record, sources=sources, hashes=hashes)
        self.all[record.generation] = record

    def _set_aside(self, path: Path, error: Exception) -> None:
        aside = path.with_name(path.name + _DAMAGED)
        try:
            path.replace(aside)
        except OSError:
            aside = path
        self.warnings.append(f"the record of a generation is damaged ({error}); it was renamed to {aside}")


def _record(values: dict[str, Any], number: int) -> Record:
    if values.pop("schema") != SCHEMA:
        raise ValueError("it was written by another version of Service Manager")
    record = Record(**values | {"progress": json.dumps(values.get("progress", {}))})
    if record.generation != number:
        raise ValueError(f"it contains generation {record.generation}")
    for one in fields(record):
        _check(one.name, getattr(record, one.name))
    return replace(
        record,
        changes=tuple(record.changes),
        compose_warnings=tuple(record.compose_warnings),
        files=tuple(record.files),
    )


def _check(name: str, value: Any) -> None:
    if name in {"sources", "hashes"}:
        sound = isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
        kind = "a mapping of texts"
    elif name in {"changes", "compose_warnings", "files"}:
        sound = isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
        kind = "a list of texts"
    elif name in {"generation", "at", "finished_at"}:
        sound, kind = isinstance(value, int | float) and not isinstance(value, bool), "a number"
    else:
        sound, kind = isinstance(value, str), "a text"
    if not sound:
        raise TypeError(f"{name} is not {kind}")


def _shared(mapping: Mapping[str, str], like: Mapping[str, str]) -> Mapping[str, str]:
    """Return an equal mapping that shares strings with ``like``."""
    if mapping == like:
        return like
    mine = {key: key for key in like}
    return {
        mine.get(key, key): like[key] if like.get(key) == value else value for key, value in mapping.items()
    }


def _stamp(path: Path) -> tuple[int, ...]:
    """Return the stat signature of a file, empty without one."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _thawed(path: Path, name: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CorruptRecord(f"{path} can't be read: {error.strerror}") from None
    if digest(content) != name:
        raise CorruptRecord(f"{path} does not match its digest")
    return content


def _unused(directory: Path, used: set[str]) -> Iterator[Path]:
    return (path for path in directory.iterdir() if path.name not in used)
