"""Which refs may be pushed: branches and tags whose names git can't take for an option or another object."""

from __future__ import annotations

import re

HIDDEN = ("refs", "!refs/heads", "!refs/tags")
"""Values of ``receive.hideRefs``: all but branches and tags. The last one that matches decides."""

REPLACED = "refs/replace/"

_HEADS, _TAGS = "refs/heads/", "refs/tags/"
_PSEUDO = re.compile(r"[A-Z_]*HEAD|@")
_OBJECT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def refusal(ref: str, deployed: str) -> str:
    """Why a push to ``ref`` is refused, empty: it is not. ``deployed``: the ref of the deployed branch.

    A ref outside of branches and tags changes what git itself does: ``refs/replace/ID`` replaces an object
    everywhere, and every command fails where it names itself.
    """
    prefix = next((known for known in (_HEADS, _TAGS) if ref.startswith(known)), "")
    if not prefix:
        return f"{_shown(ref)} is neither a branch nor a tag; nothing else is taken"
    kind = "branch" if prefix == _HEADS else "tag"
    name = ref.removeprefix(prefix)
    told = f"{_shown(name)} is no name for a {kind}"
    if not name.isprintable():
        return f"{told}: it has characters that can't be shown"
    if name.startswith("-"):
        return f"{told}: git takes it for an option"
    if _PSEUDO.fullmatch(name) or _OBJECT.fullmatch(name) or name.startswith("refs/"):
        return f"{told}: git takes it for something else"
    if kind == "tag" and _HEADS + name == deployed:
        return f"{told}: the branch that is deployed is called so, and git would take the tag"
    return ""


def _shown(name: str) -> str:
    return name if name.isprintable() else ascii(name)
