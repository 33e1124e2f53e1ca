"""Pull mode: desired state is fetched from a repository elsewhere, judged, and followed.

A commit that is not valid, or not signed where it must be, is reported and left where it is; the machine
stays on the last good one. Commits made here go on top of what was fetched and are pushed back; where that
can't be done they stay, with a warning. Only those: a commit that upstream held and withdrew
(``upstream``) is never put on top or pushed again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from reconciler.errors import InvalidDesiredState, Mistake, ServiceManagerError, WriteRefused
from reconciler.git import checkout as git_checkout
from reconciler.git import sign as git_sign
from reconciler.git import upstream as git_upstream
from reconciler.git.command import Git, GitError, git_dir, stderr_message
from reconciler.git.inspect import WorkTreeStatus, rev_parse, work_tree_status
from reconciler.git.replay import named, replayed
from reconciler.git.staging import validate_commit
from reconciler.git.upstream import FETCHED, Course
from reconciler.git.work_tree import GitTree

log = logging.getLogger(__name__)

_REMOTE = "origin"
_NETWORK = 120.0
"""Seconds for a fetch or push; one that hangs is tried again at the next interval."""
_ROUNDS = 10
_PAUSE = 0.2
_SHORT = 10
_SLOW = {"GIT_HTTP_LOW_SPEED_LIMIT": "1000", "GIT_HTTP_LOW_SPEED_TIME": "30"}
_FOLLOW, _STOP = "follow", "stop"
_PUSH, _REFUSE = "push", "refuse"
_LOST_RACE = ("fetch first", "non-fast-forward", "stale info", "incorrect old value", "cannot lock ref")
"""What git says where the branch moved between fetch and push."""


class PullConfig(NamedTuple):
    """Where from, and how: ``interval`` in seconds; ``keys`` a file of public keys, None: unsigned will do.

    ``writes``: push or refuse. ``rewritten``: follow or stop, where upstream withdrew commits.
    """

    url: str
    branch: str
    interval: float
    keys: Path | None = None
    writes: str = _PUSH
    rewritten: str = _FOLLOW


class _Retry(Exception):
    """The work tree or upstream changed: fetch and decide again."""


class Puller:
    """Keeps one work tree in step with one branch elsewhere."""

    def __init__(self, tree: GitTree, source: PullConfig, reload: Callable[[], Awaitable[None]]) -> None:
        self._tree = tree
        self._source = source
        self._reload = reload
        self._asked = asyncio.Event()
        self._told: tuple[object, ...] = ()
        self._signs = False
        self._verified = ""
        tree.pulls = True
        tree.closed = self._closed("it is not known yet whether this machine can sign")

    def request_pull(self) -> None:
        """Fetch now; called in the event loop."""
        self._asked.set()

    async def committed(self) -> None:
        """Something was committed here: look at the files, and push it back soon."""
        await self._reload()
        self.request_pull()

    async def run(self) -> None:
        """Fetch, judge, take in and push back, at every interval and on request."""
        while True:
            self._asked.clear()
            try:
                await self._round()
            except Exception:
                # A bug in here must not end the daemon.
                log.exception("a fetch failed unexpectedly")
            with suppress(TimeoutError):
                async with asyncio.timeout(self._source.interval):
                    await self._asked.wait()

    async def _round(self) -> None:
        trouble = ""
        rejected: tuple[Mistake, ...] = ()
        try:
            await self._in_step()
        except InvalidDesiredState as error:
            rejected = error.mistakes
        except (ServiceManagerError, OSError) as error:
            remedy = getattr(error, "remedy", "")
            trouble = f"{error}" + (f"; {remedy}" if remedy else "")
        told = (trouble, rejected)
        if told != self._told:
            self._told = told
            for line in (trouble, *map(str, rejected)):
                if line:
                    log.warning("desired state can't be taken in", extra={"trouble": line})
            self._tree.away, self._tree.rejected = trouble, rejected
            await self._reload()

    async def _in_step(self) -> None:
        git = await asyncio.to_thread(self._repository)
        await asyncio.to_thread(self._may_sign, git)
        reason = ""
        for _ in range(_ROUNDS):
            seen = await asyncio.to_thread(git_upstream.seen, git, _REMOTE, self._source.branch)
            fetched = await asyncio.to_thread(self._fetched, git)
            try:
                await self._taken_in(git, fetched, seen)
            except _Retry as again:
                reason = str(again)
                await asyncio.sleep(_PAUSE)
                continue
            return
        raise GitError(f"{reason}; tried again at the next interval")

    def _may_sign(self, git: Git) -> None:
        keys = self._source.keys
        if keys is None or self._signs:
            return
        reason = git_sign.unable(git, keys)
        self._signs = self._tree.sign = not reason
        self._tree.unsigned = bool(reason)
        self._tree.closed = self._closed(reason)

    def _closed(self, unable: str) -> WriteRefused | None:
        """Why writes are refused here; ``unable``: why commits can't be signed, '': they can be."""
        told = "desired state comes from a git repository elsewhere, and changes are made there"
        elsewhere = "commit and push it there"
        if self._source.writes == _REFUSE:
            return WriteRefused("read_only", told, f"{elsewhere}, or run with --git-writes push")
        if self._source.keys is None or not unable:
            return None
        return WriteRefused(
            "read_only",
            f"{told}: commits must be signed (--git-verify), and this machine can't sign: {unable}",
            f"{elsewhere}, or configure commit.gpgSign and user.signingKey in {self._tree.top} with a key "
            f"that {self._source.keys} accepts",
        )

    def _repository(self) -> Git:
        top = self._tree.top
        top.mkdir(parents=True, exist_ok=True)
        found = git_dir(top)
        git = Git(top.resolve(), found or top.resolve() / ".git")
        branch = self._source.branch
        if found is None:
            git("init", "--quiet", f"--initial-branch={branch}")
        current = git.run("symbolic-ref", "--quiet", "HEAD").stdout.decode().strip()
        if current != f"refs/heads/{branch}":
            raise GitError(
                f"{top} is on {current or 'no branch'}, not on {branch}", f"`git switch {branch}` there"
            )
        if git.run("config", "--get", f"remote.{_REMOTE}.url").stdout.decode().strip() != self._source.url:
            git("config", "--local", f"remote.{_REMOTE}.url", self._source.url)
        return git

    def _fetched(self, git: Git) -> str:
        branch = f"+refs/heads/{self._source.branch}:{FETCHED}"
        options = ("--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head")
        settings = ("-c", "fetch.fsckObjects=true", "-c", "core.logAllRefUpdates=always")
        try:
            git(*settings, "fetch", *options, _REMOTE, branch, more=_SLOW, timeout=_NETWORK)
        except GitError as error:
            raise GitError(f"can't fetch: {error}; the last good state is kept", error.remedy) from error
        commit = rev_parse(git, FETCHED)
        assert commit
        return commit

    async def _taken_in(self, git: Git, fetched: str, seen: Sequence[str]) -> None:
        where = await asyncio.to_thread(work_tree_status, git)
        head = where.head
        if head == fetched:
            await self._complete(git, where, seen)
            await asyncio.to_thread(git_upstream.note, git, fetched)
            await asyncio.to_thread(self._verify, git, fetched)
            return
        nothing = Course((), (), ahead=False)
        course = await asyncio.to_thread(git_upstream.charted, git, head, fetched, seen) if head else nothing
        if course.ahead:
            await asyncio.to_thread(git_upstream.note, git, fetched)
            await asyncio.to_thread(self._push_back, git, course.own, fetched)
            return
        await asyncio.to_thread(self._verify, git, fetched)
        new = await asyncio.to_thread(self._followed, git, head, fetched, course)
        await self._judge(git, new, fetched)
        async with self._tree.guard():
            await asyncio.to_thread(self._check_out, git, head, new, fetched, seen)
            self._tree.brought[new] = fetched
        self._log(new, head, course)
        await self._reload()
        if course.own:
            own = await asyncio.to_thread(_between, git, fetched, new)
            await asyncio.to_thread(self._push_back, git, own, fetched)

    def _verify(self, git: Git, commit: str) -> None:
        if self._source.keys is not None and commit != self._verified:
            git_sign.verify(git, commit, self._source.keys)
            self._verified = commit

    def _log(self, new: str, head: str, course: Course) -> None:
        extra: dict[str, object] = {"commit": new[:_SHORT], "author": self._source.branch}
        if course.rewritten:
            extra |= {"before": head[:_SHORT], "withdrawn": len(course.withdrawn)}
            log.warning("upstream was rewritten, and followed", extra=extra)
        else:
            log.info("commits taken in", extra=extra)

    def _followed(self, git: Git, head: str, fetched: str, course: Course) -> str:
        """The commit to go to: the fetched one, with what was made here on top."""
        branch = self._source.branch
        by_hand = f"`git pull --rebase {_REMOTE} {branch}`"
        if course.rewritten:
            picks = f" and `git cherry-pick {' '.join(map(_short, course.own))}`" if course.own else ""
            by_hand = f"`git reset --hard {_short(fetched)}`{picks}"
        if course.rewritten and self._source.rewritten == _STOP:
            raise GitError(
                f"{branch} was rewritten elsewhere and no longer has {named(git, course.withdrawn[::-1])}; "
                f"this machine stays on {_short(head)} (--git-rewritten stop)",
                f"{by_hand} in {git.top}, or run with --git-rewritten follow",
            )
        if not course.own:
            return fetched
        if self._source.writes == _REFUSE:
            raise self._unwanted(git, course.own)
        remedy = f"merge by hand in {git.top}: {by_hand}"
        return replayed(git, fetched, course.own, remedy, sign=self._sign(git))

    def _sign(self, git: Git) -> bool:
        """Whether replayed commits are signed.

        Raises:
            GitError: they must be, and this machine can't.
        """
        if self._source.keys is not None and not self._signs:
            raise GitError(
                "changes made here can't be put on top: commits must be signed (--git-verify), and this "
                "machine can't sign",
                f"put them on top by hand, signed, in {git.top}",
            )
        return self._signs

    def _unwanted(self, git: Git, own: Sequence[str]) -> GitError:
        return GitError(
            f"{self._source.branch} here has commits that it has not elsewhere: {named(git, own)}",
            f"push or drop them by hand in {git.top}, or run with --git-writes push",
        )

    async def _judge(self, git: Git, new: str, fetched: str) -> None:
        try:
            await validate_commit(git, new, self._tree.around)
        except InvalidDesiredState as error:
            note = f"(commit {fetched[:_SHORT]}; the last good one is kept)"
            raise InvalidDesiredState(
                tuple(mistake._replace(message=f"{mistake.message} {note}") for mistake in error.mistakes)
            ) from None

    def _check_out(self, git: Git, head: str, new: str, fetched: str, seen: Sequence[str]) -> None:
        where = work_tree_status(git)
        # A write that has no commit yet is committed first, under the name of its caller.
        if self._tree.pending:
            raise _Retry("new commits wait: changes made here are not committed yet")
        if where.head != head:
            raise _Retry("commits are made here all the time")
        half = git_checkout.left_half(git, head, new, seen) if where.dirty else ""
        if where.dirty and not half:
            edited = f"new commits wait: {', '.join(where.dirty[:5])} edited here and not committed"
            raise GitError(edited, "`service-manager git commit`")
        git_checkout.move(git, head, new, fetched, half)

    async def _complete(self, git: Git, where: WorkTreeStatus, seen: Sequence[str]) -> None:
        """Undo what a crash left of a commit that upstream withdrew since."""
        if not where.dirty or self._tree.pending:
            return
        async with self._tree.guard():
            half = await asyncio.to_thread(git_checkout.left_half, git, where.head, where.head, seen)
            if not half or half == where.head:
                return
            await asyncio.to_thread(git_checkout.undo, git, where.head, half)
        await self._reload()

    def _push_back(self, git: Git, own: Sequence[str], fetched: str) -> None:
        """Push commits made here, the newest last, onto ``fetched`` and nothing else."""
        if self._source.writes == _REFUSE:
            raise self._unwanted(git, own)
        if self._source.keys is not None:
            for commit in own:
                self._signed(git, commit, self._source.keys)
        branch, head = f"refs/heads/{self._source.branch}", own[-1]
        # With a lease: upstream may have been taken back behind ``fetched`` since, and a push that only moves
        # forward would bring back what was withdrawn.
        lease = f"--force-with-lease={branch}:{fetched}"
        done = git.run("push", "--quiet", lease, _REMOTE, f"{head}:{branch}", more=_SLOW, timeout=_NETWORK)
        if done.returncode == 0:
            git_upstream.note(git, head)
            return
        told = done.stderr.decode(errors="replace")
        trouble = f"changes made here are committed, but can't be pushed back: {stderr_message(done.stderr)}"
        raise _Retry(trouble) if any(sign in told for sign in _LOST_RACE) else GitError(trouble)

    def _signed(self, git: Git, commit: str, keys: Path) -> None:
        try:
            git_sign.verify(git, commit, keys)
        except GitError as error:
            raise GitError(
                f"changes made here are committed, but not pushed back: {error}",
                f"sign them by hand in {git.top}: `git rebase --exec 'git commit --amend --no-edit -S' "
                f"{git_upstream.TAKEN}`",
            ) from error


def _short(commit: str) -> str:
    return commit[:_SHORT]


def _between(git: Git, old: str, new: str) -> tuple[str, ...]:
    told = git("rev-list", "--topo-order", "--reverse", f"{old}..{new}").decode()
    return tuple(told.split())
