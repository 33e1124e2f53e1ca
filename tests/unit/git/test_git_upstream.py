"""Which commits are kept when upstream holds others: only those made on this machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.git.command import Git, GitError
from reconciler.git.inspect import is_ancestor
from reconciler.git.upstream import TAKEN, Course, charted, course, note, seen


@given(st.lists(st.integers(0, 20), unique=True), st.sets(st.integers(0, 20)), st.booleans())
def test_a_commit_is_own_or_withdrawn_and_never_both(missing: list[int], own: set[int], ahead: bool) -> None:
    names = [str(number) for number in missing]
    found = course(names, [name for name in names if int(name) in own], contains_tip=ahead)
    assert sorted((*found.own, *found.withdrawn)) == sorted(names)
    assert found.rewritten == bool(found.withdrawn)
    assert not (found.ahead and found.rewritten)


class Clone:
    """A repository with commits that have a line of history as their subject."""

    def __init__(self, folder: Path) -> None:
        environ = {"HOME": str(folder), "PATH": "/usr/bin:/bin", "GIT_CONFIG_NOSYSTEM": "1"}
        for who in ("AUTHOR", "COMMITTER"):
            environ |= {f"GIT_{who}_NAME": "ann", f"GIT_{who}_EMAIL": "ann@example.org"}
        self.top = folder / "clone"
        self.environ = environ
        subprocess.run(["git", "init", "-q", "-b", "main", str(self.top)], check=True, env=environ)
        self.git = Git(self.top, self.top / ".git", environ)

    def __call__(self, *words: str) -> str:
        command = ["git", "-C", str(self.top), *words]
        done = subprocess.run(command, check=True, env=self.environ, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self, subject: str, *onto: str) -> str:
        if onto:
            self("reset", "-q", "--hard", *onto)
        self("commit", "-q", "--allow-empty", "-m", subject)
        return self("rev-parse", "HEAD")


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_a_rewritten_upstream_is_told_from_local_work(clone: Clone) -> None:
    first = clone.commit("first")
    mistake = clone.commit("mistake")
    note(clone.git, mistake)
    own = clone.commit("own")
    tips = seen(clone.git, "origin", "main")
    assert charted(clone.git, own, mistake, tips) == Course((own,), (), ahead=True)
    assert charted(clone.git, own, first, tips) == Course((own,), (mistake,), ahead=False)
    instead = clone.commit("instead", first)
    assert charted(clone.git, own, instead, tips) == Course((own,), (mistake,), ahead=False)
    assert charted(clone.git, mistake, instead, tips) == Course((), (mistake,), ahead=False)
    assert charted(clone.git, first, instead, tips) == Course((), (), ahead=False)


def test_a_tip_that_was_pruned_is_no_obstacle(clone: Clone) -> None:
    first = clone.commit("first")
    own = clone.commit("own")
    assert charted(clone.git, own, first, ["1" * 40]).own == (own,)


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
def test_what_the_reflog_says_upstream_held(clone: Clone, message: str, upstream: bool) -> None:
    first = clone.commit("first")
    tip = clone.commit("tip")
    clone("update-ref", "HEAD", first)
    clone("update-ref", "-m", message, "HEAD", tip)
    assert (tip in seen(clone.git, "origin", "main")) == upstream


def test_what_an_earlier_version_replayed_is_not_upstreams(clone: Clone) -> None:
    first = clone.commit("first")
    own = clone.commit("own")
    replayed = clone.commit("own, on top", first)
    clone("reset", "-q", "--hard", own)
    clone("update-ref", "-m", "service-manager: taken in", "HEAD", replayed)
    assert replayed not in seen(clone.git, "origin", "main")


def test_what_can_not_be_told_is_an_error(clone: Clone) -> None:
    first = clone.commit("first")
    assert not is_ancestor(clone.git, clone.commit("second"), first)
    with pytest.raises(GitError):
        is_ancestor(clone.git, "1" * 40, first)
    assert TAKEN not in clone("for-each-ref")
