"""A small terminal: runs a program in a pty and knows what its screen shows. As much VT100 as we write."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

_SEQUENCE = re.compile(r"\x1b\[(\??)([\d;]*)([A-Za-z])")


class Screen:
    """Rows of characters with a cursor; wraps and scrolls as terminals do. Wraps anew when made narrower."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.lines: list[str] = [""]
        self.row = self.column = 0
        self.hidden = False
        self.other: list[str] | None = None
        self.widest = 0
        self.drawing = False
        self._rest = ""

    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines).strip("\n")

    def feed(self, data: str) -> None:
        data = self._rest + data
        cut = data.rfind("\x1b")
        complete = cut < 0 or _SEQUENCE.match(data, cut)
        self._rest = "" if complete else data[cut:]
        data = data if complete else data[:cut]
        place = 0
        while place < len(data):
            match = _SEQUENCE.match(data, place)
            if match:
                self._obey(match[1], match[2], match[3])
                place = match.end()
                continue
            self._put(data[place])
            place += 1

    def narrow(self, columns: int) -> None:
        """The window is made narrower: long lines wrap, as modern terminals do it."""
        before = [line.rstrip() for line in self.lines]
        self.lines = [
            line[start : start + columns] for line in before for start in range(0, max(1, len(line)), columns)
        ]
        self.columns = columns
        self.row, self.column = len(self.lines) - 1, len(self.lines[-1])

    def _obey(self, private: str, numbers: str, letter: str) -> None:
        count = int(numbers.split(";", maxsplit=1)[0] or 0) if numbers else 0
        if letter == "A":
            self.row = max(0, self.row - max(1, count))
        elif letter == "H":
            self.row = self.column = 0
        elif letter == "K":
            self.lines[self.row] = self.lines[self.row][: self.column]
        elif letter == "J":
            self.lines[self.row] = self.lines[self.row][: self.column]
            del self.lines[self.row + 1 :]
        elif private and numbers == "25":
            self.hidden = letter == "l"
        elif private and numbers == "2026":
            self.drawing = letter == "h"
        elif private and numbers == "1049" and letter == "h":
            self.other, self.lines, self.row, self.column = self.lines, [""], 0, 0
        elif private and numbers == "1049":
            self.lines = self.other or [""]
            self.row, self.column = len(self.lines) - 1, len(self.lines[-1])

    def _put(self, letter: str) -> None:
        if letter == "\r":
            self.column = 0
        elif letter == "\n":
            self.row += 1
            while self.row >= len(self.lines):
                self.lines.append("")
        else:
            if self.column >= self.columns:
                self.column = 0
                self._put("\n")
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + letter + line[self.column + 1 :]
            self.column += 1
            self.widest = max(self.widest, self.column)


class Terminal:
    """A program in a pty. ``see`` waits until a whole frame shows a text, with a deadline."""

    def __init__(self, process: subprocess.Popen[bytes], master: int, columns: int, rows: int) -> None:
        self.process = process
        self.screen = Screen(columns, rows)
        self.raw = b""
        self._master = master

    def see(self, text: str, seconds: float = 20.0) -> str:
        deadline = time.monotonic() + seconds
        while self.screen.drawing or text not in self.screen.text():
            assert self._read(deadline), f"no {text!r} on the screen:\n{self.screen.text()}\n\n{self.raw!r}"
        return self.screen.text()

    def end(self, seconds: float = 20.0) -> int:
        deadline = time.monotonic() + seconds
        while self._read(deadline):
            pass
        return self.process.wait(timeout=seconds)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def resize(self, columns: int, rows: int) -> None:
        # What it has drawn for the old size is on the screen before that changes.
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)
        while self._read(0.0):
            pass
        self.screen.narrow(columns)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process.send_signal(signal.SIGCONT)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
        try:
            data = os.read(self._master, 65536) if ready else b""
        except OSError:
            # EIO: the other side is closed.
            return False
        self.raw += data
        self.screen.feed(data.decode(errors="replace"))
        return bool(data)


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    # A shell that runs the tests in the background has them ignore it, and that would be inherited.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def terminal(*words: str, columns: int = 80, rows: int = 24, **environ: str) -> Iterator[Terminal]:
    """``service-manager WORDS`` in a terminal of this size."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SERVICE_MANAGER_") and k != "NO_COLOR"}
    process = subprocess.Popen(
        [sys.executable, "-m", "reconciler", *words],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=_take_terminal,  # noqa: PLW1509 - one system call, and no other way to get Ctrl-C
        env={**clean, "TERM": "xterm-256color", **environ},
    )
    os.close(slave)
    try:
        yield Terminal(process, master, columns, rows)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(master)
