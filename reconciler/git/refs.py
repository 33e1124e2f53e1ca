"""Decides which refs may be pushed: branches and tags whose names git can't take for something else."""

from __future__ import annotations

import re

HIDDEN = ("refs", "!refs/heads", "!refs/tags")
"""Values of ``receive.hideRefs``: all but branches and tags. The last one that matches decides."""

REPLACED = "refs/replace/"

_HEADS, _TAGS = "refs/heads/", "refs/tags/"
_PSEUDO = re.compile(r"[A-Z_]*HEAD|@")
_OBJECT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def refusal(ref: str, deployed: str) -> str:
    """Return why a push to ``ref`` is refused; empty: accepted. ``deployed``: the ref of the deployed branch.

    Refs outside branches and tags change how git works: ``refs/replace/ID`` replaces an object everywhere,
    and every command fails if the object names itself.
    """
    prefix = next((known for known in (_HEADS, _TAGS) if ref.startswith(known)), "")
    if not prefix:
        return f"{_shown(ref)} is neither a branch nor a tag; nothing else is accepted"
    kind = "branch" if prefix == _HEADS else "tag"
    name = ref.removeprefix(prefix)
    problem = f"{_shown(name)} is no name for a {kind}"
    if not name.isprintable():
        return f"{problem}: it has unprintable characters"
    if name.startswith("-"):
        return f"{problem}: git takes it for an option"
    if _PSEUDO.fullmatch(name) or _OBJECT.fullmatch(name) or name.startswith("refs/"):
        return f"{problem}: git takes it for something else"
    if kind == "tag" and _HEADS + name == deployed:
        return f"{problem}: the deployed branch has the same name, and git would resolve it to the tag"
    return ""


def _shown(name: str) -> str:
    return name if name.isprintable() else ascii(name)
