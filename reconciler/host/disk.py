"""What people should know of the box: a disk about to stop us (one system call a folder and pass), files
that nobody tells us of."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

LEAST = 64 * 2**20
"""Bytes free below which it is said; a generation takes some kilobytes, and the audit log grows."""


def disk_warnings(folders: Iterable[Path], least: int = LEAST) -> tuple[str, ...]:
    """A sentence for each folder on a disk that is full, nearly so, or not to be written to.

    Nothing that ticks is in them: the same trouble, the same words.
    """
    return tuple(note for folder in folders if (note := _note(folder, least)))


def _note(folder: Path, least: int) -> str:
    try:
        found = os.statvfs(folder)
    except OSError:
        # Not there, or not answering: others say so, and better.
        return ""
    if found.f_flag & os.ST_RDONLY:
        return f"{folder} is on a read-only file system: no change can be accepted"
    if found.f_bavail * found.f_frsize < least:
        return f"{folder} has less than {least // 2**20} MiB left: when it is full, no change can be accepted"
    return ""


class WatchHealth:
    """What keeps files from being watched, by who watches them. ``changed`` is called when that changes."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._known: dict[str, str] = {}

    def reporter(self, who: str) -> Callable[[str], None]:
        """See ``watch.Told``."""

        def tell(what: str) -> None:
            if self._known.get(who, "") != what:
                self._known[who] = what
                self._changed()

        return tell

    def disk_warnings(self) -> tuple[str, ...]:
        """A sentence for each trouble."""
        return tuple(sorted({what for what in self._known.values() if what}))
