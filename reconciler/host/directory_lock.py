"""One daemon per directory: a lock on the directory itself, so that nothing of ours lies in it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Self

from reconciler.errors import AlreadyRunning


class DirectoryLock:
    """Holds a directory for as long as it lives; the kernel gives it back when the process ends.

    Raises:
        AlreadyRunning: another process holds it.
        OSError: there is no such directory, or it can't be opened.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor = _taken(directory)

    def refresh(self) -> None:
        """Takes the directory that is there now, where it was replaced by another; cheap, call it often.

        The old one is let go only when the new one is held. A directory that is gone for the moment
        leaves things as they are.

        Raises:
            AlreadyRunning: another process holds the new one.
        """
        try:
            now = self._directory.stat()
        except OSError:
            return
        held = os.fstat(self._descriptor)
        if (now.st_dev, now.st_ino) == (held.st_dev, held.st_ino):
            return
        try:
            descriptor = _taken(self._directory)
        except OSError:
            return
        os.close(self._descriptor)
        self._descriptor = descriptor

    def close(self) -> None:
        """Lets go of the directory."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _taken(directory: Path) -> int:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise AlreadyRunning(f"another service-manager already uses {directory}") from None
    return descriptor
