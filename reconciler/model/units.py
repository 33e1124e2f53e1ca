"""Parses and formats amounts: '700MB', '2m', '3 in 30m', '2026-11-23T18:00:00Z'. Pure.

Memory is in bytes, MB is 10^6 and MiB 2^20; durations and times are in seconds, times since the epoch.
Every parser raises ``ValueError`` with a sentence that describes the expected form.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([kKmMgGtT]i?)?[bB]")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d|w)")
_SECONDS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 604800.0,
}
_LIMIT = re.compile(r"(\d+)\s+in\s+(\S+)")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


def parse_memory(text: str) -> int:
    """Parse bytes: '700MB' (10^6), '1.5GiB' (2^30); a bare 0 needs no unit."""
    text = text.strip()
    if text == "0":
        return 0
    match = _MEMORY.fullmatch(text)
    if match is None:
        raise ValueError("expected an amount of memory with its unit, such as 700MB or 1.5GiB")
    unit = (match[2] or "").lower()
    base = 1024 if unit.endswith("i") else 1000
    return round(float(match[1]) * float(base ** _POWERS[unit.removesuffix("i")]))


def format_memory(amount: int) -> str:
    """Format in the largest exact decimal unit: 700_000_000 is '700MB', 1_500_000_000 '1500MB'."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if amount >= size and amount % size == 0:
            return f"{amount // size}{unit}"
    return f"{amount}B"


def parse_duration(text: str) -> float:
    """Parse seconds: '2m', '1m30s', '500ms'; Compose's format plus days and weeks."""
    text = text.strip()
    if text == "0":
        return 0.0
    parts = list(_DURATION_PART.finditer(text))
    if not parts or "".join(part[0] for part in parts) != text:
        raise ValueError("expected a duration, such as 30s, 2m or 1h30m")
    return sum(float(part[1]) * _SECONDS[part[2]] for part in parts)


def format_duration(seconds: float) -> str:
    """Format seconds: '1m30s' for 90; zero parts are omitted, values below 1 s are in milliseconds."""
    if 0 < seconds < 1:
        return f"{round(seconds * 1000)}ms"
    whole = round(seconds)
    text = ""
    for unit in ("d", "h", "m", "s"):
        count, whole = divmod(whole, int(_SECONDS[unit]))
        if count:
            text += f"{count}{unit}"
    return text or "0s"


def parse_limit(text: str) -> tuple[int, float]:
    """Parse '3 in 30m' as (3, 1800.0): at most so many times within so many seconds."""
    match = _LIMIT.fullmatch(text.strip())
    if match is None:
        raise ValueError("expected a count and a duration, such as 3 in 30m")
    count, window = int(match[1]), parse_duration(match[2])
    if count < 1 or window <= 0:
        raise ValueError("expected a count and a duration above zero, such as 3 in 30m")
    return count, window


def format_limit(count: int, window: float) -> str:
    """Format (3, 1800) as '3 in 30m'."""
    return f"{count} in {format_duration(window)}"


def parse_time(text: str) -> float:
    """Parse an RFC 3339 time as seconds since the epoch; the zone is required."""
    text = text.strip()
    if _TIME.fullmatch(text) is None:
        raise ValueError("expected a time with its zone, such as 2026-11-23T18:00:00Z")
    try:
        return datetime.fromisoformat(text.upper()).timestamp()
    except (ValueError, OverflowError):
        raise ValueError("this time does not exist; expected one such as 2026-11-23T18:00:00Z") from None


def format_time(seconds: float, timespec: str = "auto") -> str:
    """Format seconds since the epoch as RFC 3339 in UTC.

    By default to the microsecond, without a fraction for whole seconds: ``parse_time`` reverses this exactly.
    ``timespec`` is that of ``datetime.isoformat``; ``seconds`` and ``milliseconds`` cut off the rest.
    """
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec=timespec).removesuffix("+00:00") + "Z"
