"""What the harnesses of a program share: whether its process runs, and its id."""

from __future__ import annotations

import subprocess


class ChildProcess:
    """A program that is started and stopped by a subclass."""

    _process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid
