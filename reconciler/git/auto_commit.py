"""Commits REST writes, each under its own author, in order, and after a crash too.

Pending are the generations after the last one that has a commit. Their contents are frozen, so each write is
a commit of its own even when the file has changed since. An edit by hand that precedes a write in the same
file is committed before it, under its own author; other edits stay uncommitted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from reconciler.desired_state.git_busy import LOCK, SIGNS
from reconciler.desired_state.schema import GROUPS
from reconciler.errors import WriteRefused
from reconciler.generations.store import Generations, Record
from reconciler.git.command import Git, GitError, retry_until_unlocked
from reconciler.git.commit_objects import Author, TreeEdit, commit, read_edits
from reconciler.git.inspect import TreeFile, WorkTreeStatus, read_blobs, rev_parse, tree, work_tree_status

EDITED = "edited"
COMMITTED = "commit "
ROLLBACK = "rollback "

_VERBS = {"put": "Set"}


class BranchMoved(GitError):
    """The branch has an unknown commit; read the files again before committing."""


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
        # The command fails in literal mode (git 2.39: "pathspec magic not supported"); "./" makes ":" literal.
        path = f"./{self._path(GROUPS)}"
        return self._git.run("check-ignore", "-q", path, more={"GIT_LITERAL_PATHSPECS": "0"}).returncode == 0

    def _commit_pending(
        self, pending: Sequence[Record], before: Record | None, where: WorkTreeStatus, *, force: bool
    ) -> str:
        chain: list[tuple[Record | None, bytes]] = [(record, self._groups(record)) for record in pending]
        if before is not None:
            with suppress(WriteRefused):
                chain.insert(0, (None, self._groups(before)))
        head = where.head
        at = self._find_content(chain, head, first=before is not None and before.commit == head)
        if at is None:
            known = {record.commit for record in self._generations.history()}
            if head and head not in known and any(known) and not force:
                raise BranchMoved("the branch has moved; reading the files again first")
            at = 0 if chain[0][0] is None else -1
            if at == 0 and head:
                head = self._commit_hand_edit(head, chain[0][1])
        for record, _ in chain[: at + 1]:
            if record is not None and made_by_api(record):
                self._generations.set_commit(record.generation, head)
        held = chain[at][1] if at >= 0 else None
        for record, content in chain[at + 1 :]:
            assert record is not None
            if made_by_api(record):
                head = self._commit_write(record, content, head)
                self._generations.set_commit(record.generation, head)
            elif content != held:
                head = self._commit_hand_edit(head, content)
            held = content
        return head

    def _find_content(
        self, chain: Sequence[tuple[Record | None, bytes]], head: str, *, first: bool
    ) -> int | None:
        """Return the index of the branch's content: the ``first`` or the last match; None without one."""
        entry = tree(self._git, head).get(self._path(GROUPS)) if head else None
        if entry is None:
            return None
        places = [i for i, (_, content) in enumerate(chain) if self._oid(content) == entry.oid]
        return (places[0] if first else places[-1]) if places else None

    def _oid(self, content: bytes) -> str:
        path = self._path(GROUPS)
        return self._git("hash-object", "--stdin", "--path", path, given=content).decode().strip()

    def _commit_write(self, record: Record, content: bytes, head: str) -> str:
        changes: dict[str, bytes | TreeFile | None] = {self._path(GROUPS): content}
        if record.reason.startswith(ROLLBACK):
            changes |= self._restored(record, head)
        return commit(
            self._git,
            head,
            changes,
            commit_message(record),
            Author(record.author, at=record.at),
            sign=self._sign,
        )

    def _commit_hand_edit(self, head: str, content: bytes) -> str:
        changes = {self._path(GROUPS): content}
        return commit(
            self._git, head, changes, f"Edit {GROUPS} by hand\n", self.hand_author(), sign=self._sign
        )

    def _restored(self, record: Record, head: str) -> TreeEdit:
        """Return the tracked files besides groups.yaml that a rollback changed."""
        known = tree(self._git, head) if head else {}
        target = self._target(record.reason.removeprefix(ROLLBACK))
        then = tree(self._git, target) if target else {}
        names = [n for n in {**known, **then} if n.startswith(self._prefix) and known.get(n) != then.get(n)]
        blobs = read_blobs(self._git, [then[name].oid for name in names if name in then])
        changes: dict[str, bytes | TreeFile | None] = {}
        for name in names if target else ():
            # Only files that still have the content that the rollback wrote.
            if self._on_disk(name) == (blobs[then[name].oid] if name in then else None):
                changes[name] = then.get(name)
        sources = self._generations.sources(record.generation)
        for name, content in sources.items():
            if self._path(name) in {**known, **then}:
                changes[self._path(name)] = content
        for name in known:
            if name.startswith(self._prefix) and name not in changes and self._on_disk(name) is None:
                changes[name] = None
        return changes

    def _target(self, word: str) -> str | None:
        if word.isdecimal():
            record = next((r for r in self._generations.history() if r.generation == int(word)), None)
            if record is not None:
                return record.commit or None
        return rev_parse(self._git, word)

    def _on_disk(self, name: str) -> bytes | None:
        try:
            return (self._git.top / name).read_bytes()
        except OSError:
            return None

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
        """Return the path in the tree of a source; links are followed while they stay inside."""
        top = self._git.top
        place = Path(top / self._prefix / name)
        with suppress(OSError, RuntimeError, ValueError):
            return str(place.resolve().relative_to(top))
        return self._prefix + name


def made_by_api(record: Record) -> bool:
    """Whether a generation comes from a REST write, not from an edit of files or a commit."""
    return record.reason != EDITED and not record.reason.startswith(COMMITTED)


def commit_message(record: Record) -> str:
    """Return the message of a write's commit: the action, its changes, the generation."""
    verb, _, what = record.reason.partition(" ")
    if record.reason.startswith(ROLLBACK):
        subject = f"Roll back to {'generation' if what.isdecimal() else 'commit'} {what}"
    else:
        subject = f"{_VERBS.get(verb, verb.capitalize())} {what}".strip()
    changes = "\n".join(record.changes)
    return f"{subject}\n\n{changes}\n\nGeneration: {record.generation}\n"


def retained(sources: Mapping[str, bytes]) -> tuple[str, ...]:
    """Return the files of desired state that belong in git: YAML files, not files of variables."""
    return tuple(n for n in sources if n.endswith((".yaml", ".yml")) and not Path(n).is_absolute())
