"""Detect a running git operation in the work tree of a directory, so that no half-done checkout is read.

Checks files only: no git command runs, so nothing in the user's repository is ever locked.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

LOCK = "index.lock"
SIGNS = (LOCK, "rebase-merge", "rebase-apply", "MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD")


class GitActivity:
    """Reports git operations that a load must wait for, each for at most ``limit`` seconds.

    ``now`` returns monotonic time in seconds.
    """

    def __init__(
        self, directory: Path, limit: float = 5.0, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._directory = directory
        self._limit = limit
        self._now = now
        self._since: dict[tuple[Path, int], float] = {}

    def current_operation(self) -> Path | None:
        """Return the path that shows a git operation to wait for; None if there is nothing to wait for."""
        signs = self._signs()
        now = self._now()
        self._since = {sign: self._since.get(sign, now) for sign in signs}
        return next((path for (path, _), since in self._since.items() if now - since < self._limit), None)

    def stale_signs(self) -> tuple[str, ...]:
        """Return warnings about operations that outlast the limit: a stale lock or an unfinished merge."""
        return tuple(
            f"a git operation has run for over {self._limit:g} s ({path}); the files were read anyway"
            for path, _ in self._since
        )

    def _signs(self) -> list[tuple[Path, int]]:
        repository = _repository(self._directory)
        signs = []
        for name in SIGNS if repository else ():
            path = repository / name if repository else self._directory
            try:
                modified = path.stat().st_mtime_ns
            except OSError:
                continue
            # Each command creates a new lock; a rebase changes its folder at every step.
            signs.append((path, modified if name == LOCK else 0))
        return signs


def _repository(directory: Path) -> Path | None:
    # Runs twice in every scan: with ``Path`` this would be the slowest part of it.
    parent = os.path.realpath(directory)
    while True:
        entry = f"{parent.rstrip('/')}/.git"
        if os.path.isdir(entry):  # noqa: PTH112
            return Path(entry)
        if os.path.isfile(entry):  # noqa: PTH113
            return _linked_git_dir(Path(entry))
        if parent == "/":
            return None
        parent = os.path.dirname(parent)  # noqa: PTH120


def _linked_git_dir(entry: Path) -> Path | None:
    # In a linked work tree, .git is a file that names its git directory, which has its own index.
    try:
        text = entry.read_text().strip()
    except (OSError, ValueError):
        return None
    return entry.parent / text.removeprefix("gitdir:").strip() if text.startswith("gitdir:") else None
