"""Generations become commits: each write is one, in order, also if the branch contains some already.

Real git, and a history in memory in place of the state directory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, cast

import pytest

from reconciler.errors import WriteRefused
from reconciler.generations.record import Record
from reconciler.generations.store import Generations
from reconciler.git.auto_commit import AutoCommitter, BranchMoved
from reconciler.git.command import GitError
from tests.support.fixtures.git_repository import GitRepository

GROUPS = "groups.yaml"
DAMAGED: dict[str, str] = {}


class History:
    """The part of ``Generations`` that commits are made from."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._sources: dict[int, Mapping[str, str]] = {}

    def add(self, reason: str, sources: Mapping[str, str] | str, commit: str = "") -> None:
        """Add a generation; a plain text is the content of groups.yaml."""
        number = len(self._records) + 1
        self._records.append(
            Record(
                generation=number,
                revision="",
                meaning="",
                at=1.0,
                author="ben",
                reason=reason,
                changes=(f"change {number}",),
                commit=commit,
            )
        )
        self._sources[number] = {GROUPS: sources} if isinstance(sources, str) else sources

    def history(self) -> tuple[Record, ...]:
        return tuple(self._records)

    def sources(self, generation: int) -> Mapping[str, bytes]:
        if not self._sources[generation]:
            raise WriteRefused("damaged_generation", "damaged", "")
        return {name: content.encode() for name, content in self._sources[generation].items()}

    def set_commit(self, generation: int, commit: str) -> None:
        self._records[generation - 1] = replace(self._records[generation - 1], commit=commit)


class CommitHarness:
    """A repository, a history, and the committer between them."""

    def __init__(self, folder: Path) -> None:
        self.repository = GitRepository(folder)
        self.history = History()

    def commit(self, **options: bool) -> str:
        """Commit what is pending, as the daemon does after a write."""
        committer = AutoCommitter(self.repository.git, cast("Generations", self.history))
        return committer.catch_up(**options)

    def write(self, reason: str, content: str, commit: str = "") -> None:
        """Add a generation, and leave its file on disk."""
        self.history.add(reason, content, commit)
        (self.repository.top / GROUPS).write_text(content)

    def log(self) -> list[str]:
        """The branch, oldest first: author, subject, content of groups.yaml; one line each."""
        if not self.repository("for-each-ref"):
            return []
        lines = []
        for line in self.repository("log", "--reverse", "--format=%H %an: %s").splitlines():
            commit, _, rest = line.partition(" ")
            lines.append(f"{rest} ({self.repository('show', f'{commit}:{GROUPS}')})")
        return lines

    def commits(self) -> list[str]:
        """The subject of each generation's commit, in order; empty: none."""
        return [
            self.repository("log", "-1", "--format=%s", r.commit) if r.commit else ""
            for r in self.history.history()
        ]


@pytest.fixture
def harness(tmp_path: Path) -> CommitHarness:
    return CommitHarness(tmp_path)


def test_each_write_is_a_commit_of_its_author(harness: CommitHarness) -> None:
    harness.write("edited", "a", harness.repository.save("first", {GROUPS: "a"}))
    harness.write("start web", "b")
    harness.write("put extra", "c")
    head = harness.commit()
    assert harness.log() == ["ann: first (a)", "ben: Start web (b)", "ben: Set extra (c)"]
    assert harness.commits() == ["first", "Start web", "Set extra"]
    assert harness.repository("rev-parse", "HEAD") == head
    assert harness.repository("log", "-1", "--format=%b") == "change 3\n\nGeneration: 3"
    assert harness.commit() == head


def test_a_write_and_its_reversal_are_two_commits(harness: CommitHarness) -> None:
    """The branch has the first and the last content; the recorded commit says that it is the first."""
    harness.history.add("edited", "a", harness.repository.save("first", {GROUPS: "a"}))
    harness.history.add("start web", "b")
    harness.write("stop web", "a")
    harness.commit()
    assert harness.log() == ["ann: first (a)", "ben: Start web (b)", "ben: Stop web (a)"]
    assert harness.commits() == ["first", "Start web", "Stop web"]


