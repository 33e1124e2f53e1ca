"""Commits REST writes, each under its own author, in order, and after a crash too.

Pending are the generations after the last one that has a commit. Their contents are frozen, so each write is
a commit of its own even when the file has changed since. An edit by hand that precedes a write in the same
file is committed before it, under its own author; other edits stay uncommitted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from reconciler.desired_state.git_busy import LOCK, SIGNS
from reconciler.desired_state.schema import GROUPS
from reconciler.errors import WriteRefused
from reconciler.generations.store import Generations, Record
from reconciler.git.command import Git, GitError, retry_until_unlocked
from reconciler.git.commit_objects import Author, commit, read_edits
from reconciler.git.inspect import (
    TreeFile,
    WorkTreeStatus,
    rev_parse,
    tree,
    tree_path,
    work_tree_status,
)
from reconciler.git.restored_files import restored_files
from reconciler.model.change_reason import ROLLBACK

_VERBS = {"put": "Set"}


class BranchMoved(GitError):
    """The branch has an unknown commit; read the files again before committing."""


@dataclass(frozen=True, slots=True)
class GroupsVersion:
    """groups.yaml in one generation. ``is_base``: the last generation before the pending ones."""

    record: Record
    content: bytes
    is_base: bool = False

    @property
    def is_write(self) -> bool:
        """Whether it becomes a commit of its own, recorded in its generation."""
        return not self.is_base and made_by_api(self.record)


class AutoCommitter:
    """Commits pending writes in one work tree. ``prefix``: the folder of desired state in it; '': its top.

    ``sign``: sign every commit. Not thread-safe; a call runs git commands for up to a second.
    """

    def __init__(self, git: Git, generations: Generations, prefix: str = "", *, sign: bool = False) -> None:
        self._git = git
        self._generations = generations
        self._prefix = prefix
        self._sign = sign

    def pending(self) -> tuple[Record, ...]:
        """Return the generations without a commit, oldest first, up to the last one that is a write."""
        records = self._generations.history()
        last = max((i for i, r in enumerate(records) if r.commit), default=len(records) - 2)
        behind = list(records[last + 1 :])
        while behind and not made_by_api(behind[-1]):
            behind.pop()
        return tuple(behind)

    def catch_up(self, *, force: bool = False) -> str:
        """Commit every pending write; return the branch's head. The caller holds the lock of the repository.

        Raises:
            GitError: retry later. ``BranchMoved``: retry after reading the files again, or, if that changes
                nothing, with ``force``.
        """
        self._wait_for_others()
        pending = self.pending()
        where = work_tree_status(self._git)
        if not pending:
            return where.head
        if not where.branch:
            raise GitError(
                "HEAD is detached: changes are written, but not committed", "run `git switch` to a branch"
            )
        before = self._before(pending)
        # Nothing differs from a later commit made elsewhere: it contains all writes.
        contained = not where.dirty and (before is None or before.commit != where.head)
        if where.head and (contained or self._ignored()):
            for record in pending:
                self._generations.set_commit(record.generation, where.head)
            return where.head
        return self._commit_pending(pending, before, where, force=force)

    def _wait_for_others(self) -> None:
        for more in retry_until_unlocked():
            busy = next((name for name in SIGNS if (self._git.directory / name).exists()), None)
            if busy is None:
                return
            if busy != LOCK or not more:
                raise GitError(
                    f"another git operation is in progress ({self._git.directory / busy})",
                    "finish or abort it",
                )

    def _before(self, pending: Sequence[Record]) -> Record | None:
        first = pending[0].generation
        return next((r for r in reversed(self._generations.history()) if r.generation < first), None)

    def _ignored(self) -> bool:
        # git 2.39 can't do this in literal mode ("pathspec magic not supported"). "./" makes ":" literal.
        path = f"./{self._path(GROUPS)}"
        return self._git.run("check-ignore", "-q", path, more={"GIT_LITERAL_PATHSPECS": "0"}).returncode == 0

    def _commit_pending(
        self, pending: Sequence[Record], before: Record | None, where: WorkTreeStatus, *, force: bool
    ) -> str:
        versions = [GroupsVersion(record, self._groups(record)) for record in pending]
        if before is not None:
            # A damaged one is left out: the writes are committed without it.
            with suppress(WriteRefused):
                versions.insert(0, GroupsVersion(before, self._groups(before), is_base=True))
        committed = self._find_base(
            versions, where.head, at_base=before is not None and before.commit == where.head
        )
        if committed is None:
            self._check_branch_known(where.head, force=force)
            committed = 0
        return self._append(versions, committed, where.head)

    def _find_base(self, versions: Sequence[GroupsVersion], head: str, *, at_base: bool) -> int | None:
        """Return how many of ``versions`` the branch contains; None if it has other content.

        Several versions may have the content of the branch. With ``at_base`` the oldest of them counts, else
        the newest. ``at_base``: the branch is at the commit of the generation before the pending ones.
        """
        if not head:
            # The first commit of a repository is the first write; the base gets no commit of its own.
            return int(versions[0].is_base)
        entry = tree(self._git, head).get(self._path(GROUPS))
        if entry is None:
            return None
        counts = [
            count for count, version in enumerate(versions, 1) if self._oid(version.content) == entry.oid
        ]
        return (counts[0] if at_base else counts[-1]) if counts else None

    def _check_branch_known(self, head: str, *, force: bool) -> None:
        known = {record.commit for record in self._generations.history()}
        if head not in known and any(known) and not force:
            raise BranchMoved("the branch has moved; reading the files again first")

    def _append(self, versions: Sequence[GroupsVersion], committed: int, head: str) -> str:
        """Commit the versions after the first ``committed`` ones; return the branch's head."""
        for version in versions[:committed]:
            if version.is_write:
                self._generations.set_commit(version.record.generation, head)
        content = versions[committed - 1].content if committed else None
        for version in versions[committed:]:
            if version.is_write:
                head = self._commit_write(version, head)
                self._generations.set_commit(version.record.generation, head)
            elif version.content != content:
                head = self._commit_hand_edit(version.content, head)
            content = version.content
        return head

    def _oid(self, content: bytes) -> str:
        path = self._path(GROUPS)
        return self._git("hash-object", "--stdin", "--path", path, given=content).decode().strip()

    def _commit_write(self, version: GroupsVersion, head: str) -> str:
        record = version.record
        changes: dict[str, bytes | TreeFile | None] = {self._path(GROUPS): version.content}
        if record.cause.action == ROLLBACK:
            target = self._target(record.cause.target)
            sources = self._generations.sources(record.generation)
            paths = {self._path(name): content for name, content in sources.items()}
            changes |= restored_files(self._git, head, target, paths, prefix=self._prefix)
        author = Author(record.author, at=record.at)
        return commit(self._git, head, changes, commit_message(record), author, sign=self._sign)

    def _commit_hand_edit(self, content: bytes, head: str) -> str:
        message = f"Edit {GROUPS} by hand\n"
        changes = {self._path(GROUPS): content}
        return commit(self._git, head, changes, message, self.hand_author(), sign=self._sign)

    def _target(self, word: str) -> str:
        """Return the commit of a rollback's target, a generation or a commit; '' without one."""
        if word.isdecimal():
            record = next((r for r in self._generations.history() if r.generation == int(word)), None)
            if record is not None:
                return record.commit
        return rev_parse(self._git, word) or ""

    def commit_edits(self, message: str = "", author: Author | None = None, more: Sequence[str] = ()) -> str:
        """Commit pending writes, then every tracked file edited by hand, and the files ``more``.

        Return the branch's head; raises as ``catch_up``. The caller holds the lock of the repository.
        """
        head = self.catch_up(force=True)
        where = work_tree_status(self._git)
        names = (*where.dirty, *more)
        if not names:
            return where.head
        if not where.branch:
            raise GitError("HEAD is detached", "run `git switch` to a branch first")
        changes = read_edits(self._git, names)
        text = message or f"Edit {', '.join(sorted(names)[:5])} by hand\n"
        return commit(self._git, head, changes, text, author or self.hand_author(), sign=self._sign)

    def hand_author(self) -> Author:
        """Return the author of edits by hand: from git's configuration, or ``hand edit``."""
        name, email = (
            self._git.run("config", "--get", f"user.{key}").stdout.decode().strip()
            for key in ("name", "email")
        )
        return Author(name or "hand edit", email)

    def _groups(self, record: Record) -> bytes:
        return self._generations.sources(record.generation)[GROUPS]

    def _path(self, name: str) -> str:
        return tree_path(self._git.top, self._prefix, name)


def made_by_api(record: Record) -> bool:
    """Whether a generation comes from a REST write, not from an edit of files or a commit."""
    return not record.cause.from_files


def commit_message(record: Record) -> str:
    """Return the message of a write's commit: the action, its changes, the generation."""
    action, target = record.cause
    if action == ROLLBACK:
        subject = f"Roll back to {'generation' if target.isdecimal() else 'commit'} {target}"
    else:
        subject = f"{_VERBS.get(action, action.capitalize())} {target}".strip()
    changes = "\n".join(record.changes)
    return f"{subject}\n\n{changes}\n\nGeneration: {record.generation}\n"


def retained(sources: Mapping[str, bytes]) -> tuple[str, ...]:
    """Return the files of desired state that belong in git: YAML files, not files of variables."""
    return tuple(n for n in sources if n.endswith((".yaml", ".yml")) and not Path(n).is_absolute())
