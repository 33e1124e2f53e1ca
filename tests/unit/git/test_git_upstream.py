"""When upstream is rewritten, only commits made on this machine are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.git.command import GitError
from reconciler.git.inspect import is_ancestor
from reconciler.git.upstream import (
    TAKEN,
    Divergence,
    classify,
    compare_with_upstream,
    known_tips,
    record_taken,
)
from tests.support.fixtures.git_repository import GitRepository


@given(st.lists(st.integers(0, 20), unique=True), st.sets(st.integers(0, 20)), st.booleans())
def test_a_commit_is_either_own_or_withdrawn(missing: list[int], own: set[int], ahead: bool) -> None:
    names = [str(number) for number in missing]
    divergence = classify(names, [name for name in names if int(name) in own], contains_tip=ahead)
    assert sorted((*divergence.own, *divergence.withdrawn)) == sorted(names)
    assert divergence.rewritten == bool(divergence.withdrawn)
    assert not (divergence.ahead and divergence.rewritten)


@pytest.fixture
def clone(tmp_path: Path) -> GitRepository:
    return GitRepository(tmp_path)


def test_a_rewritten_upstream_differs_from_local_work(clone: GitRepository) -> None:
    first = clone.commit("first")
    mistake = clone.commit("mistake")
    record_taken(clone.git, mistake)
    own = clone.commit("own")
    tips = known_tips(clone.git, "origin", "main")
    assert compare_with_upstream(clone.git, own, mistake, tips) == Divergence((own,), (), ahead=True)
    assert compare_with_upstream(clone.git, own, first, tips) == Divergence((own,), (mistake,), ahead=False)
    instead = clone.commit("instead", first)
    assert compare_with_upstream(clone.git, own, instead, tips) == Divergence((own,), (mistake,), ahead=False)
    assert compare_with_upstream(clone.git, mistake, instead, tips) == Divergence((), (mistake,), ahead=False)
    assert compare_with_upstream(clone.git, first, instead, tips) == Divergence((), (), ahead=False)


def test_a_pruned_tip_is_ignored(clone: GitRepository) -> None:
    first = clone.commit("first")
    own = clone.commit("own")
    assert compare_with_upstream(clone.git, own, first, ["1" * 40]).own == (own,)


@pytest.mark.parametrize(
    ("message", "upstream"),
    [
        ("clone: from https://example.org/x", True),
        ("pull: Fast-forward", True),
        ("pull --rebase -q origin main: Fast-forward", True),
        ("pull origin feature: Fast-forward", False),
        ("pull /home/ann/clone main: Fast-forward", False),
        ("merge feature: Fast-forward", False),
        ("commit: Edit", False),
        ("service-manager: taken in", True),
        ("service-manager: take in x", False),
    ],
)
def test_upstream_tips_are_read_from_the_reflog(clone: GitRepository, message: str, upstream: bool) -> None:
    first = clone.commit("first")
    tip = clone.commit("tip")
    clone("update-ref", "HEAD", first)
    clone("update-ref", "-m", message, "HEAD", tip)
    assert (tip in known_tips(clone.git, "origin", "main")) == upstream


def test_a_commit_replayed_by_an_earlier_version_is_not_from_upstream(clone: GitRepository) -> None:
    first = clone.commit("first")
    own = clone.commit("own")
    replayed = clone.commit("own, on top", first)
    clone("reset", "-q", "--hard", own)
    clone("update-ref", "-m", "service-manager: taken in", "HEAD", replayed)
    assert replayed not in known_tips(clone.git, "origin", "main")


def test_ancestry_of_a_missing_commit_is_an_error(clone: GitRepository) -> None:
    first = clone.commit("first")
    assert not is_ancestor(clone.git, clone.commit("second"), first)
    with pytest.raises(GitError):
        is_ancestor(clone.git, "1" * 40, first)
    assert TAKEN not in clone("for-each-ref")
