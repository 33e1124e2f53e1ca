"""Warnings about the host: low disk space, and files that can't be watched.

The check of disk space runs in every pass and costs one system call per folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

MIN_FREE_BYTES = 64 * 2**20
"""Free bytes below which a warning appears; a generation takes some kilobytes, and the audit log grows."""


def disk_warnings(folders: Iterable[Path], min_free: int = MIN_FREE_BYTES) -> tuple[str, ...]:
    """Return a warning for each folder on a disk that is read-only or has less than ``min_free`` bytes free.

    The text holds no changing figures, so that a lasting problem keeps the same text.
    """
    return tuple(warning for folder in folders if (warning := _disk_warning(folder, min_free)))


def _disk_warning(folder: Path, min_free: int) -> str:
    try:
        stats = os.statvfs(folder)
    except OSError:
        # The readers and writers of this folder report that error in more detail.
        return ""
    if stats.f_flag & os.ST_RDONLY:
        return f"{folder} is on a read-only file system: no change can be accepted"
    if stats.f_bavail * stats.f_frsize < min_free:
        limit = f"{min_free // 2**20} MiB"
        return f"{folder} has less than {limit} left: when it is full, no change can be accepted"
    return ""


class WatchHealth:
    """Collects the problems of the file watchers."""

    def __init__(self) -> None:
        self._problems: dict[str, str] = {}

    def reporter(self, watcher: str, wake: Callable[[str], None]) -> Callable[[str], None]:
        """Return the ``file_watch.ProblemListener`` of the named watcher.

        Calls ``wake`` with a reason when the problem begins, changes or ends.
        """

        def report(problem: str) -> None:
            if self._problems.get(watcher, "") != problem:
                self._problems[watcher] = problem
                wake("the watching of files")

        return report

    def warnings(self) -> tuple[str, ...]:
        """Return the current problems, sorted, each once."""
        return tuple(sorted({problem for problem in self._problems.values() if problem}))
