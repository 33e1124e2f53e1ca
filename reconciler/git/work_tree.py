"""The desired-state directory as a git work tree, for the daemon: origins of states, commits of writes.

Implements ``origin.WorkTree`` and ``rollback.WorkTreeHistory``. Caches nothing, since a repository may be
created, moved or removed at any time. If the directory is not the top of a work tree, all results are empty.
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
from reconciler.generations.origin import BY_FILE, ChangeOrigin, RestoreSet
from reconciler.generations.store import Generations
from reconciler.git import lock
from reconciler.git.auto_commit import AutoCommitter, BranchMoved
from reconciler.git.command import Git, GitError, git_dir, open_work_tree
from reconciler.git.inspect import (
    WorkTreeStatus,
    commit_info,
    read_blobs,
    rev_parse,
    tree,
    tree_path,
    work_tree_status,
)
from reconciler.git.staging import ValidationContext, check_checkout, validate_commit
from reconciler.model.change_reason import COMMIT, EDITED, ROLLBACK, ChangeReason

log = logging.getLogger(__name__)

_PUSH = 2.0
"""Seconds to wait for a push between its last file and the move of its branch."""
_RETRIES = (0.1, 0.3, 1.0, 2.0, 5.0)
_QUIET = 1.0
"""Seconds from the last edit by hand to its automatic commit."""
_FORCED = 3
_SHORT = 10
_LINK = "120000"


class GitTree:
    """The work tree with the top ``top``, if there is one.

    ``around`` is the context in which commits are validated. ``auto``: commit edits by hand, too.
    """

    def __init__(
        self, top: Path, generations: Generations, around: ValidationContext, *, auto: bool = False
    ) -> None:
        self.top = top
        self.prefix = f"{around.path.strip('/')}/" if around.path else ""
        self._generations = generations
        self.around = around
        self._auto = auto
        self._status = WorkTreeStatus("", "", ())
        self._unknown = False
        self._known: str | None = None
        self._trouble = ""
        self._hand_edits: tuple[str, ...] = ()
        self._poked = asyncio.Event()
        # Set by pull mode: why writes are refused; what upstream can't deliver; mistakes of the fetched
        # commit; the upstream commit that a local commit contains; whether commits are signed, or should be
        # and can't; whether the first commit comes from upstream.
        self.closed: WriteRefused | None = None
        self.sign = self.unsigned = self.pulls = False
        self.away = ""
        self.rejected: tuple[Mistake, ...] = ()
        self.brought: dict[str, str] = {}
        self.committed: Callable[[], Awaitable[None]] = _nothing

    @property
    def git(self) -> Git | None:
        """Return git for the directory; None unless it is the top of a work tree."""
        return open_work_tree(self.top)

    def guard(self) -> AbstractAsyncContextManager[None]:
        """Return the lock to hold while files are written."""
        return lock.lock_unless_pushed(self.top)

    def signs(self) -> tuple[Path, ...]:
        """Return the files to watch for new commits."""
        directory = git_dir(self.top)
        if directory is None:
            return (self.top / ".git" / "HEAD",)
        return (directory / "HEAD", directory / "logs" / "HEAD")

    # --- origin.WorkTree ---

    async def look(self) -> str:
        """See ``origin.WorkTree``."""
        git = self.git
        if git is None:
            self._status, self._hand_edits, self._unknown = WorkTreeStatus("", "", ()), (), False
            return ""
        try:
            await lock.wait_until_free(self.top, _PUSH)
            self._status = await asyncio.to_thread(work_tree_status, git)
        except (GitError, OSError) as error:
            # The last status may be outdated: record no commit. ``run`` reads it again.
            self._unknown = True
            self._warn(str(error))
            self._poked.set()
            return self._status.head
        self._unknown = False
        self._hand_edits = self._by_hand()
        return self._status.head

    async def origin(self, loaded: LoadedState) -> ChangeOrigin:
        """See ``origin.WorkTree``."""
        git, head = self.git, self._status.head
        if git is None or not head or self._unknown:
            return ChangeOrigin(BY_FILE, EDITED)
        try:
            return await asyncio.to_thread(self._origin, git, head, loaded)
        except (GitError, OSError) as error:
            self._warn(str(error))
            self._poked.set()
            return ChangeOrigin(BY_FILE, EDITED)

    def _origin(self, git: Git, head: str, loaded: LoadedState) -> ChangeOrigin:
        dirty = set(self._status.dirty)
        groups = self._path(GROUPS)
        if groups in dirty and _holds(git, head, groups, loaded.sources[GROUPS]):
            # Changed after it was read; the content that was read is the commit's.
            dirty.discard(groups)
        if any(self._path(name) in dirty for name in loaded.sources):
            return ChangeOrigin(BY_FILE, EDITED)
        # A pending write gets a commit of its own even if file and branch agree: after switching a group on
        # and off again, the file is as in the branch.
        noted = "" if self.pending else head
        if head == self._last_known():
            return ChangeOrigin(BY_FILE, EDITED, noted)
        source = self.brought.get(head, head)
        author = commit_info(git, source).author
        self.brought.pop(head, None)
        self._known = head
        return ChangeOrigin(author or BY_FILE, ChangeReason(COMMIT, source[:_SHORT]), noted)

    def accepted(self) -> None:
        """See ``origin.WorkTree``."""
        if self.git is not None and (self._hand_edits or self.pending):
            self._poked.set()

    def refused(self) -> WriteRefused | None:
        """See ``origin.WorkTree``."""
        return self.closed

    def warnings(self) -> tuple[str, ...]:
        """See ``origin.WorkTree``."""
        found = [f"git: {trouble}" for trouble in (self._trouble, self.away) if trouble]
        if self._hand_edits and not self._commits_edits:
            names = ", ".join(self._hand_edits[:5]) + (
                f" and {len(self._hand_edits) - 5} more" if self._hand_edits[5:] else ""
            )
            found.append(f"edited by hand and not committed: {names}; run `service-manager git commit`")
        return tuple(found)

    def mistakes(self) -> tuple[Mistake, ...]:
        """See ``origin.WorkTree``."""
        return self.rejected

    # --- rollback.WorkTreeHistory ---

    async def find(self, word: str) -> str | None:
        """See ``rollback.WorkTreeHistory``."""
        git = self.git
        return await asyncio.to_thread(rev_parse, git, word) if git is not None else None

    async def files(self, commit: str) -> RestoreSet:
        """See ``rollback.WorkTreeHistory``."""
        git = self.git
        assert git is not None
        try:
            await asyncio.to_thread(check_checkout, git, commit)
        except InvalidDesiredState as error:
            message = f"commit {commit[:_SHORT]} can't be checked out: {error}"
            raise WriteRefused("not_restorable", message, "correct the files by hand") from error
        return await asyncio.to_thread(self._files, git, commit)

    async def state(self, commit: str) -> LoadedState:
        """See ``rollback.WorkTreeHistory``."""
        git = self.git
        assert git is not None
        return await validate_commit(git, commit, self.around)

    def _files(self, git: Git, commit: str) -> RestoreSet:
        head = self._status.head
        then, now = tree(git, commit, self.prefix), tree(git, head, self.prefix) if head else {}
        differ = [
            name
            for name, entry in then.items()
            if entry.mode != _LINK and (now.get(name) != entry or self.prefix + name in self._status.dirty)
        ]
        found = read_blobs(git, [then[name].oid for name in differ])
        gone = tuple(name for name in now if name not in then)
        return RestoreSet({name: found[then[name].oid] for name in differ}, gone, whole=False)

    # --- commits ---

    async def run(self) -> None:
        """Commit writes as they come, and retry failed commits; runs until cancelled."""
        self._poked.set()
        failures = moved = 0
        while True:
            await self._poked.wait()
            self._poked.clear()
            if self._commits_edits and self._hand_edits and not self.pending:
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
                    self._warn(f"changes are not committed: {error}" + (f"; {remedy}" if remedy else ""))
                await asyncio.sleep(_RETRIES[min(failures, len(_RETRIES)) - 1])
                self._poked.set()
                if before == self._trouble and not isinstance(error, BranchMoved):
                    continue
            except Exception:
                # A bug here must not stop the daemon; the files are what counts.
                log.exception("a commit failed unexpectedly")
                await asyncio.sleep(_RETRIES[-1])
            else:
                failures = moved = 0
                self._trouble = ""
                if head == self._status.head and not before and not noted:
                    continue
            with contextlib.suppress(ServiceManagerError):
                await self.committed()

    def _commit(self, *, force: bool) -> tuple[str, bool]:
        """Commit; return the branch's head, and whether writes were pending."""
        git = self.git
        if git is None:
            return "", False
        before = work_tree_status(git).head
        if self.pulls and not before:
            # A commit made here would start a second history, in conflict with upstream's.
            return "", False
        committer = AutoCommitter(git, self._generations, self.prefix, sign=self.sign)
        waited = bool(committer.pending())
        head = committer.catch_up(force=force)
        # Only accepted files: a broken file is committed after it is corrected.
        if self._hand_edits and self._commits_edits:
            head = committer.commit_edits()
        if head != before:
            # Made here: its author is in the generation already.
            self._known = head
        return head, waited

    @property
    def _commits_edits(self) -> bool:
        return self._auto and not self.unsigned

    @property
    def pending(self) -> bool:
        """Whether writes have no commit yet."""
        git = self.git
        if git is None or not AutoCommitter(git, self._generations, self.prefix).pending():
            return False
        return not self.pulls or rev_parse(git, "HEAD") is not None

    def _by_hand(self) -> tuple[str, ...]:
        """Return uncommitted files that are not pending writes."""
        git = self.git
        pending = AutoCommitter(git, self._generations, self.prefix).pending() if git is not None else ()
        if any(record.cause.action == ROLLBACK for record in pending):
            return ()
        pending_files = {self._path(GROUPS)} if pending else set()
        return tuple(name for name in self._status.dirty if name not in pending_files)

    def _last_known(self) -> str:
        if self._known is None:
            records = self._generations.history()
            self._known = next((r.commit for r in reversed(records) if r.commit), "")
        return self._known

    def _path(self, name: str) -> str:
        return tree_path(self.top, self.prefix, name)

    def _warn(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            log.warning("git", extra={"trouble": trouble})


def _holds(git: Git, commit: str, path: str, content: bytes) -> bool:
    """Whether a file of a commit has this content."""
    return git.run("cat-file", "blob", f"{commit}:{path}").stdout == content


async def _nothing() -> None:
    pass
