"""The audit log's database: durable appends under a lock, retention by age and size, renamed when damaged.

The daemon's writer thread and the command line use it at the same time. It neither queues events nor hides
errors; ``log.Audit`` does.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from reconciler.audit.chain import COLUMNS, START, AuditEvent, ChainLink, Entry, append_link, to_row
from reconciler.audit.chain_head import ChainHead
from reconciler.host.atomic_files import open_private

log = logging.getLogger(__name__)

NAME = "audit.db"
AuditDatabaseError = sqlite3.Error
"""Any failure of the database, for callers that don't import sqlite3."""
_SCHEMA = 1
_PARTS = ("", "-wal", "-shm")
_MAX_DAMAGED = 2
_BUSY = 5.0
"""Seconds to wait for another process; its transactions take milliseconds."""
_MAX_DELETED_AT_ONCE = 20_000
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

_TABLE = f"""
CREATE TABLE IF NOT EXISTS entries (
    id INTEGER PRIMARY KEY, {", ".join(COLUMNS)}, before BLOB NOT NULL, hash BLOB NOT NULL
)"""
_INSERT = f"INSERT INTO entries VALUES (?{', ?' * (len(COLUMNS) + 2)})"  # noqa: S608 - question marks


class Retention(NamedTuple):
    """Keep entries up to ``age`` seconds old and ``size`` bytes in total, but always the last ``least``
    entries.

    The minimum protects the log from a clock that is years ahead for a moment.
    """

    age: float = 90 * 86400.0
    size: int = 64 * 2**20
    least: int = 1000


