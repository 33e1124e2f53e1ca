"""Moments as the daemon writes them, for people: local time, to the second."""

from __future__ import annotations

from datetime import datetime

from reconciler.cli.console import clean


def local_time(text: object) -> str:
    """A time in local time; as it was sent where it is none."""
    try:
        return datetime.fromisoformat(str(text)).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return clean(text)