def test_a_reversal_that_is_in_the_branch_already_is_not_made_again(harness: CommitHarness) -> None:
    """The daemon stopped after both commits, before it recorded either."""
    harness.history.add("edited", "a", harness.repository.save("first", {GROUPS: "a", "other": ""}))
    harness.history.add("start web", "b")
    harness.repository.save("Start web", {GROUPS: "b"})
    harness.history.add("stop web", "a")
    harness.repository.save("Stop web", {GROUPS: "a"})
    # An uncommitted edit of another file: the branch does not contain everything.
    (harness.repository.top / "other").write_text("edited")
    harness.commit()
    assert harness.log() == ["ann: first (a)", "ann: Start web (b)", "ann: Stop web (a)"]
    assert harness.commits() == ["first", "Stop web", "Stop web"]


def test_writes_that_are_in_the_branch_already_are_not_made_again(harness: CommitHarness) -> None:
    """The daemon stopped between making a commit and recording it."""
    harness.history.add("edited", "a", harness.repository.save("first", {GROUPS: "a"}))
    harness.history.add("start web", "b")
    harness.repository.save("Start web", {GROUPS: "b"})
    harness.write("start extra", "c")
    harness.commit()
    assert harness.log() == ["ann: first (a)", "ann: Start web (b)", "ben: Start extra (c)"]
    assert harness.commits() == ["first", "Start web", "Start extra"]


def test_a_hand_edit_before_a_write_is_a_commit_of_its_own(harness: CommitHarness) -> None:
    harness.write("edited", "a", harness.repository.save("first", {GROUPS: "a"}))
    harness.write("edited", "b")
    harness.write("start web", "c")
    harness.write("edited", "d")
    harness.write("start extra", "e")
    harness.write("edited", "f")
    harness.commit()
    assert harness.log() == [
        "ann: first (a)",
        "hand edit: Edit groups.yaml by hand (b)",
        "ben: Start web (c)",
        "hand edit: Edit groups.yaml by hand (d)",
        "ben: Start extra (e)",
    ]
    assert harness.commits() == ["first", "", "Start web", "", "Start extra", ""]


def test_a_generation_of_other_files_is_no_commit_of_groups(harness: CommitHarness) -> None:
    harness.write("edited", "a", harness.repository.save("first", {GROUPS: "a"}))
    harness.write("start web", "b")
    harness.write("commit 0123456789", "b")
    harness.write("stop web", "c")
    harness.commit()
    assert harness.log() == ["ann: first (a)", "ben: Start web (b)", "ben: Stop web (c)"]


def test_an_edit_below_the_first_write_is_committed_before_it(harness: CommitHarness) -> None:
    """The first generation of a daemon that starts on an edited work tree has no commit."""
    harness.repository.save("first", {GROUPS: "a"})
    harness.write("edited", "b")
    harness.write("start web", "c")
    harness.commit()
    assert harness.log() == [
        "ann: first (a)",
        "hand edit: Edit groups.yaml by hand (b)",
        "ben: Start web (c)",
    ]
    assert harness.commits() == ["", "Start web"]


def test_the_first_commit_of_a_repository_is_the_write(harness: CommitHarness) -> None:
    harness.write("edited", "a")
    harness.write("start web", "b")
    harness.commit()
    assert harness.log() == ["ben: Start web (b)"]
    assert harness.commits() == ["", "Start web"]


def test_a_damaged_generation_before_the_write_is_left_out(harness: CommitHarness) -> None:
    harness.history.add("edited", DAMAGED, harness.repository.save("first", {GROUPS: "a"}))
    harness.write("start web", "b")
    harness.commit()
    assert harness.log() == ["ann: first (a)", "ben: Start web (b)"]


def test_an_unknown_commit_with_other_content_is_read_first(harness: CommitHarness) -> None:
    harness.write("edited", "a", harness.repository.save("first", {GROUPS: "a"}))
    harness.repository.save("elsewhere", {GROUPS: "x"})
    harness.write("start web", "b")
    with pytest.raises(BranchMoved):
        harness.commit()
    assert harness.commits() == ["first", ""]
    harness.commit(force=True)
    assert harness.log()[2:] == ["hand edit: Edit groups.yaml by hand (a)", "ben: Start web (b)"]


def test_a_later_commit_that_contains_the_writes_is_recorded_for_them(harness: CommitHarness) -> None:
    harness.history.add("edited", "a", harness.repository.save("first", {GROUPS: "a"}))
    harness.history.add("start web", "b")
    harness.history.add("start extra", "c")
    harness.repository.save("all", {GROUPS: "c"})
    harness.commit()
    assert harness.log() == ["ann: first (a)", "ann: all (c)"]
    assert harness.commits() == ["first", "all", "all"]