class AuditFile:
    """The database in a state directory, open for appending.

    With ``check``, opening checks the integrity first. A damaged database is renamed, a new one begins, and
    the next entry records this. Without ``check`` a damaged database raises.

    Raises:
        OSError, sqlite3.Error: the database can't be opened or created.
    """

    def __init__(self, state_dir: Path, *, check: bool = True) -> None:
        self._state_dir = state_dir
        self._path = state_dir / NAME
        self._opening_problem = ("", "")
        self._head = ChainHead(state_dir)
        try:
            with self._head.locked():
                self._db = self._open(check=check)
                if self._head.read() is None and self._last() == START:
                    # Write a head before the first entry, so that a missing head is always a problem.
                    self._head.write(START)
                    self._head.sync()
            self._inode = self._path.stat().st_ino
        except BaseException:
            self._head.close()
            raise

    def append(self, events: Sequence[AuditEvent]) -> list[Entry]:
        """Append all events or none; they are on disk when this returns.

        A problem at the chain's end, such as missing entries, is recorded first, as an entry of its own.

        Raises:
            OSError, sqlite3.Error: nothing was appended.
        """
        with self._head.locked():
            before, broken = self._chain_end()
            entries = append_link(before, [*broken, *events])
            self._commit(entries)
            self._write_head(entries[-1])
        self._opening_problem = ("", "")
        return entries

    def truncate_before(self, retention: Retention, now: float) -> list[Entry]:
        """Delete one batch of the oldest entries beyond the retention; return the entries that record it.

        Call it again until the result is empty. ``now`` is wall time in seconds.

        Raises:
            OSError, sqlite3.Error: nothing was deleted.
        """
        with self._head.locked():
            first, reason, through = self._expired(retention, now)
            if through < first:
                return []
            before, broken = self._chain_end()
            event = AuditEvent(
                "audit_cut",
                target=str(through),
                result="done",
                user="daemon",
                reason=reason,
                message=f"entries {first} to {through} were deleted by retention",
                at=now,
            )
            entries = append_link(before, [*broken, event])
            self._commit(entries, through)
            self._write_head(entries[-1])
        return entries

    def was_replaced(self) -> bool:
        """Return whether the file at this path is no longer the open one."""
        try:
            return self._path.stat().st_ino != self._inode
        except OSError:
            return True

    def sync(self) -> None:
        """Flush the head to disk. Entries are flushed by ``append``."""
        self._head.sync()

    def close(self) -> None:
        """Close both files."""
        with suppress(sqlite3.Error):
            self._db.close()
        with suppress(OSError):
            self._head.close()

    # --- opening ---------------------------------------------------------------------------------

    def _open(self, *, check: bool) -> sqlite3.Connection:
        try:
            return self._connect(check=check)
        except sqlite3.DatabaseError as error:
            if not check or not is_damage(error):
                raise
            aside = self._set_aside()
            # No traceback: the place of detection does not explain the damage.
            fields = {"error": str(error), "old": aside}
            log.error("the audit log is damaged; starting a new one", extra=fields)  # noqa: TRY400
            self._opening_problem = ("damaged", f"the file was damaged and was renamed to {aside}")
            return self._connect(check=False)

    def _connect(self, *, check: bool) -> sqlite3.Connection:
        with suppress(FileExistsError):
            # Never open an existing file: closing it releases all POSIX locks that the process has on it.
            os.close(open_private(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL))
        if self._path.is_symlink():
            raise OSError(errno.ELOOP, f"{self._path.name} is a link; remove it", str(self._path))
        # One thread at a time uses the connection, but not always the thread that opened it.
        db = sqlite3.connect(self._path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
        try:
            if check:
                # Check before the first write; the switch to WAL is one.
                _quick_check(db)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA journal_size_limit = 4194304")
            if db.execute("PRAGMA user_version").fetchone()[0] != _SCHEMA:
                db.execute(_TABLE)
                db.execute(f"PRAGMA user_version = {_SCHEMA}")
            db.execute(f"SELECT id, {', '.join(COLUMNS)}, before, hash FROM entries LIMIT 0")  # noqa: S608
        except sqlite3.OperationalError as error:
            db.close()
            if "no such" in str(error):
                raise _damaged("the table has other columns") from error
            raise
        except BaseException:
            db.close()
            raise
        return db

    def _set_aside(self) -> str:
        stem = time.strftime("audit.damaged-%Y%m%dT%H%M%S", time.gmtime())
        name, count = f"{stem}.db", 1
        while (self._state_dir / name).exists():
            count += 1
            name = f"{stem}-{count}.db"
        for part in _PARTS:
            with suppress(FileNotFoundError):
                Path(f"{self._path}{part}").rename(self._state_dir / f"{name}{part}")
        # A failing disk causes damage repeatedly; limit the copies so that they don't fill it.
        olds = sorted(self._state_dir.glob("audit.damaged-*.db"), key=lambda path: path.stat().st_mtime)
        for old in olds[:-_MAX_DAMAGED]:
            for part in _PARTS:
                Path(f"{old}{part}").unlink(missing_ok=True)
        return name

    # --- the chain's end -------------------------------------------------------------------------

    def _last(self) -> ChainLink:
        row = self._db.execute("SELECT id, hash FROM entries ORDER BY id DESC LIMIT 1").fetchone()
        return ChainLink(*row) if row else START

    def _chain_end(self) -> tuple[ChainLink, list[AuditEvent]]:
        """Return the link that the next entry follows, and events for problems found at the chain's end."""
        last, head = self._last(), self._head.read()
        result, message = self._opening_problem
        head_missing = message or "the file with the chain's head is missing"
        if head is None:
            return last, [_broken(result or "head_missing", head_missing)]
        if head.id > last.id:
            gone = f"entries {last.id + 1} to {head.id} are missing"
            return head, [_broken(result or "entries_missing", f"{message}; {gone}" if message else gone)]
        if head.id:
            row = self._db.execute("SELECT hash FROM entries WHERE id = ?", (head.id,)).fetchone()
            if row is None or row[0] != head.hash:
                return last, [
                    _broken("entries_changed", f"entry {head.id} differs from the one that was written")
                ]
        return last, [_broken(result, message)] if result else []

    def _commit(self, entries: Sequence[Entry], through: int = 0) -> None:
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            db.executemany(_INSERT, [(e.id, *to_row(e.event), e.before, e.hash) for e in entries])
            if through:
                db.execute("DELETE FROM entries WHERE id <= ?", (through,))
            db.execute("COMMIT")
        except BaseException:
            # On a full disk SQLite has already rolled back.
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise

    def _write_head(self, entry: Entry) -> None:
        try:
            self._head.write(ChainLink(entry.id, entry.hash))
        except OSError as error:
            # The head lags behind until the next entry is written.
            log.warning("can't write the head of the audit log", extra={"error": str(error)})

    # --- retention -------------------------------------------------------------------------------

    def _expired(self, retention: Retention, now: float) -> tuple[int, str, int]:
        """Return the first entry, the reason to delete (age or size) and the last entry to delete.

        If there is nothing to delete, the last is below the first.
        """
        db = self._db
        first, last = db.execute("SELECT ifnull(min(id), 1), ifnull(max(id), 0) FROM entries").fetchone()
        latest = min(last - retention.least, first + _MAX_DELETED_AT_ONCE - 1)
        young = db.execute(
            "SELECT id FROM entries WHERE at >= ? ORDER BY id LIMIT 1", (round((now - retention.age) * 1e6),)
        ).fetchone()
        through = min(latest, (young[0] if young else last + 1) - 1)
        if through >= first:
            return first, "age", through
        used = self.size()
        if used > retention.size:
            # Delete a tenth more than needed, so that the next few entries don't exceed the limit again.
            share = 1 - 0.9 * retention.size / used
            return first, "size", min(latest, first + int((last - first + 1) * share))
        return first, "", first - 1

    def size(self) -> int:
        """Return the bytes in use, without free pages."""
        pages, free, size = (
            self._db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)


def is_damage(error: BaseException) -> bool:
    """Return whether an SQLite error means that the file is damaged, rather than a passing failure."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def _quick_check(db: sqlite3.Connection) -> None:
    with closing(db.execute("PRAGMA quick_check(1)")) as rows:
        result = rows.fetchone()[0]
    if result != "ok":
        raise _damaged(str(result))


def _damaged(reason: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(reason.splitlines()[0] if reason else "damaged")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _broken(result: str, message: str) -> AuditEvent:
    return AuditEvent(
        "audit_broken", result=result, user="daemon", reason=result, message=message, at=time.time()
    )
