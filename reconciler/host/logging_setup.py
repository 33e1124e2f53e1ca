"""Log format of the daemon: one line per event, constant text first, then its fields.

Under systemd a record goes to the journal with its level and fields, so that
``journalctl -u service-manager -p warning`` and ``… SERVICE_MANAGER_SERVICE=kafka`` find it.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from reconciler.host.journald import SOCKET, Journal, field_name, is_journal_stream

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_JOURNAL = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}


class LineFormatter(logging.Formatter):
    """Format a record as ``message key=value …``, with its time, or for the journal with its level."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__("%(message)s" if journal else "%(asctime)s %(message)s", datefmt="%H:%M:%S")
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """Return the line or lines of a record, with the fields given as ``extra``."""
        first, *rest = (_without_escapes(line) for line in self.text(record).split("\n"))
        if not self._journal:
            mark = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
            stamp, _, text = first.partition(" ")
            return "\n".join([f"{stamp} {mark}{text}", *rest])
        prefix = f"<{_priority(record)}>"
        return "\n".join(prefix + part for part in (first, *rest))

    def text(self, record: logging.LogRecord) -> str:
        """Return message, traceback and fields without the level."""
        line = super().format(record)
        fields = " ".join(f"{key}={_value(value)}" for key, value in _extra(record).items())
        return f"{line}  {fields}".rstrip()


class JournalHandler(logging.Handler):
    """Send records to the journal, or to ``stream`` as lines with a level if the journal rejects them."""

    def __init__(self, journal: Journal, stream: TextIO) -> None:
        super().__init__()
        self._journal = journal
        self._stream = stream
        self._lines = LineFormatter(journal=True)

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record; never raises."""
        try:
            fields = {
                "LOGGER": record.name,
                "CODE_FILE": record.pathname,
                "CODE_LINE": str(record.lineno),
                "CODE_FUNC": record.funcName or "",
                **{field_name(key): str(value) for key, value in _extra(record).items()},
            }
            if not self._journal.send(self._lines.text(record), _priority(record), fields):
                print(self._lines.format(record), file=self._stream, flush=True)
        except Exception:  # noqa: BLE001 - a logging error must not stop the caller
            self.handleError(record)

    def close(self) -> None:
        """Close the connection to the journal."""
        self._journal.close()
        super().close()


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {k: v for k, v in vars(record).items() if k not in _PLAIN and not k.startswith("_")}


def _priority(record: logging.LogRecord) -> int:
    return _JOURNAL.get(record.levelname, 6)


def _value(value: object) -> str:
    text = str(value)
    # Texts of others (authors of commits, output of programs) must not send escapes to a terminal.
    return text if text and text.isprintable() and " " not in text else repr(text)


def _without_escapes(line: str) -> str:
    """Show control characters in a message or traceback as escapes; tabs stay."""
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() or char == "\t" else repr(char)[1:-1] for char in line)


def handler(
    stream: TextIO, environ: Mapping[str, str] = os.environ, journal_socket: Path = SOCKET
) -> logging.Handler:
    """Return a handler for the journal if ``stream`` is connected to it, else for lines on ``stream``."""
    journal = _leads_to_journal(stream, environ)
    if journal:
        with suppress(OSError):
            return JournalHandler(Journal(journal_socket), stream)
    lines = logging.StreamHandler(stream)
    lines.setFormatter(LineFormatter(journal=journal))
    return lines


def emit(text: str, stream: TextIO | None = None, environ: Mapping[str, str] = os.environ) -> None:
    """Print a start-up error to the terminal, or to the journal with level critical."""
    stream = stream or sys.stderr
    mark = f"<{_JOURNAL['CRITICAL']}>" if _leads_to_journal(stream, environ) else ""
    print("\n".join(mark + line for line in f"service-manager: {text}".split("\n")), file=stream, flush=True)


def _leads_to_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    try:
        return is_journal_stream(environ.get("JOURNAL_STREAM", ""), stream.fileno())
    except (OSError, ValueError):
        return False


def set_up(stream: TextIO = sys.stderr) -> None:
    """Log to ``stream`` at the level ``SERVICE_MANAGER_LOG_LEVEL`` (default: info)."""
    root = logging.getLogger()
    root.addHandler(handler(stream))
    root.setLevel(logging.WARNING)
    level = os.environ.get("SERVICE_MANAGER_LOG_LEVEL", "info").upper()
    logging.getLogger("reconciler").setLevel(level if level in _JOURNAL else "INFO")
