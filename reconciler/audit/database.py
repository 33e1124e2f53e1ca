"""The audit log's database: appended to under a lock, durable, cut by age and size, set aside when damaged.

Used by the daemon's writer thread, and for single entries by the command line, at the same time. Nothing
here waits for its turn in memory or swallows an error; that is ``audit.Audit``.
"""

from __future__ import annotations

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
from reconciler.host.atomic_files import chown_like

log = logging.getLogger(__name__)

NAME = "audit.db"
AuditDatabaseError = sqlite3.Error
"""Any failure of the database, for callers that know no SQLite."""
_SCHEMA = 1
_PARTS = ("", "-wal", "-shm")
_KEPT_ASIDE = 2
_BUSY = 5.0
"""Seconds to wait for another process; its turns take milliseconds."""
_CUT_AT_ONCE = 20_000
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

_TABLE = f"""
CREATE TABLE IF NOT EXISTS entries (
    id INTEGER PRIMARY KEY, {", ".join(COLUMNS)}, before BLOB NOT NULL, hash BLOB NOT NULL
)"""
_INSERT = f"INSERT INTO entries VALUES (?{', ?' * (len(COLUMNS) + 2)})"  # noqa: S608 - question marks


class Retention(NamedTuple):
    """What is kept: entries of ``age`` seconds, in ``size`` bytes; but always the last ``least`` entries.

    The last ones stay because a clock that is years ahead for a moment must not cost the whole record.
    """

    age: float = 90 * 86400.0
    size: int = 64 * 2**20
    least: int = 1000


