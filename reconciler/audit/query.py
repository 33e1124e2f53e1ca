"""Reads pages of the audit log and verifies its chain.

Both open the database read-only, at the same time as writers, and need no daemon.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from reconciler.audit.chain import COLUMNS, START, ChainLink, Entry, entry_hash, from_row
from reconciler.audit.chain_head import read_head
from reconciler.audit.database import NAME

MAX_LIMIT = 1000
_MAX_PROBLEMS = 100
_SELECT = f"SELECT id, {', '.join(COLUMNS)}, before, hash FROM entries"  # noqa: S608 - constants alone


class Query(NamedTuple):
    """Selects the newest entries, at most ``limit``, whose number is below ``before`` (0: no bound).

    ``group``, ``action`` and ``user`` must match; an empty one matches every entry.
    """

    limit: int = 100
    before: int = 0
    group: str = ""
    action: str = ""
    user: str = ""


class ChainProblem(NamedTuple):
    """A problem found by ``verify``: the entry's number (0: none) and a message."""

    id: int
    message: str


class VerifyReport(NamedTuple):
    """The result of ``verify``: the number of entries, the first and last, and every problem."""

    entries: int
    first: int
    last: int
    problems: tuple[ChainProblem, ...]
    notes: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether the chain has no problem."""
        return not self.problems


class NoAuditLog(Exception):
    """The state directory has no audit log."""


def read(state_dir: Path, query: Query) -> list[Entry]:
    """Return matching entries, the newest last; empty without a log.

    Raises:
        sqlite3.Error: the log can't be read, or is damaged.
    """
    conditions, values = ["id < ?"], [query.before or 2**62]
    parameters: list[int | str] = [*values]
    if query.group:
        conditions.append("EXISTS (SELECT 1 FROM json_each(groups) WHERE value = ?)")
        parameters.append(query.group)
    for column in ("action", "user"):
        if word := getattr(query, column):
            conditions.append(f"{column} = ?")
            parameters.append(word)
    parameters.append(max(0, min(query.limit, MAX_LIMIT)))
    text = f"{_SELECT} WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT ?"
    try:
        with _open(state_dir) as db:
            rows = db.execute(text, parameters).fetchall()
    except NoAuditLog:
        return []
    return [_checked_entry(row) for row in reversed(rows)]


def latest(state_dir: Path, *actions: str, result: str = "") -> Entry | None:
    """Return the newest entry with one of these actions and, if given, this result; None without one.

    Raises:
        sqlite3.Error: the log can't be read, or is damaged.
    """
    where = [f"action IN ({', '.join('?' * len(actions))})"] if actions else []
    where += ["result = ?"] if result else []
    text = f"{_SELECT} WHERE {' AND '.join(where or ['1'])} ORDER BY id DESC LIMIT 1"
    try:
        with _open(state_dir) as db:
            row = db.execute(text, [*actions, *([result] if result else [])]).fetchone()
    except NoAuditLog:
        return None
    return _checked_entry(row) if row else None


def highest_generation(state_dir: Path) -> int | None:
    """Return the highest generation recorded as accepted; None without one or without a readable log."""
    try:
        with _open(state_dir) as db:
            row = db.execute("SELECT max(generation) FROM entries WHERE result = 'accepted'").fetchone()
    except (NoAuditLog, sqlite3.Error):
        return None
    return row[0] if isinstance(row[0], int) else None


def verify(state_dir: Path) -> VerifyReport:
    """Verify the whole chain as it is on disk.

    Raises:
        NoAuditLog: there is neither a log nor a sign of an earlier one.
        OSError: the head file can't be read.
    """
    # Read the head before the entries: an entry appended in between then counts as newer, not as missing.
    head = read_head(state_dir)
    chain = _ChainVerifier(head)
    try:
        with _open(state_dir) as db:
            damage = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if damage != "ok":
                chain.add_problem(0, f"the database is damaged: {str(damage).splitlines()[-1]}")
            for row in db.execute(f"{_SELECT} ORDER BY id"):
                chain.add(row)
    except NoAuditLog:
        if head is None or head == START:
            raise
    except sqlite3.Error as error:
        chain.add_problem(chain.last.id, f"the database can't be read beyond this entry: {error}")
    return chain.report()


class _ChainVerifier:
    """Takes rows in order and checks that each follows the previous one."""

    def __init__(self, head: ChainLink | None) -> None:
        self.last = START
        self._head = head
        self._head_seen = head == START
        self._count = 0
        self._first: ChainLink | None = None
        self._first_before = START.hash
        self._cut_through = 0
        self._problems: list[ChainProblem] = []
        self._notes: list[str] = []

    def add_problem(self, number: int, message: str) -> None:
        if len(self._problems) < _MAX_PROBLEMS:
            self._problems.append(ChainProblem(number, message))

    def add(self, row: tuple[object, ...]) -> None:
        try:
            entry = _entry(row)
            good = entry_hash(entry.id, entry.event, entry.before) == entry.hash
        except (ValueError, TypeError, AttributeError):
            self.add_problem(
                int(str(row[0])), f"entry {row[0]} was changed: it has values that were never written"
            )
            self.last = ChainLink(int(str(row[0])), b"")
            return
        if not good:
            self.add_problem(entry.id, f"entry {entry.id} was changed: it does not match its hash")
        if self._first is None:
            self._first, self._first_before = ChainLink(entry.id, entry.hash), entry.before
        elif entry.id != self.last.id + 1:
            self.add_problem(entry.id, f"{_entries(self.last.id + 1, entry.id - 1)} missing")
        elif entry.before != self.last.hash:
            self.add_problem(
                entry.id, f"entry {entry.id} does not follow entry {self.last.id}: one was replaced"
            )
        self._check_event(entry)
        if self._head is not None and entry.id == self._head.id:
            self._head_seen = True
            if entry.hash != self._head.hash:
                self.add_problem(entry.id, f"entry {entry.id} was replaced: the head file names another hash")
        self.last = ChainLink(entry.id, entry.hash)
        self._count += 1

    def _check_event(self, entry: Entry) -> None:
        event = entry.event
        if event.action == "audit_cut" and event.target.isdecimal():
            self._cut_through = int(event.target)
        elif event.action == "audit_broken":
            self.add_problem(entry.id, f"entry {entry.id} reports: {event.message}")
        elif event.action == "audit_lost":
            self._notes.append(f"entry {entry.id} reports: {event.message}")

    def report(self) -> VerifyReport:
        first = self._first
        if first is not None and first.id != self._cut_through + 1:
            gone = _entries(self._cut_through + 1, first.id - 1)
            self._problems.insert(0, ChainProblem(first.id, f"{gone} missing at the beginning"))
        elif first is not None and first.id == 1 and self._first_before != START.hash:
            self.add_problem(1, "entry 1 was replaced: it follows another one")
        if first is not None and self._cut_through:
            self._notes.insert(0, f"entries up to {self._cut_through} were deleted by retention")
        if self._head is None:
            self.add_problem(
                self.last.id, "the head file is missing: missing entries at the end can't be detected"
            )
        elif not self._head_seen and self._head.id > self.last.id:
            self.add_problem(self._head.id, f"{_entries(self.last.id + 1, self._head.id)} missing at the end")
        return VerifyReport(
            self._count, first.id if first else 0, self.last.id, tuple(self._problems), tuple(self._notes)
        )


def _entries(first: int, last: int) -> str:
    return f"entry {first} is" if first >= last else f"entries {first} to {last} are"


def _entry(row: tuple[object, ...]) -> Entry:
    number, *fields, before, hash_ = row
    if not (isinstance(number, int) and isinstance(before, bytes) and isinstance(hash_, bytes)):
        raise TypeError("an entry has values that were never written")
    return Entry(number, from_row(fields), before, hash_)


def _checked_entry(row: tuple[object, ...]) -> Entry:
    try:
        return _entry(row)
    except (ValueError, TypeError) as error:
        raise sqlite3.DatabaseError(f"entry {row[0]} was changed by hand: {error}") from error


@contextmanager
def _open(state_dir: Path) -> Iterator[sqlite3.Connection]:
    path = state_dir / NAME
    if not path.exists():
        raise NoAuditLog(f"there is no audit log in {state_dir}")
    uri = f"file:{quote(str(path))}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=5.0, isolation_level=None)) as db:
        db.execute("BEGIN")
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'entries'").fetchone() is None:
            # A daemon at its first start has created the file, but not yet the table.
            raise NoAuditLog(f"the audit log in {state_dir} is still empty")
        yield db
