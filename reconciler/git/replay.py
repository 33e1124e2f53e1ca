"""Rebases commits made on this machine onto the upstream tip, outside the work tree."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from reconciler.git.command import Git, GitError, git_dir, stderr_message
from reconciler.git.commit_objects import committer
from reconciler.git.inspect import commit_info

_SHORT = 10
_MOST_NAMED = 3
_LONGEST = 60


def replay(git: Git, tip: str, own: Sequence[str], remedy: str, *, sign: bool = False) -> str:
    """Cherry-pick ``own``, oldest first, onto ``tip``; return the resulting commit.

    The work tree, the index and the branch stay as they are. ``sign``: sign each commit with the key of the
    repository's configuration. ``remedy``: how to resolve a conflict.

    Raises:
        GitError: a commit conflicts, is a merge, or can't be signed; the message says which.
    """
    merges = git("rev-list", "--no-walk=unsorted", "--merges", "--stdin", given=_lines(own)).decode().split()
    if merges:
        message = f"changes made here can't be rebased: {describe_commits(git, merges)} merges"
        raise GitError(message, remedy)
    git("worktree", "prune")
    with tempfile.TemporaryDirectory(prefix="service-manager-", dir=git.directory) as folder:
        if git.owner is not None:
            os.chown(folder, git.owner, -1)
        place = Path(folder) / "tree"
        git("worktree", "add", "--quiet", "--detach", str(place), tip)
        try:
            beside = Git(place, git_dir(place) or git.directory, git.environ)
            signing = ("-c", f"commit.gpgSign={str(sign).lower()}")
            options = ("--keep-redundant-commits", "--allow-empty")
            picked = beside.run(*signing, "cherry-pick", *options, *own, more=committer())
            if picked.returncode:
                raise _failed(git, beside, tip, picked.stderr, remedy)
            return beside.run_line("rev-parse", "HEAD")
        finally:
            git.run("worktree", "remove", "--force", str(place))


def describe_commits(git: Git, commits: Sequence[str]) -> str:
    """List commits for a message: id and subject of the first ones, and the number of the rest."""
    shown = [
        f"{commit[:_SHORT]} ({_plain(commit_info(git, commit).subject)})" for commit in commits[:_MOST_NAMED]
    ]
    rest = len(commits) - len(shown)
    words = ", ".join(shown) + (f" and {rest} more" if rest else "")
    return f"commit{'s' if commits[1:] else ''} {words}"


def _failed(git: Git, beside: Git, tip: str, stderr: bytes, remedy: str) -> GitError:
    picking = beside.run("rev-parse", "--verify", "--quiet", "CHERRY_PICK_HEAD").stdout.decode().strip()
    conflicts = beside.run("diff", "--name-only", "--diff-filter=U", "-z").stdout
    files = [name for name in conflicts.decode(errors="replace").split("\0") if name]
    if not picking or not files:
        return GitError(
            f"changes made here can't be rebased onto commit {tip[:_SHORT]}: {stderr_message(stderr)}",
            remedy,
        )
    return GitError(
        f"changes made here conflict with commit {tip[:_SHORT]}: "
        f"{describe_commits(git, [picking])} conflicts in "
        f"{', '.join(files[:_MOST_NAMED])}; this machine stays as it is",
        remedy,
    )


def _plain(text: str) -> str:
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return printable if len(printable) <= _LONGEST else f"{printable[:_LONGEST]}…"


def _lines(commits: Sequence[str]) -> bytes:
    return "".join(f"{commit}\n" for commit in commits).encode()
