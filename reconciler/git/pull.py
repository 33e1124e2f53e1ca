"""Pull mode: fetches desired state from an upstream repository, validates and applies it.

A commit that is invalid, or lacks a required signature, is reported and not applied; the last valid state
stays in force. Commits made here are rebased onto the fetched commit and pushed back; if that fails they
stay, with a warning. A commit that upstream held and withdrew (``upstream``) is never rebased or pushed
again.
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
from reconciler.git.replay import describe_commits, replay
from reconciler.git.staging import validate_commit
from reconciler.git.upstream import FETCHED, Divergence
from reconciler.git.work_tree import GitTree

log = logging.getLogger(__name__)

_REMOTE = "origin"
_NETWORK = 120.0
"""Seconds for a fetch or push; one that hangs is tried again at the next interval."""
_MAX_ROUNDS = 10
_PAUSE = 0.2
_SHORT = 10
_SLOW = {"GIT_HTTP_LOW_SPEED_LIMIT": "1000", "GIT_HTTP_LOW_SPEED_TIME": "30"}
_FOLLOW, _STOP = "follow", "stop"
_PUSH, _REFUSE = "push", "refuse"
_LOST_RACE = ("fetch first", "non-fast-forward", "stale info", "incorrect old value", "cannot lock ref")
"""Parts of git's message when the branch moved between fetch and push."""


