"""How the daemon logs: one line per fact, constant text first, then what it is about."""

from __future__ import annotations

import logging
import os
import sys
from typing import TextIO

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_JOURNAL = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}


class Lines(logging.Formatter):
    """``message key=value …``; with the time, or under the journal with its level instead."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__("%(message)s" if journal else "%(asctime)s %(message)s", datefmt="%H:%M:%S")
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """The line, with everything given as ``extra``."""
        line = super().format(record)
        extra = {k: v for k, v in vars(record).items() if k not in _PLAIN and not k.startswith("_")}
        told = " ".join(f"{key}={_value(value)}" for key, value in extra.items())
        first, *rest = f"{line}  {told}".rstrip().split("\n")
        if not self._journal:
            mark = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
            stamp, _, text = first.partition(" ")
            return "\n".join([f"{stamp} {mark}{text}", *rest])
        prefix = f"<{_JOURNAL.get(record.levelname, 6)}>"
        return "\n".join(prefix + part for part in (first, *rest))


def _value(value: object) -> str:
    text = str(value)
    return repr(text) if not text or " " in text else text


def set_up(stream: TextIO = sys.stderr) -> None:
    """Log to ``stream``; ``SERVICE_MANAGER_LOG_LEVEL`` says how much (default: info)."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Lines(journal="JOURNAL_STREAM" in os.environ))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    level = os.environ.get("SERVICE_MANAGER_LOG_LEVEL", "info").upper()
    logging.getLogger("reconciler").setLevel(level if level in _JOURNAL else "INFO")
