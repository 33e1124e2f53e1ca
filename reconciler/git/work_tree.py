"""The desired-state directory as a git work tree, for the daemon: who made a state, and commits of writes.

Implements ``acceptance.Tree`` and ``rollback.Tree``. Everything is asked anew: a repository may be made,
moved or
taken away at any time. Where the directory is not the top of a work tree, there is simply nothing to tell.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from reconciler.desired_state.assemble import LoadedState
from reconciler.desired_state.schema import GROUPS
from reconciler.errors import InvalidDesiredState, Mistake, ServiceManagerError, WriteRefused
from reconciler.generations.acceptance import BY_FILE, EDITED, ChangeOrigin, RestoreSet
from reconciler.generations.store import Generations
from reconciler.git import lock
from reconciler.git.auto_commit import COMMITTED, ROLLBACK, AutoCommitter, BranchMoved
from reconciler.git.command import Git, GitError, git_dir, open_work_tree
from reconciler.git.inspect import WorkTreeStatus, commit_info, read_blobs, rev_parse, tree, work_tree_status
from reconciler.git.staging import ValidationContext, checked, validate_commit
from reconciler.model.desired import Desired
from reconciler.model.stack import Stack

log = logging.getLogger(__name__)

_PUSH = 2.0
"""Seconds that a push is waited for between its last file and the moving of its branch."""
_RETRIES = (0.1, 0.3, 1.0, 2.0, 5.0)
_QUIET = 1.0
"""Seconds after the last edit by hand before it is committed by itself."""
_FORCED = 3
_SHORT = 10
_LINK = "120000"


class GitTree:
    """See the module. ``around``: what commits are judged with; ``auto``: commit edits by hand, too."""

    def __init__(
        self, top: Path, generations: Generations, around: ValidationContext, *, auto: bool = False
    ) -> None:
        self.top = top
        self.prefix = f"{around.path.strip('/')}/" if around.path else ""
        self._generations = generations
        self.around = around
        self._auto = auto
        self._standing = WorkTreeStatus("", "", ())
        self._unknown = False
        self._known: str | None = None
        self._trouble = ""
        self._hand: tuple[str, ...] = ()
        self._poked = asyncio.Event()
        # Set by pull mode: why nothing is written here, what it can't reach, what is wrong with what it
        # fetched, which commit elsewhere a commit here brought; whether commits are signed, or ought to be
        # and can't; whether the first commit comes from elsewhere.
        self.closed: WriteRefused | None = None
        self.sign = self.unsigned = self.pulls = False
        self.away = ""
        self.rejected: tuple[Mistake, ...] = ()
        self.brought: dict[str, str] = {}
        self.committed: Callable[[], Awaitable[None]] = _nothing

    @property
    def git(self) -> Git | None:
        """git here, None where this is no top of a work tree."""
        return open_work_tree(self.top)

    def guard(self) -> AbstractAsyncContextManager[None]:
        """Held while files are written."""
        return lock.lock_unless_pushed(self.top)

    def signs(self) -> tuple[Path, ...]:
        """Files that tell of commits, to be watched."""
        directory = git_dir(self.top)
        if directory is None:
            return (self.top / ".git" / "HEAD",)
        return (directory / "HEAD", directory / "logs" / "HEAD")

    # --- intake.Tree ---

    async def look(self) -> str:
        """See ``acceptance.Tree``."""
        git = self.git
        if git is None:
            self._standing, self._hand, self._unknown = WorkTreeStatus("", "", ()), (), False
            return ""
        try:
            await lock.wait_until_free(self.top, _PUSH)
            self._standing = await asyncio.to_thread(work_tree_status, git)
        except (GitError, OSError) as error:
            # What was seen before says nothing about now: no commit may be noted. ``run`` looks again.
            self._unknown = True
            self._tell(str(error))
            self._poked.set()
            return self._standing.head
        self._unknown = False
        self._hand = self._by_hand()
        return self._standing.head

    async def origin(self, loaded: LoadedState) -> ChangeOrigin:
        """See ``acceptance.Tree``."""
        git, head = self.git, self._standing.head
        if git is None or not head or self._unknown:
            return ChangeOrigin(BY_FILE, EDITED)
        try:
            return await asyncio.to_thread(self._origin, git, head, loaded)
        except (GitError, OSError) as error:
            self._tell(str(error))
            self._poked.set()
            return ChangeOrigin(BY_FILE, EDITED)

    def _origin(self, git: Git, head: str, loaded: LoadedState) -> ChangeOrigin:
        dirty = set(self._standing.dirty)
        groups = self._path(GROUPS)
        if groups in dirty and _holds(git, head, groups, loaded.sources[GROUPS]):
            # Written to since it was read; what was read is what the commit has.
            dirty.discard(groups)
        if any(self._path(name) in dirty for name in loaded.sources):
            return ChangeOrigin(BY_FILE, EDITED)
        # A write that waits gets a commit of its own, also where file and branch agree by chance: switched on
        # and off again, the file is as the branch has it.
        noted = "" if self.pending else head
        if head == self._last_known():
            return ChangeOrigin(BY_FILE, EDITED, noted)
        source = self.brought.get(head, head)
        author = commit_info(git, source).author
        self.brought.pop(head, None)
        self._known = head
        return ChangeOrigin(author or BY_FILE, f"{COMMITTED}{source[:_SHORT]}", noted)

    def accepted(self) -> None:
        """See ``acceptance.Tree``."""
        if self.git is not None and (self._hand or self.pending):
            self._poked.set()

    def refused(self) -> WriteRefused | None:
        """See ``acceptance.Tree``."""
        return self.closed

    def warnings(self) -> tuple[str, ...]:
        """See ``acceptance.Tree``."""
        found = [f"git: {trouble}" for trouble in (self._trouble, self.away) if trouble]
        if self._hand and not self._commits_edits:
            told = ", ".join(self._hand[:5]) + (f" and {len(self._hand) - 5} more" if self._hand[5:] else "")
            found.append(f"edited by hand and not committed: {told}; `service-manager git commit` does that")
        return tuple(found)

    def mistakes(self) -> tuple[Mistake, ...]:
        """See ``acceptance.Tree``."""
        return self.rejected

    # --- history.Tree ---

    async def find(self, word: str) -> str | None:
        """See ``rollback.Tree``."""
        git = self.git
        return await asyncio.to_thread(rev_parse, git, word) if git is not None else None

    async def files(self, commit: str) -> RestoreSet:
        """See ``rollback.Tree``."""
        git = self.git
        assert git is not None
        try:
            await asyncio.to_thread(checked, git, commit)
        except InvalidDesiredState as error:
            told = f"commit {commit[:_SHORT]} can't be checked out: {error}"
            raise WriteRefused("not_restorable", told, "mend the files by hand") from error
        return await asyncio.to_thread(self._files, git, commit)

    async def state(self, commit: str) -> tuple[Stack, Desired]:
        """See ``rollback.Tree``."""
        git = self.git
        assert git is not None
        loaded = await validate_commit(git, commit, self.around)
        return loaded.stack, loaded.desired

    def _files(self, git: Git, commit: str) -> RestoreSet:
        head = self._standing.head
        then, now = tree(git, commit, self.prefix), tree(git, head, self.prefix) if head else {}
        differ = [
            name
            for name, entry in then.items()
            if entry.mode != _LINK and (now.get(name) != entry or self.prefix + name in self._standing.dirty)
        ]
        found = read_blobs(git, [then[name].oid for name in differ])
        gone = tuple(name for name in now if name not in then)
        return RestoreSet({name: found[then[name].oid] for name in differ}, gone, whole=False)

    # --- commits ---

    async def run(self) -> None:
        """Commits writes, for ever: at once, and again where it did not work."""
        self._poked.set()
        failures = moved = 0
        while True:
            await self._poked.wait()
            self._poked.clear()
            if self._commits_edits and self._hand and not self.pending:
                await asyncio.sleep(_QUIET)
            before = self._trouble
            try:
                async with self.guard():
                    head, noted = await asyncio.to_thread(self._commit, force=moved >= _FORCED)
            except (ServiceManagerError, OSError) as error:
                moved += isinstance(error, BranchMoved)
                failures += 1
                if failures > 2:
                    remedy = getattr(error, "remedy", "")
                    self._tell(f"changes are not committed: {error}" + (f"; {remedy}" if remedy else ""))
                await asyncio.sleep(_RETRIES[min(failures, len(_RETRIES)) - 1])
                self._poked.set()
                if before == self._trouble and not isinstance(error, BranchMoved):
                    continue
            except Exception:
                # A bug in here must not end the daemon; the files are what counts.
                log.exception("a commit failed in a way nobody foresaw")
                await asyncio.sleep(_RETRIES[-1])
            else:
                failures = moved = 0
                self._trouble = ""
                if head == self._standing.head and not before and not noted:
                    continue
            with contextlib.suppress(ServiceManagerError):
                await self.committed()

    def _commit(self, *, force: bool) -> tuple[str, bool]:
        """The end of the branch afterwards, and whether writes had waited for their commits."""
        git = self.git
        if git is None:
            return "", False
        before = work_tree_status(git).head
        if self.pulls and not before:
            # A commit of ours would be a history of its own, and contradict the one that is to come.
            return "", False
        committer = AutoCommitter(git, self._generations, self.prefix, sign=self.sign)
        waited = bool(committer.pending())
        head = committer.catch_up(force=force)
        # Only what was accepted: a file that is broken waits until it is mended.
        if self._hand and self._commits_edits:
            head = committer.commit_edits()
        if head != before:
            # Ours: who made it is in the generation already.
            self._known = head
        return head, waited

    @property
    def _commits_edits(self) -> bool:
        return self._auto and not self.unsigned

    @property
    def pending(self) -> bool:
        """Whether writes wait for their commits."""
        git = self.git
        if git is None or not AutoCommitter(git, self._generations, self.prefix).pending():
            return False
        return not self.pulls or rev_parse(git, "HEAD") is not None

    def _by_hand(self) -> tuple[str, ...]:
        """What is not committed and is no write of ours that waits for its commit."""
        git = self.git
        pending = AutoCommitter(git, self._generations, self.prefix).pending() if git is not None else ()
        if any(record.reason.startswith(ROLLBACK) for record in pending):
            return ()
        ours = {self._path(GROUPS)} if pending else set()
        return tuple(name for name in self._standing.dirty if name not in ours)

    def _last_known(self) -> str:
        if self._known is None:
            records = self._generations.history()
            self._known = next((r.commit for r in reversed(records) if r.commit), "")
        return self._known

    def _path(self, name: str) -> str:
        place = self.top / self.prefix / name
        try:
            return str(place.resolve().relative_to(self.top.resolve()))
        except (OSError, RuntimeError, ValueError):
            return self.prefix + name

    def _tell(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            log.warning("git", extra={"trouble": trouble})


def _holds(git: Git, commit: str, path: str, content: bytes) -> bool:
    """Whether a file of a commit has this content."""
    return git.run("cat-file", "blob", f"{commit}:{path}").stdout == content


async def _nothing() -> None:
    pass