class PullConfig(NamedTuple):
    """Options of pull mode: ``interval`` in seconds; ``keys``, a file of public keys (None: any commit).

    ``writes``: push or refuse. ``rewritten``: follow or stop, when upstream withdrew commits.
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
    """Synchronises one work tree with one upstream branch."""

    def __init__(self, tree: GitTree, source: PullConfig, reload: Callable[[], Awaitable[None]]) -> None:
        self._tree = tree
        self._source = source
        self._reload = reload
        self._requested = asyncio.Event()
        self._reported: tuple[object, ...] = ()
        self._signs = False
        self._verified = ""
        tree.pulls = True
        tree.closed = self._closed("not determined yet")

    def request_pull(self) -> None:
        """Fetch now; call it in the event loop."""
        self._requested.set()

    async def committed(self) -> None:
        """Handle a new local commit: read the files again, and push it soon."""
        await self._reload()
        self.request_pull()

    async def run(self) -> None:
        """Fetch, validate, apply and push, at every interval and on request."""
        while True:
            self._requested.clear()
            try:
                await self._round()
            except Exception:
                # A bug here must not stop the daemon.
                log.exception("a fetch failed unexpectedly")
            with suppress(TimeoutError):
                async with asyncio.timeout(self._source.interval):
                    await self._requested.wait()

    async def _round(self) -> None:
        trouble = ""
        rejected: tuple[Mistake, ...] = ()
        try:
            await self._sync()
        except InvalidDesiredState as error:
            rejected = error.mistakes
        except (ServiceManagerError, OSError) as error:
            remedy = getattr(error, "remedy", "")
            trouble = f"{error}" + (f"; {remedy}" if remedy else "")
        result = (trouble, rejected)
        if result != self._reported:
            self._reported = result
            for line in (trouble, *map(str, rejected)):
                if line:
                    log.warning("desired state from upstream is not applied", extra={"trouble": line})
            self._tree.away, self._tree.rejected = trouble, rejected
            await self._reload()

    async def _sync(self) -> None:
        git = await asyncio.to_thread(self._open_repository)
        await asyncio.to_thread(self._update_signing, git)
        reason = ""
        for _ in range(_MAX_ROUNDS):
            seen = await asyncio.to_thread(git_upstream.known_tips, git, _REMOTE, self._source.branch)
            fetched = await asyncio.to_thread(self._fetch, git)
            try:
                await self._integrate(git, fetched, seen)
            except _Retry as again:
                reason = str(again)
                await asyncio.sleep(_PAUSE)
                continue
            return
        raise GitError(f"{reason}; retrying at the next interval")

    def _update_signing(self, git: Git) -> None:
        keys = self._source.keys
        if keys is None or self._signs:
            return
        reason = git_sign.why_not_signing(git, keys)
        self._signs = self._tree.sign = not reason
        self._tree.unsigned = bool(reason)
        self._tree.closed = self._closed(reason)

    def _closed(self, unable: str) -> WriteRefused | None:
        """Return why writes are refused; ``unable``: why commits can't be signed, '': they can be."""
        message = "desired state comes from an upstream git repository, and changes are made there"
        elsewhere = "commit and push the change there"
        if self._source.writes == _REFUSE:
            return WriteRefused("read_only", message, f"{elsewhere}, or run with --git-writes push")
        if self._source.keys is None or not unable:
            return None
        return WriteRefused(
            "read_only",
            f"{message}: commits must be signed (--git-verify), and this machine can't sign: {unable}",
            f"{elsewhere}, or configure commit.gpgSign and user.signingKey in {self._tree.top} with a key "
            f"that {self._source.keys} accepts",
        )

    def _open_repository(self) -> Git:
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

    def _fetch(self, git: Git) -> str:
        branch = f"+refs/heads/{self._source.branch}:{FETCHED}"
        options = ("--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head")
        settings = ("-c", "fetch.fsckObjects=true", "-c", "core.logAllRefUpdates=always")
        try:
            git(*settings, "fetch", *options, _REMOTE, branch, more=_SLOW, timeout=_NETWORK)
        except GitError as error:
            raise GitError(
                f"can't fetch: {error}; the last valid state stays in force", error.remedy
            ) from error
        commit = rev_parse(git, FETCHED)
        assert commit
        return commit

    async def _integrate(self, git: Git, fetched: str, seen: Sequence[str]) -> None:
        where = await asyncio.to_thread(work_tree_status, git)
        head = where.head
        if head == fetched:
            await self._undo_interrupted(git, where, seen)
            await asyncio.to_thread(git_upstream.record_taken, git, fetched)
            await asyncio.to_thread(self._verify, git, fetched)
            return
        nothing = Divergence((), (), ahead=False)
        divergence = (
            await asyncio.to_thread(git_upstream.compare_with_upstream, git, head, fetched, seen)
            if head
            else nothing
        )
        if divergence.ahead:
            await asyncio.to_thread(git_upstream.record_taken, git, fetched)
            await asyncio.to_thread(self._push_back, git, divergence.own, fetched)
            return
        await asyncio.to_thread(self._verify, git, fetched)
        new = await asyncio.to_thread(self._target_commit, git, head, fetched, divergence)
        await self._validate(git, new, fetched)
        async with self._tree.guard():
            await asyncio.to_thread(self._check_out, git, head, new, fetched, seen)
            self._tree.brought[new] = fetched
        self._log(new, head, divergence)
        await self._reload()
        if divergence.own:
            own = await asyncio.to_thread(_between, git, fetched, new)
            await asyncio.to_thread(self._push_back, git, own, fetched)

    def _verify(self, git: Git, commit: str) -> None:
        if self._source.keys is not None and commit != self._verified:
            git_sign.verify(git, commit, self._source.keys)
            self._verified = commit

    def _log(self, new: str, head: str, divergence: Divergence) -> None:
        extra: dict[str, object] = {"commit": new[:_SHORT], "author": self._source.branch}
        if divergence.rewritten:
            extra |= {"before": head[:_SHORT], "withdrawn": len(divergence.withdrawn)}
            log.warning("followed a rewritten upstream", extra=extra)
        else:
            log.info("applied upstream commits", extra=extra)

    def _target_commit(self, git: Git, head: str, fetched: str, divergence: Divergence) -> str:
        """Return the commit to check out: the fetched one, with own commits on top."""
        branch = self._source.branch
        by_hand = f"`git pull --rebase {_REMOTE} {branch}`"
        if divergence.rewritten:
            picks = (
                f" and `git cherry-pick {' '.join(map(_short, divergence.own))}`" if divergence.own else ""
            )
            by_hand = f"`git reset --hard {_short(fetched)}`{picks}"
        if divergence.rewritten and self._source.rewritten == _STOP:
            raise GitError(
                f"{branch} was rewritten upstream and no longer has "
                f"{describe_commits(git, divergence.withdrawn[::-1])}; "
                f"this machine stays on {_short(head)} (--git-rewritten stop)",
                f"{by_hand} in {git.top}, or run with --git-rewritten follow",
            )
        if not divergence.own:
            return fetched
        if self._source.writes == _REFUSE:
            raise self._own_commits_refused(git, divergence.own)
        remedy = f"merge by hand in {git.top}: {by_hand}"
        return replay(git, fetched, divergence.own, remedy, sign=self._sign(git))

    def _sign(self, git: Git) -> bool:
        """Whether replayed commits are signed.

        Raises:
            GitError: they must be, and this machine can't.
        """
        if self._source.keys is not None and not self._signs:
            raise GitError(
                "changes made here can't be rebased: commits must be signed (--git-verify), and this "
                "machine can't sign",
                f"rebase them by hand, signed, in {git.top}",
            )
        return self._signs

    def _own_commits_refused(self, git: Git, own: Sequence[str]) -> GitError:
        return GitError(
            f"{self._source.branch} has commits here that upstream lacks: {describe_commits(git, own)}",
            f"push or drop them by hand in {git.top}, or run with --git-writes push",
        )

    async def _validate(self, git: Git, new: str, fetched: str) -> None:
        try:
            await validate_commit(git, new, self._tree.around)
        except InvalidDesiredState as error:
            note = f"(commit {fetched[:_SHORT]}; the last valid state stays in force)"
            raise InvalidDesiredState(
                tuple(mistake._replace(message=f"{mistake.message} {note}") for mistake in error.mistakes)
            ) from None

    def _check_out(self, git: Git, head: str, new: str, fetched: str, seen: Sequence[str]) -> None:
        where = work_tree_status(git)
        # A write without a commit is committed first, under the name of its caller.
        if self._tree.pending:
            raise _Retry("new commits wait: changes made here are not committed yet")
        if where.head != head:
            raise _Retry("the local branch kept moving")
        partial = git_checkout.interrupted_checkout(git, head, new, seen) if where.dirty else ""
        if where.dirty and not partial:
            edited = f"new commits wait: {', '.join(where.dirty[:5])} edited here and not committed"
            raise GitError(edited, "run `service-manager git commit`")
        git_checkout.move(git, head, new, fetched, partial)

    async def _undo_interrupted(self, git: Git, where: WorkTreeStatus, seen: Sequence[str]) -> None:
        """Undo the interrupted checkout of a commit that upstream has withdrawn since."""
        if not where.dirty or self._tree.pending:
            return
        async with self._tree.guard():
            partial = await asyncio.to_thread(
                git_checkout.interrupted_checkout, git, where.head, where.head, seen
            )
            if not partial or partial == where.head:
                return
            await asyncio.to_thread(git_checkout.undo, git, where.head, partial)
        await self._reload()

    def _push_back(self, git: Git, own: Sequence[str], fetched: str) -> None:
        """Push commits made here, the newest last, onto ``fetched`` and nothing else."""
        if self._source.writes == _REFUSE:
            raise self._own_commits_refused(git, own)
        if self._source.keys is not None:
            for commit in own:
                self._verify_own(git, commit, self._source.keys)
        branch, head = f"refs/heads/{self._source.branch}", own[-1]
        # With a lease: upstream may have been reset behind ``fetched``, and a plain push would restore
        # withdrawn commits.
        lease = f"--force-with-lease={branch}:{fetched}"
        done = git.run("push", "--quiet", lease, _REMOTE, f"{head}:{branch}", more=_SLOW, timeout=_NETWORK)
        if done.returncode == 0:
            git_upstream.record_taken(git, head)
            return
        stderr = done.stderr.decode(errors="replace")
        trouble = f"changes made here are committed, but can't be pushed back: {stderr_message(done.stderr)}"
        raise _Retry(trouble) if any(sign in stderr for sign in _LOST_RACE) else GitError(trouble)

    def _verify_own(self, git: Git, commit: str, keys: Path) -> None:
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
    listed = git("rev-list", "--topo-order", "--reverse", f"{old}..{new}").decode()
    return tuple(listed.split())
