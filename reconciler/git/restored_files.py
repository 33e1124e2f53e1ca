"""The tracked files that a rollback changed, as they belong in its commit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from reconciler.git.command import Git
from reconciler.git.commit_objects import TreeEdit
from reconciler.git.inspect import TreeFile, read_blobs, tree


def restored_files(
    git: Git, head: str, target: str, sources: Mapping[str, bytes], *, prefix: str = ""
) -> TreeEdit:
    """Return the changes between ``head`` and ``target`` below ``prefix`` that the rollback made on disk.

    A file that was edited after the rollback is left out. ``head`` and ``target`` are commits; '': no files.
    ``sources`` are the files of desired state that the rollback restored, by path from the top: they are
    taken from here, not from disk, if one of the commits has them.

    Raises:
        GitError: git failed.
    """
    before = tree(git, head) if head else {}
    after = tree(git, target) if target else {}
    changes: dict[str, bytes | TreeFile | None] = dict(_deleted(git.top, before, prefix))
    changes |= _restored(git, before, after, prefix)
    changes |= {name: content for name, content in sources.items() if name in before or name in after}
    return changes


def _deleted(top: Path, before: Mapping[str, TreeFile], prefix: str) -> dict[str, None]:
    return {name: None for name in before if name.startswith(prefix) and _read(top / name) is None}


def _restored(
    git: Git, before: Mapping[str, TreeFile], after: Mapping[str, TreeFile], prefix: str
) -> dict[str, TreeFile | None]:
    names = [
        name
        for name in {**before, **after}
        if name.startswith(prefix) and before.get(name) != after.get(name)
    ]
    contents = read_blobs(git, [after[name].oid for name in names if name in after])
    expected = {name: contents[after[name].oid] if name in after else None for name in names}
    return {name: after.get(name) for name in names if _read(git.top / name) == expected[name]}


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