def test_an_ignored_file_is_not_committed(harness: CommitHarness) -> None:
    harness.write("edited", "a", harness.repository.save("first", {".gitignore": f"{GROUPS}\n"}))
    harness.write("start web", "b")
    harness.commit()
    assert harness.commits() == ["first", "first"]


def test_nothing_is_committed_on_a_detached_head(harness: CommitHarness) -> None:
    harness.write("edited", "a", harness.repository.save("first", {GROUPS: "a"}))
    harness.repository("checkout", "-q", "--detach")
    harness.write("start web", "b")
    with pytest.raises(GitError, match="HEAD is detached"):
        harness.commit()


def test_nothing_is_committed_during_a_rebase(harness: CommitHarness) -> None:
    harness.write("edited", "a", harness.repository.save("first", {GROUPS: "a"}))
    harness.write("start web", "b")
    (harness.repository.top / ".git/rebase-merge").mkdir()
    with pytest.raises(GitError, match="another git operation is in progress"):
        harness.commit()


class TestRollback:
    """A rollback also commits the tracked files that it restored, and no others."""

    NOW: ClassVar = {GROUPS: "b", "conf": "new", "added": "new", "own": "edited by ann"}

    @pytest.fixture
    def harness(self, harness: CommitHarness) -> CommitHarness:
        repository = harness.repository
        first = repository.save("first", {GROUPS: "a", "conf": "old", "gone": "old", "own": "of ann"})
        harness.history.add("edited", {GROUPS: "a", "conf": "old"}, first)
        repository("rm", "-q", "gone")
        second = repository.save("second", self.NOW)
        harness.history.add("commit 0123456789", {GROUPS: "b", "conf": "new"}, second)
        return harness

    def restore(self, harness: CommitHarness, target: str, files: Mapping[str, str | None]) -> dict[str, str]:
        """Roll back to ``target`` with ``files`` on disk; return the files of the commit that results."""
        for name, content in files.items():
            place = harness.repository.top / name
            place.unlink(missing_ok=True)
            if content is not None:
                place.write_text(content)
        harness.history.add(f"rollback {target}", {GROUPS: "a", "conf": "old"})
        harness.commit()
        names = harness.repository("ls-tree", "-r", "--name-only", "HEAD").splitlines()
        return {name: harness.repository("show", f"HEAD:{name}") for name in names}

    def test_restored_and_removed_files_are_in_the_commit(self, harness: CommitHarness) -> None:
        files = {GROUPS: "a", "conf": "old", "added": None, "gone": "old", "own": "of ann"}
        expected = {GROUPS: "a", "conf": "old", "gone": "old", "own": "of ann"}
        assert self.restore(harness, "1", files) == expected
        assert harness.log()[-1] == "ben: Roll back to generation 1 (a)"

    def test_a_commit_may_be_the_target(self, harness: CommitHarness) -> None:
        first = harness.repository("rev-parse", "HEAD~1")
        files = {GROUPS: "a", "conf": "old", "added": None, "gone": "old"}
        assert "added" not in self.restore(harness, first[:10], files)
        word = first[:10]
        kind = "generation" if word.isdecimal() else "commit"
        assert harness.log()[-1] == f"ben: Roll back to {kind} {word} (a)"

    def test_a_file_that_was_edited_since_stays_uncommitted(self, harness: CommitHarness) -> None:
        files = {GROUPS: "a", "conf": "edited since", "gone": "edited since", "added": "edited since"}
        restored = self.restore(harness, "1", files)
        # Desired state is taken from the generation, not from disk.
        assert restored == {GROUPS: "a", "conf": "old", "added": "new", "own": "edited by ann"}

    def test_without_a_commit_of_the_target_its_own_files_are_restored(self, harness: CommitHarness) -> None:
        harness.history.set_commit(1, "")
        files = {GROUPS: "a", "conf": "old", "added": None, "gone": "old"}
        assert self.restore(harness, "1", files) == {GROUPS: "a", "conf": "old", "own": "edited by ann"}

    def test_an_unknown_target_restores_the_files_of_the_generation(self, harness: CommitHarness) -> None:
        files = {GROUPS: "a", "conf": "old", "added": "new"}
        assert self.restore(harness, "feedfacefeed", files)["conf"] == "old"
