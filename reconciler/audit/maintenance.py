"""Keeps one audit file open and in order: opened again after trouble, its head made to last, cut in time.

Belongs to the writer's thread of ``audit.Audit``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from reconciler.audit.chain import AuditEvent, Entry
from reconciler.audit.database import AuditFile, Retention, is_damage

_OFTEN = 1000
"""Entries after which the size is looked at, whatever the time."""
_NEVER = 1e11
"""Seconds that nothing is older than."""


class AuditWriter:
    """The file in a state directory, opened when it is first written to.

    ``cut`` is the time in seconds between looks at what is too old, ``sync`` how long after an entry the
    head is made to last. The first look comes after a whole ``cut``: at boot a clock may be wrong. ``now``
    is monotonic, ``wall`` the time of day.
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

    def append(self, facts: list[AuditEvent], now: float) -> list[Entry]:
        """See ``AuditFile.append``; a file that is damaged, or gone, is replaced by a new one first.

        Raises:
            OSError, sqlite3.Error: nothing was added.
        """
        entries = self._appended(facts)
        self._since_cut += len(entries)
        self._sync_at = self._sync_at or now + self._delay
        return entries

    def due(self) -> float:
        """When ``tidy`` should be called."""
        return min(self._cut_at, self._sync_at or self._cut_at)

    def apply_retention(self, now: float, wall: Callable[[], float]) -> Iterator[list[Entry]]:
        """Do what is due; yields the entries that say so. Trouble is left to the next write to find."""
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
            if aged or self._since_cut >= _OFTEN:
                self._since_cut = 0
                retention = self._retention if aged else self._retention._replace(age=_NEVER)
                while entries := file.truncate_before(retention, wall()):
                    yield entries

    def close(self) -> None:
        """Let go of the file, its head made to last."""
        if self._file is not None:
            with suppress(OSError):
                self._file.sync()
        self._shut()

    def _appended(self, facts: list[AuditEvent]) -> list[Entry]:
        if self._file is not None and self._file.was_replaced():
            self._shut()
        try:
            return self._opened().append(facts)
        except sqlite3.DatabaseError as error:
            self._shut()
            if not is_damage(error):
                raise
            # Damaged under our hands: opening it looks through it and sets it aside.
            return self._opened().append(facts)
        except OSError:
            self._shut()
            raise

    def _opened(self) -> AuditFile:
        if self._file is None:
            self._file = AuditFile(self._state_dir)
        return self._file

    def _shut(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()
