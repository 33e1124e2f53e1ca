"""Formats the daemon's times as local time."""

from __future__ import annotations

from datetime import datetime

from reconciler.cli.console import clean


def local_time(text: object) -> str:
    """An RFC 3339 time as local time, to the second; other text unchanged."""
    try:
        return datetime.fromisoformat(str(text)).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return clean(text)
