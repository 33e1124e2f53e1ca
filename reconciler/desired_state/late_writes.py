"""Edits that came into a file in the very instant in which it was replaced: found and put in place.

An editor that writes a file in place has looked up its name before it holds it open. If the file is replaced
in between, what the editor writes goes into one that has no name any more. No look at the moment of the
exchange can see that coming, so what was replaced is kept open for a while and looked at again. Used by the
store.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from reconciler.desired_state.atomic_replace import atomic_replace
from reconciler.desired_state.stable_reader import FileBusy, is_open_for_writing

_KEPT_FOR = 1.0
"""Seconds; between looking up a name and holding the file lie microseconds, on a busy box milliseconds."""


_MOST = 50
"""Kept at once: a storm of writes must not use up what a process may hold open."""


class _ReplacedFile(NamedTuple):
    path: Path
    descriptor: int
    content: bytes
    since: float


class LateWrites:
    """What was replaced lately. ``now`` is monotonic seconds. Not to be used by two threads at once.

    ``over`` are the descriptors for ``let_go``.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._kept: list[_ReplacedFile] = []
        self.over: list[int] = []

    def remember(self, path: Path, aside: Path, content: bytes) -> None:
        """Remember that the file now called ``aside`` was ``path`` until now, with this content."""
        descriptor = os.open(aside, os.O_RDONLY | os.O_CLOEXEC)
        self._kept.append(_ReplacedFile(path, descriptor, content, self._now()))
        while len(self._kept) > _MOST:
            os.close(self._kept.pop(0).descriptor)

    def recover(self) -> None:
        """Put edits that came too late where they belong: an edit as any other, saved after ours.

        Raises:
            OSError: it can't be written; tried again at the next call.
        """
        for kept in tuple(self._kept):
            if is_open_for_writing(Path(f"/proc/self/fd/{kept.descriptor}")):
                continue
            edit = _content(kept.descriptor)
            if edit != kept.content:
                try:
                    while not atomic_replace(kept.path, kept.path.read_bytes(), edit):
                        pass
                except FileBusy:
                    continue
            elif self._now() - kept.since < _KEPT_FOR:
                continue
            self._kept.remove(kept)
            self.over.append(kept.descriptor)

    def release(self) -> None:
        """Close what was looked at for the last time. The file is gone then, which costs the disk time."""
        over, self.over = self.over, []
        for descriptor in over:
            os.close(descriptor)

    def close(self) -> None:
        """Let go of all."""
        self.release()
        for kept in self._kept:
            os.close(kept.descriptor)
        self._kept.clear()


def _content(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
