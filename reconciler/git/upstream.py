"""Distinguishes commits made on this machine from commits that the upstream branch has ever held.

A rewritten upstream (reset, amend, rebase, squash, filter-repo, replaced branch) looks like local work: the
machine has commits that upstream lacks. Recorded tips make the difference: a commit that upstream once held
belongs to upstream, which may withdraw it. Every other commit was made here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from reconciler.git.command import Git, GitError
from reconciler.git.inspect import is_ancestor, rev_parse

FETCHED = "refs/service-manager/fetched"
"""The tip of the upstream branch at the last fetch; its reflog keeps the earlier ones."""

TAKEN = "refs/service-manager/taken"
"""The newest upstream tip that the local branch contains."""

TOOK = "service-manager: take in "
"""Begins the reflog message of a move of the local branch; the upstream tip follows."""

_LEGACY = "service-manager: taken in"
"""The reflog message of earlier versions. It names no tip: a fast-forward moved to one, a replay did not."""

_NAME = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_MOST_ENTRIES = 500
_MOST_LEGACY = 20


class Divergence(NamedTuple):
    """How the local branch differs from a fetched tip.

    ``own``: commits made here that the tip lacks, oldest first; they are kept. ``withdrawn``: commits of the
    local branch that upstream held and the tip lacks. ``ahead``: the branch is the tip plus own commits.
    """

    own: tuple[str, ...]
    withdrawn: tuple[str, ...]
    ahead: bool

    @property
    def rewritten(self) -> bool:
        """Whether upstream withdrew commits that the local branch has."""
        return bool(self.withdrawn)


def classify(missing: Sequence[str], own: Sequence[str], *, contains_tip: bool) -> Divergence:
    """Classify ``missing``, the commits of the branch that the tip lacks, by ``own``, those made here."""
    kept = frozenset(own)
    withdrawn = tuple(commit for commit in missing if commit not in kept)
    return Divergence(tuple(own), withdrawn, ahead=contains_tip and not withdrawn)


def compare_with_upstream(git: Git, head: str, tip: str, seen: Collection[str]) -> Divergence:
    """Compare ``head`` with the fetched ``tip``; ``seen`` are the tips that upstream held before.

    Raises:
        GitError: git can't read the commits.
    """
    missing = _commits(git, head, (tip,))
    if not missing:
        return classify((), (), contains_tip=False)
    own = _commits(git, head, (tip, *seen))
    return classify(missing, own, contains_tip=is_ancestor(git, tip, head))


def known_tips(git: Git, remote: str, branch: str) -> tuple[str, ...]:
    """Return every tip that upstream is known to have held, from refs and reflogs; call it before a fetch."""
    tracking = f"refs/remotes/{remote}/{branch}"
    refs = (rev_parse(git, ref) for ref in (TAKEN, FETCHED, tracking))
    found = dict.fromkeys(commit for commit in refs if commit)
    for ref in (FETCHED, tracking):
        found |= dict.fromkeys(commit for commit, _ in _reflog(git, ref))
    found |= dict.fromkeys(_taken_by_head(git, remote, branch))
    return tuple(found)


def record_taken(git: Git, tip: str) -> None:
    """Record the newest upstream tip that the local branch contains."""
    if rev_parse(git, TAKEN) != tip:
        git("update-ref", TAKEN, tip)


def _commits(git: Git, head: str, excluded: Collection[str]) -> tuple[str, ...]:
    # A tip that was pruned excludes nothing; it must not fail the command either.
    given = "\n".join((head, *(f"^{commit}" for commit in excluded), ""))
    listed = git("rev-list", "--topo-order", "--reverse", "--ignore-missing", "--stdin", given=given.encode())
    return tuple(listed.decode().split())


def _taken_by_head(git: Git, remote: str, branch: str) -> Iterator[str]:
    """Yield upstream tips from the reflog of HEAD: clones, manual pulls, pull mode of any version."""
    named = rf"(?: {re.escape(remote)}(?: {re.escape(branch)})?)?"
    straight = re.compile(rf"clone: from |pull(?: -\S+)*{named}: Fast-forward$")
    entries = _reflog(git, "HEAD")
    legacy = _MOST_LEGACY
    for index, (commit, message) in enumerate(entries):
        tip = message.removeprefix(TOOK)
        if tip != message and _NAME.fullmatch(tip):
            yield tip
        elif straight.match(message):
            yield commit
        elif message == _LEGACY and legacy:
            legacy -= 1
            if _fast_forward(git, entries[index + 1][0] if entries[index + 1 :] else "", commit):
                yield commit


def _fast_forward(git: Git, old: str, new: str) -> bool:
    try:
        return not old or is_ancestor(git, old, new)
    except GitError:
        # One of the commits was pruned, so the branch contains neither.
        return False


def _reflog(git: Git, ref: str) -> list[tuple[str, str]]:
    """Return (commit, message) of a ref's reflog, the newest first; empty without a reflog."""
    form = "--format=%H%x00%gs"
    done = git.run(
        "-c", "log.showSignature=false", "log", "-g", form, f"--max-count={_MOST_ENTRIES}", ref, "--"
    )
    if done.returncode:
        return []
    found: list[tuple[str, str]] = []
    for line in done.stdout.decode(errors="replace").split("\n"):
        commit, separator, message = line.partition("\0")
        if separator:
            found.append((commit, message))
    return found
