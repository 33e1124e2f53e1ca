"""Recover edits that raced with an atomic replace by the daemon.

An editor that writes in place looks up the file's name, then opens the file. If the file is replaced in
between, the editor writes to a file without a name. No check during the exchange can detect that, so the
store keeps each replaced file open for a while and checks it again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from reconciler.desired_state.atomic_replace import atomic_replace
from reconciler.desired_state.stable_reader import FileBusy, is_open_for_writing

_KEEP_OPEN = 1.0
"""Seconds; from the lookup of a name to the open file takes microseconds, on a busy host milliseconds."""

_MAX_OPEN = 50
"""Maximum of open replaced files: many writes must not use up the process's file descriptors."""


class _ReplacedFile(NamedTuple):
    path: Path
    descriptor: int
    content: bytes
    since: float


class LateWrites:
    """The recently replaced files. ``now`` is monotonic time in seconds. Not thread-safe.

    ``finished`` holds the descriptors that ``release`` closes.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._replaced: list[_ReplacedFile] = []
        self.finished: list[int] = []

    def remember(self, path: Path, temporary: Path, content: bytes) -> None:
        """Keep a replaced file open: it was at ``path`` with ``content``, and is now at ``temporary``."""
        descriptor = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
        self._replaced.append(_ReplacedFile(path, descriptor, content, self._now()))
        while len(self._replaced) > _MAX_OPEN:
            os.close(self._replaced.pop(0).descriptor)

    def recover(self) -> None:
        """Write late edits of replaced files to their path, as if saved after the replace.

        Raises:
            OSError: the file can't be written; the next call tries again.
        """
        for file in tuple(self._replaced):
            if is_open_for_writing(Path(f"/proc/self/fd/{file.descriptor}")):
                continue
            edit = _content(file.descriptor)
            if edit != file.content:
                try:
                    while not atomic_replace(file.path, file.path.read_bytes(), edit):
                        pass
                except FileBusy:
                    continue
            elif self._now() - file.since < _KEEP_OPEN:
                continue
            self._replaced.remove(file)
            self.finished.append(file.descriptor)

    def release(self) -> None:
        """Close the files whose check is over. This deletes them, which takes disk time."""
        finished, self.finished = self.finished, []
        for descriptor in finished:
            os.close(descriptor)

    def close(self) -> None:
        """Close all files."""
        self.release()
        for file in self._replaced:
            os.close(file.descriptor)
        self._replaced.clear()


def _content(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
