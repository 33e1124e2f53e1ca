"""Names of groups: which ones a person, a URL and a terminal can address. Pure.

A name may have blanks, slashes and any letters. Clients remove segments ``.`` and ``..`` and empty ones from
a path before they send it, so a group with such a segment could be declared, and never be switched.
"""

from __future__ import annotations

_DOTS = frozenset({".", ".."})


def name_problem(name: str) -> str:
    """Return what keeps a name of a group from being addressed; empty if nothing does."""
    if not name.strip():
        return "is empty"
    if name != name.strip():
        return "begins or ends with a blank"
    if not name.isprintable():
        return "has a character that can't be shown"
    segments = name.split("/")
    if "" in segments:
        return "begins or ends with a slash, or has two in a row"
    dots = next((segment for segment in segments if segment in _DOTS), "")
    return f"has the path segment {dots!r}" if dots else ""


def usable_name(text: str) -> str:
    """Return the text as a name without problems: itself if it is one."""
    shown = "".join(character if character.isprintable() else " " for character in text)
    segments = (segment.strip() for segment in shown.split("/"))
    name = "/".join(f"{segment}_" if segment in _DOTS else segment for segment in segments if segment)
    return name or "group"
