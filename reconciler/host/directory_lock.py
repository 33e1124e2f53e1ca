"""One daemon per directory: locks the directory itself, which needs no lock file inside it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Self

from reconciler.errors import AlreadyRunning


class DirectoryLock:
    """Lock a directory until ``close``; the kernel releases the lock when the process ends.

    Raises:
        AlreadyRunning: another process holds the lock.
        OSError: the directory does not exist or can't be opened.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor = _lock(directory)

    def refresh(self) -> None:
        """Move the lock to the new directory after the directory was replaced; cheap enough for every pass.

        Releases the old directory only after locking the new one. Does nothing while the directory is
        missing.

        Raises:
            AlreadyRunning: another process holds the new directory.
        """
        try:
            current = self._directory.stat()
        except OSError:
            return
        locked = os.fstat(self._descriptor)
        if (current.st_dev, current.st_ino) == (locked.st_dev, locked.st_ino):
            return
        try:
            descriptor = _lock(self._directory)
        except OSError:
            return
        os.close(self._descriptor)
        self._descriptor = descriptor

    def close(self) -> None:
        """Release the lock."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _lock(directory: Path) -> int:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise AlreadyRunning(f"another service-manager already uses {directory}") from None
    return descriptor