class AuditFile:
    """The database in a state directory, open for appending.

    With ``check`` it is looked through first, and set aside where it is damaged; what was found wrong is
    then said in the next entry. Without, a damaged one is an error.

    Raises:
        OSError, sqlite3.Error: it can't be opened, or made.
    """

    def __init__(self, state_dir: Path, *, check: bool = True) -> None:
        self._state_dir = state_dir
        self._path = state_dir / NAME
        self._found = ("", "")
        self._head = ChainHead(state_dir)
        try:
            with self._head.locked():
                self._db = self._opened(check=check)
                if self._head.read() is None and self._last() == START:
                    # Before the first entry, so that a head that is missing later means something.
                    self._head.write(START)
                    self._head.sync()
            self._inode = self._path.stat().st_ino
        except BaseException:
            self._head.close()
            raise

    def append(self, facts: Sequence[AuditEvent]) -> list[Entry]:
        """Add the facts, all or none; on the disk when this returns.

        What is wrong with the chain's end (a tail that is gone, say) becomes an entry of its own first.

        Raises:
            OSError, sqlite3.Error: nothing was added.
        """
        with self._head.locked():
            before, broken = self._end()
            entries = append_link(before, [*broken, *facts])
            self._commit(entries)
            self._moved_to(entries[-1])
        self._found = ("", "")
        return entries

    def truncate_before(self, retention: Retention, now: float) -> list[Entry]:
        """Take away what is too old or too much, a piece at a time; the entry that says so, or nothing.

        Call it again until it gives nothing. ``now`` is wall time in seconds.

        Raises:
            OSError, sqlite3.Error: nothing was taken away.
        """
        with self._head.locked():
            first, reason, through = self._surplus(retention, now)
            if through < first:
                return []
            before, broken = self._end()
            fact = AuditEvent(
                "audit_cut",
                target=str(through),
                result="done",
                user="daemon",
                reason=reason,
                message=f"entries {first} to {through} were taken away",
                at=now,
            )
            entries = append_link(before, [*broken, fact])
            self._commit(entries, through)
            self._moved_to(entries[-1])
        return entries

    def was_replaced(self) -> bool:
        """Whether the file at this place is no longer the one that is open here."""
        try:
            return self._path.stat().st_ino != self._inode
        except OSError:
            return True

    def sync(self) -> None:
        """Have the head last through a power cut. Entries do already."""
        self._head.sync()

    def close(self) -> None:
        """Let go of the files."""
        with suppress(sqlite3.Error):
            self._db.close()
        with suppress(OSError):
            self._head.close()

    # --- opening ---------------------------------------------------------------------------------

    def _opened(self, *, check: bool) -> sqlite3.Connection:
        try:
            return self._connect(check=check)
        except sqlite3.DatabaseError as error:
            if not check or not is_damage(error):
                raise
            aside = self._set_aside()
            # No traceback: where it was noticed says nothing about why.
            told = {"error": str(error), "old": aside}
            log.error("the audit log is damaged; a new one is begun", extra=told)  # noqa: TRY400
            self._found = ("damaged", f"the file was damaged and is set aside as {aside}")
            return self._connect(check=False)

    def _connect(self, *, check: bool) -> sqlite3.Connection:
        with suppress(FileExistsError):
            # Never one that is there: closing a file lets go of all locks that the process has on it.
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                chown_like(descriptor, self._state_dir)
            finally:
                os.close(descriptor)
        # One thread at a time, but not always the one that opened it.
        db = sqlite3.connect(self._path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
        try:
            if check:
                # Before anything is written into it, the switch to WAL included.
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
                raise _damaged("the table is not one of ours") from error
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
        # A disk that dies damages again and again; it must not be filled with that.
        olds = sorted(self._state_dir.glob("audit.damaged-*.db"), key=lambda path: path.stat().st_mtime)
        for old in olds[:-_KEPT_ASIDE]:
            for part in _PARTS:
                Path(f"{old}{part}").unlink(missing_ok=True)
        return name

    # --- the chain's end -------------------------------------------------------------------------

    def _last(self) -> ChainLink:
        row = self._db.execute("SELECT id, hash FROM entries ORDER BY id DESC LIMIT 1").fetchone()
        return ChainLink(*row) if row else START

    def _end(self) -> tuple[ChainLink, list[AuditEvent]]:
        """What the next entry follows, and what has to be said of it first."""
        last, head = self._last(), self._head.read()
        result, message = self._found
        headless = message or "the file with the chain's end is gone"
        if head is None:
            return last, [_broken(result or "head_missing", headless)]
        if head.id > last.id:
            gone = f"entries {last.id + 1} to {head.id} are gone"
            return head, [_broken(result or "entries_missing", f"{message}; {gone}" if message else gone)]
        if head.id:
            row = self._db.execute("SELECT hash FROM entries WHERE id = ?", (head.id,)).fetchone()
            if row is None or row[0] != head.hash:
                return last, [_broken("entries_changed", f"entry {head.id} is not the one that was written")]
        return last, [_broken(result, message)] if result else []

    def _commit(self, entries: Sequence[Entry], through: int = 0) -> None:
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            db.executemany(_INSERT, [(e.id, *to_row(e.fact), e.before, e.hash) for e in entries])
            if through:
                db.execute("DELETE FROM entries WHERE id <= ?", (through,))
            db.execute("COMMIT")
        except BaseException:
            # A full disk has rolled it back already.
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise

    def _moved_to(self, entry: Entry) -> None:
        try:
            self._head.write(ChainLink(entry.id, entry.hash))
        except OSError as error:
            # It lags behind then, and is caught up with by the next entry.
            log.warning("the end of the audit log can't be noted", extra={"error": str(error)})

    # --- retention -------------------------------------------------------------------------------

    def _surplus(self, retention: Retention, now: float) -> tuple[int, str, int]:
        db = self._db
        first, last = db.execute("SELECT ifnull(min(id), 1), ifnull(max(id), 0) FROM entries").fetchone()
        latest = min(last - retention.least, first + _CUT_AT_ONCE - 1)
        young = db.execute(
            "SELECT id FROM entries WHERE at >= ? ORDER BY id LIMIT 1", (round((now - retention.age) * 1e6),)
        ).fetchone()
        through = min(latest, (young[0] if young else last + 1) - 1)
        if through >= first:
            return first, "age", through
        used = self.size()
        if used > retention.size:
            # A tenth more than needed, so that it is not done again for the next few entries.
            share = 1 - 0.9 * retention.size / used
            return first, "size", min(latest, first + int((last - first + 1) * share))
        return first, "", first - 1

    def size(self) -> int:
        """Bytes in use, without pages that were freed and will be used again."""
        pages, free, size = (
            self._db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)


def is_damage(error: BaseException) -> bool:
    """Whether an error of SQLite means that the file itself is damaged, rather than the moment bad."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def _quick_check(db: sqlite3.Connection) -> None:
    with closing(db.execute("PRAGMA quick_check(1)")) as found:
        told = found.fetchone()[0]
    if told != "ok":
        raise _damaged(str(told))


def _damaged(told: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(told.splitlines()[0] if told else "damaged")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _broken(result: str, message: str) -> AuditEvent:
    return AuditEvent(
        "audit_broken", result=result, user="daemon", reason=result, message=message, at=time.time()
    )
