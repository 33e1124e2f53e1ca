"""Moves the work tree and the branch to a commit; a crash at any moment can be completed or undone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reconciler.git.command import Git, GitError
from reconciler.git.inspect import is_ancestor, rev_parse
from reconciler.git.upstream import TAKEN, TOOK

TAKING = "refs/service-manager/taking"
"""The target commit of a move in progress; the ref does not exist otherwise."""

_MOST_TIPS = 5


def move(git: Git, head: str, new: str, tip: str, partial: str) -> None:
    """Check out ``new`` and move the branch there from ``head`` ('': no commit yet). Hold the lock.

    ``tip`` is recorded as the upstream tip in the branch. ``partial``: see ``interrupted_checkout``.

    Raises:
        GitError: the branch moved, another git is at work, or a file is in the way.
    """
    old = partial or head or git("hash-object", "-w", "-t", "tree", "--stdin").decode().strip()
    git("update-ref", TAKING, new)
    git.run_with_lock_retry("read-tree", "-u", "-m", old, new)
    moved = f"update HEAD {new} {head or '0' * len(new)}\nupdate {TAKEN} {tip}\ndelete {TAKING}\n"
    git("update-ref", "-m", f"{TOOK}{tip}", "--stdin", given=moved.encode())


def undo(git: Git, head: str, partial: str) -> None:
    """Restore the files of ``head`` where a crash left those of ``partial``. The caller holds the lock."""
    git.run_with_lock_retry("read-tree", "-u", "-m", partial, head)
    git.run("update-ref", "-d", TAKING)


def interrupted_checkout(git: Git, head: str, new: str, tips: Sequence[str]) -> str:
    """Return the commit whose checkout a crash interrupted before the branch moved; empty: there is none.

    Candidates are ``new`` and, since upstream may have withdrawn the commit, ``tips``: earlier tips of
    upstream, newest first. A tip that ``head`` contains is left out: a user may have restored it by hand.
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
