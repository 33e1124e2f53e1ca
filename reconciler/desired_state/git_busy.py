"""Whether git is at work in the tree that a directory lies in, so that a checkout is not read half-way.

Looked at with plain file operations: no git command is run, so nothing of the user's is ever locked.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

LOCK = "index.lock"
SIGNS = (LOCK, "rebase-merge", "rebase-apply", "MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD")


class GitActivity:
    """Tells what to wait for, and for how long; one that outlasts ``limit`` seconds holds nothing up again.

    ``now`` is monotonic seconds.
    """

    def __init__(
        self, directory: Path, limit: float = 5.0, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._directory = directory
        self._limit = limit
        self._now = now
        self._since: dict[tuple[Path, int], float] = {}

    def current_operation(self) -> Path | None:
        """The sign that git is at work and should be waited for; None: go on."""
        signs = self._signs()
        now = self._now()
        self._since = {sign: self._since.get(sign, now) for sign in signs}
        return next((path for (path, _), since in self._since.items() if now - since < self._limit), None)

    def stale_signs(self) -> tuple[str, ...]:
        """Warnings about signs that were waited for in vain: a stale lock, or a merge left standing."""
        return tuple(
            f"git seems to be at work for more than {self._limit:g} s ({path}); files were read all the same"
            for path, _ in self._since
        )

    def _signs(self) -> list[tuple[Path, int]]:
        repository = _repository(self._directory)
        found = []
        for name in SIGNS if repository else ():
            path = repository / name if repository else self._directory
            try:
                age = path.stat().st_mtime_ns
            except OSError:
                continue
            # A new lock is another command; a rebase touches its folder at every step.
            found.append((path, age if name == LOCK else 0))
        return found


def _repository(directory: Path) -> Path | None:
    # Asked twice in every look: by ``Path`` this would cost more than all else in one.
    parent = os.path.realpath(directory)
    while True:
        entry = f"{parent.rstrip('/')}/.git"
        if os.path.isdir(entry):  # noqa: PTH112
            return Path(entry)
        if os.path.isfile(entry):  # noqa: PTH113
            return _linked(Path(entry))
        if parent == "/":
            return None
        parent = os.path.dirname(parent)  # noqa: PTH120


def _linked(entry: Path) -> Path | None:
    # A linked work tree has a file here that names its own git directory, with an index of its own.
    try:
        text = entry.read_text().strip()
    except (OSError, ValueError):
        return None
    return entry.parent / text.removeprefix("gitdir:").strip() if text.startswith("gitdir:") else None
