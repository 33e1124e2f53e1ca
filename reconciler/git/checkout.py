"""Move the work tree and the branch to a commit, so that a crash at any moment can be finished or undone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reconciler.git.command import Git, GitError
from reconciler.git.inspect import is_ancestor, rev_parse
from reconciler.git.upstream import TAKEN, TOOK

TAKING = "refs/service-manager/taking"
"""The commit of a move that has begun; it does not exist otherwise."""

_MOST_TIPS = 5


def move(git: Git, head: str, new: str, tip: str, half: str) -> None:
    """Check out ``new`` and let the branch follow from ``head``; '' for a first commit. Hold the lock.

    ``tip`` is recorded as the upstream tip that the branch contains. ``half``: what a crash left, see there.

    Raises:
        GitError: the branch moved, another git is at work, or a file is in the way.
    """
    old = half or head or git("hash-object", "-w", "-t", "tree", "--stdin").decode().strip()
    git("update-ref", TAKING, new)
    git.run_with_lock_retry("read-tree", "-u", "-m", old, new)
    moved = f"update HEAD {new} {head or '0' * len(new)}\nupdate {TAKEN} {tip}\ndelete {TAKING}\n"
    git("update-ref", "-m", f"{TOOK}{tip}", "--stdin", given=moved.encode())


def undo(git: Git, head: str, half: str) -> None:
    """Bring the files of ``head`` back where a crash left those of ``half``. Hold the lock."""
    git.run_with_lock_retry("read-tree", "-u", "-m", half, head)
    git.run("update-ref", "-d", TAKING)


def left_half(git: Git, head: str, new: str, tips: Sequence[str]) -> str:
    """The commit whose files a crash left before the branch moved; empty: what differs was edited here.

    Upstream may have withdrawn that commit since, so besides ``new`` it can be any of ``tips``, those that
    upstream held, the newest first. A tip below ``head`` is none: people go back to it by hand.
    """
    try:
        index = git.run_with_lock_retry("write-tree").strip()
    except GitError:
        return ""
    if git.run("diff-files", "-q").stdout:
        return ""
    return next((c for c in _candidates(git, head, new, tips) if _tree(git, c) == index), "")


def _candidates(git: Git, head: str, new: str, tips: Sequence[str]) -> Iterator[str]:
    yield new
    begun = rev_parse(git, TAKING)
    if begun:
        yield begun
    for tip in tips[:_MOST_TIPS]:
        if rev_parse(git, tip) and not (head and is_ancestor(git, tip, head)):
            yield tip


def _tree(git: Git, commit: str) -> bytes:
    return git("rev-parse", f"{commit}^{{tree}}").strip()
