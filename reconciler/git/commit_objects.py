"""Makes commits with an index of its own, without disturbing a user's staged changes.

A commit is built from contents, not from the work tree, which may have changed since. The user's index gets
the new entries of the committed files, unless other content is staged there.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from reconciler.git.command import Git, GitError
from reconciler.git.inspect import TreeFile, tree

NAME = "Service Manager"
EMAIL = "service-manager@localhost"

_FILE, _PROGRAM, _LINK = "100644", "100755", "120000"
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f<>]+")


class Author(NamedTuple):
    """The author of a change, and its time (wall seconds; 0: now)."""

    name: str
    email: str = ""
    at: float = 0.0


TreeEdit = Mapping[str, bytes | TreeFile | None]
"""By path from the top: the new content, or an entry of another commit; None: the file is deleted."""


def commit(
    git: Git, parent: str, changes: TreeEdit, message: str, author: Author, *, sign: bool = False
) -> str:
    """Commit ``changes`` on top of ``parent`` ('' for a first commit) and move the branch there.

    ``sign``: with the key of the owner's git configuration.

    Return the commit's id, or ``parent`` if nothing differs. The branch moves only if it is still at
    ``parent``. The caller holds the lock of the repository.

    Raises:
        GitError: another git holds a lock, the branch moved, or git failed.
    """
    before = tree(git, parent) if parent else {}
    entries = {name: _entry(git, name, what, before.get(name)) for name, what in changes.items()}
    entries = {name: entry for name, entry in entries.items() if not _same(entry, before.get(name))}
    if parent and not entries:
        return parent
    made = _write_commit(git, parent, entries, message, author, sign=sign)
    _update_index(git, before, entries)
    git(
        "update-ref",
        "-m",
        f"commit: {message.partition(chr(10))[0]}",
        "HEAD",
        made,
        parent or "0" * len(made),
    )
    return made


def read_edits(git: Git, names: Iterable[str]) -> dict[str, TreeFile | None]:
    """Return files of the work tree for a commit: links as links, with their executable bit."""
    return {name: _on_disk(git, name) for name in names}


def _on_disk(git: Git, name: str) -> TreeFile | None:
    place = git.top / name
    try:
        mode = place.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISLNK(mode):
        content = os.fsencode(place.readlink())
        return TreeFile(
            _LINK, git("hash-object", "-w", "--stdin", given=content).decode().strip(), len(content)
        )
    content = place.read_bytes()
    oid = git("hash-object", "-w", "--stdin", "--path", name, given=content).decode().strip()
    return TreeFile(_PROGRAM if mode & stat.S_IXUSR else _FILE, oid, len(content))


def _same(new: TreeFile | None, old: TreeFile | None) -> bool:
    return new[:2] == old[:2] if new is not None and old is not None else new is old


def _entry(git: Git, name: str, what: bytes | TreeFile | None, old: TreeFile | None) -> TreeFile | None:
    if what is None or isinstance(what, TreeFile):
        return what
    # With --path, so that line ends are converted as by `git add`.
    oid = git("hash-object", "-w", "--stdin", "--path", name, given=what).decode().strip()
    return TreeFile(old.mode if old else _FILE, oid, len(what))


def _write_commit(
    git: Git,
    parent: str,
    entries: Mapping[str, TreeFile | None],
    message: str,
    author: Author,
    *,
    sign: bool,
) -> str:
    with tempfile.TemporaryDirectory(prefix="service-manager-") as folder:
        if git.owner is not None:
            os.chown(folder, git.owner, -1)
        index = Path(folder) / "index"
        git("read-tree", parent or "--empty", index=index)
        git("update-index", "-z", "--index-info", given=_index_info(entries), index=index)
        made = git("write-tree", index=index).decode().strip()
    above = ["-p", parent] if parent else []
    signed = ["--gpg-sign"] if sign else []
    return (
        git("commit-tree", *signed, made, *above, given=message.encode(), more=_identity(author))
        .decode()
        .strip()
    )


def _index_info(entries: Mapping[str, TreeFile | None]) -> bytes:
    lines = [
        f"{entry.mode} {entry.oid}\t{name}" if entry else f"0 {'0' * 40}\t{name}"
        for name, entry in entries.items()
    ]
    return "".join(f"{line}\0" for line in lines).encode(errors="surrogateescape")


def _identity(author: Author) -> dict[str, str]:
    name = _UNPRINTABLE.sub(" ", author.name).strip() or "unknown"
    email = _UNPRINTABLE.sub("", author.email) or f"{re.sub(r'[^A-Za-z0-9._+-]+', '-', name)}@localhost"
    found = {"GIT_AUTHOR_NAME": name, "GIT_AUTHOR_EMAIL": email, **committer()}
    return found | ({"GIT_AUTHOR_DATE": f"@{int(author.at)} +0000"} if author.at else {})


def committer() -> dict[str, str]:
    """Return the variables that make Service Manager the committer."""
    return {"GIT_COMMITTER_NAME": NAME, "GIT_COMMITTER_EMAIL": EMAIL}


def _update_index(git: Git, before: Mapping[str, TreeFile], entries: Mapping[str, TreeFile | None]) -> None:
    """Put the committed entries into the user's index, before the branch moves.

    After a crash in between, the commit is made again and leaves no other trace.
    """
    staged = _staged(git)
    updated = {
        name: entry
        for name, entry in entries.items()
        if staged.get(name) == (before[name].oid if name in before else None)
    }
    if updated:
        git.run_with_lock_retry("update-index", "-z", "--index-info", given=_index_info(updated))
    git.run("update-index", "-q", "--refresh")


def _staged(git: Git) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in git("ls-files", "-s", "-z").decode(errors="surrogateescape").split("\0"):
        entry, _, name = part.partition("\t")
        if name:
            found[name] = entry.split()[1]
    return found


__all__ = ["Author", "GitError", "TreeEdit", "commit", "committer", "read_edits"]
