"""Records of generations on disk: one JSON file each, and the file contents that they refer to by digest.

A damaged record is neither deleted nor an error: it is renamed and reported as a warning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from reconciler.generations.record import Record, decode_record, encode_record
from reconciler.host.atomic_files import mkdir_private, write_file
from reconciler.host.content_digest import digest
from reconciler.host.untrusted import MALFORMED, read_regular

_DAMAGED = ".damaged"
_WIDTH = 8


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
        self._verified: dict[Path, tuple[int, ...]] = {}
        for path in sorted(self._records.iterdir()):
            self._load(path)

    def save(self, record: Record) -> None:
        """Write a record, replacing an earlier one of the same number; durable when this returns."""
        write_file(self._records / f"{record.generation:0{_WIDTH}}.json", encode_record(record))
        self._cache(record)
        self.highest = max(self.highest, record.generation)

    def save_content(self, content: bytes) -> str:
        """Store a content; return its digest, which is its name."""
        name = digest(content)
        self._write_content(self._contents / name, name, content)
        return name

    def save_model(self, content: bytes) -> tuple[str, Path]:
        """Store a resolved model as a file for Compose; return its digest and path."""
        name = digest(content)
        self._write_content(self.model_path(name), name, content)
        return name, self.model_path(name)

    def _write_content(self, path: Path, name: str, content: bytes) -> None:
        stamp = _stamp(path)
        if stamp and self._verified.get(path) == stamp:
            return
        try:
            _read_verified(path, name)
        except CorruptRecord:
            write_file(path, content)
            stamp = _stamp(path)
        self._verified[path] = stamp

    def model_path(self, name: str) -> Path:
        """Return the path of a resolved model."""
        return self._models / f"{name}.json"

    def relative_content_path(self, name: str) -> str:
        """Return the path of a frozen content, relative to the folder of the resolved models."""
        return f"../{self._contents.name}/{name}"

    def read_content(self, name: str) -> bytes:
        """Read a frozen content.

        Raises:
            CorruptRecord: it is missing, or does not match its digest.
        """
        return _read_verified(self._contents / name, name)

    def read_model(self, name: str) -> bytes:
        """Read a frozen resolved model; raises as ``read_content``."""
        return _read_verified(self.model_path(name), name)

    def retain(self, count: int) -> None:
        """Delete all records but the last ``count``, and all contents that no remaining record refers to."""
        obsolete = sorted(self.all)[:-count]
        if not obsolete:
            return
        for number in obsolete:
            (self._records / f"{number:0{_WIDTH}}.json").unlink(missing_ok=True)
            del self.all[number]
        used = {name for record in self.all.values() for name in record.sources.values()}
        used |= {record.values for record in self.all.values()}
        models = {f"{record.resolved}.json" for record in self.all.values()}
        for path in (*_unused(self._contents, used), *_unused(self._models, models)):
            path.unlink(missing_ok=True)
            self._verified.pop(path, None)

    def _load(self, path: Path) -> None:
        number = path.name.partition(".")[0]
        if not number.isdigit():
            return
        # A renamed record counts as well: its number was used and must not be reused.
        self.highest = max(self.highest, int(number))
        if path.suffix != ".json":
            return
        try:
            record = decode_record(read_regular(path), int(number))
        except (OSError, *MALFORMED) as error:
            self._set_aside(path, error)
        else:
            self._cache(record)

    def _cache(self, record: Record) -> None:
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


def read_records(state_dir: Path) -> list[Record]:
    """Read the records of a state directory, oldest first, and change nothing; leave out unreadable ones."""
    records = []
    with suppress(OSError):
        for path in sorted((state_dir / "generations").glob("*.json")):
            with suppress(OSError, *MALFORMED):
                records.append(decode_record(read_regular(path), int(path.stem)))
    return records


def _shared(mapping: Mapping[str, str], like: Mapping[str, str]) -> Mapping[str, str]:
    """Return an equal mapping that shares strings with ``like``."""
    if mapping == like:
        return like
    interned = {key: key for key in like}
    return {
        interned.get(key, key): like[key] if like.get(key) == value else value
        for key, value in mapping.items()
    }


def _stamp(path: Path) -> tuple[int, ...]:
    """Return the stat signature of a file, empty without one."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _read_verified(path: Path, name: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CorruptRecord(f"{path} can't be read: {error.strerror}") from None
    if digest(content) != name:
        raise CorruptRecord(f"{path} does not match its digest")
    return content


def _unused(directory: Path, used: set[str]) -> Iterator[Path]:
    return (path for path in directory.iterdir() if path.name not in used)
