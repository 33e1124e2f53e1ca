"""Reads the times of the daemon's responses, and formats them as local time."""

from __future__ import annotations

import time
from datetime import datetime

from reconciler.cli.console import clean

_FORMAT = "%Y-%m-%d %H:%M:%S"


def unix_seconds(value: object) -> float | None:
    """Return a time of a response (RFC 3339 or seconds) as Unix seconds; None if it is neither."""
    if isinstance(value, int | float):
        return float(value)
    try:
        return datetime.fromisoformat(str(value)).timestamp()
    except ValueError:
        return None


def local_time(value: object) -> str:
    """Return a time as local time, to the second; other text unchanged."""
    seconds = unix_seconds(value)
    return clean(value) if seconds is None else time.strftime(_FORMAT, time.localtime(seconds))
