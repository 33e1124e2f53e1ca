"""Maintains the open audit database: reopens it after errors, flushes its head, applies retention.

Used by the writer thread of ``log.Audit`` only.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from reconciler.audit.chain import AuditEvent, Entry
from reconciler.audit.database import AuditFile, Retention, is_damage

_SIZE_CHECK = 1000
"""Entries between two checks of the size."""
_ANY_AGE = 1e11
"""Seconds; no entry is older."""


class AuditWriter:
    """The database in a state directory, opened at the first write.

    ``cut``: seconds between two deletions of old entries; ``sync``: seconds from an entry to the flush of the
    head. The first deletion comes after a whole ``cut``, since the clock may be wrong at boot. ``now`` is
    monotonic, ``wall`` returns wall time.
    """

    def __init__(self, state_dir: Path, retention: Retention, *, cut: float, sync: float, now: float) -> None:
        self._state_dir = state_dir
        self._retention = retention
        self._pause = cut
        self._delay = sync
        self._file: AuditFile | None = None
        self._cut_at = now + cut
        self._sync_at: float | None = None
        self._since_cut = 0

    def append(self, events: list[AuditEvent], now: float) -> list[Entry]:
        """See ``AuditFile.append``; a damaged or missing file is replaced first.

        Raises:
            OSError, sqlite3.Error: nothing was appended.
        """
        entries = self._append(events)
        self._since_cut += len(entries)
        self._sync_at = self._sync_at or now + self._delay
        return entries

    def due(self) -> float:
        """Return the monotonic time of the next ``apply_retention``."""
        return min(self._cut_at, self._sync_at or self._cut_at)

    def apply_retention(self, now: float, wall: Callable[[], float]) -> Iterator[list[Entry]]:
        """Flush the head and delete old entries when due; yield the entries that record the deletions.

        Raises nothing: an error shows again at the next write, which reports it.
        """
        aged, synced = self._cut_at <= now, self._sync_at is not None and self._sync_at <= now
        if aged:
            self._cut_at = now + self._pause
        if synced:
            self._sync_at = None
        file = self._file
        if file is None:
            return
        with suppress(OSError, sqlite3.Error):
            if synced:
                file.sync()
            if aged or self._since_cut >= _SIZE_CHECK:
                self._since_cut = 0
                retention = self._retention if aged else self._retention._replace(age=_ANY_AGE)
                while entries := file.truncate_before(retention, wall()):
                    yield entries

    def close(self) -> None:
        """Flush the head and close the file."""
        if self._file is not None:
            with suppress(OSError):
                self._file.sync()
        self._close_file()

    def _append(self, events: list[AuditEvent]) -> list[Entry]:
        if self._file is not None and self._file.was_replaced():
            self._close_file()
        try:
            return self._open().append(events)
        except sqlite3.DatabaseError as error:
            self._close_file()
            if not is_damage(error):
                raise
            # The file was damaged while open. Opening it again checks it, renames it and begins a new one.
            return self._open().append(events)
        except OSError:
            self._close_file()
            raise

    def _open(self) -> AuditFile:
        if self._file is None:
            self._file = AuditFile(self._state_dir)
        return self._file

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()
