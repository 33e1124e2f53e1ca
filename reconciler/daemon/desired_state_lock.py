"""Locks the desired-state directory for this daemon."""

from __future__ import annotations

import contextlib
from pathlib import Path

from reconciler.host.directory_lock import DirectoryLock


class DesiredStateLock(contextlib.AbstractContextManager["DesiredStateLock"]):
    """Locks the desired-state directory, also if it appears later or is replaced."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: DirectoryLock | None = None
        self.hold()

    def hold(self) -> bool:
        """Lock the current directory; True if it appeared just now.

        Raises:
            AlreadyRunning: another daemon has locked it.
        """
        if self._lock is not None:
            self._lock.refresh()
            return False
        if not self._path.is_dir():
            return False
        self._lock = DirectoryLock(self._path)
        return True

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()
