"""Pull mode: desired state is fetched from a repository elsewhere, judged, and fast-forwarded to.

A commit that is not valid, or not signed where it must be, is told and left where it is; the box stays on the
last good one. Writes made here are commits here, put on top of what was fetched and pushed back; where that
can't be done they stay, and it is told: nothing is ever thrown away to make room for what comes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from reconciler import git_sign
from reconciler.errors import InvalidDesiredState, Mistake, ServiceManagerError
from reconciler.git import Git, GitError, repository, said
from reconciler.git_look import is_ancestor, resolved, standing
from reconciler.git_mirror import judged
from reconciler.git_tree import GitTree
from reconciler.git_write import committer

log = logging.getLogger(__name__)

FETCHED = "refs/service-manager/fetched"
_REMOTE = "origin"
_NETWORK = 120.0
"""Seconds for a fetch or push; one that hangs is begun anew at the next interval."""
_ROUNDS = 10
_PAUSE = 0.2
_SHORT = 10
_SLOW = {"GIT_HTTP_LOW_SPEED_LIMIT": "1000", "GIT_HTTP_LOW_SPEED_TIME": "30"}


class Source(NamedTuple):
    """Where from, and how: ``interval`` in seconds; ``keys`` a file of public keys, None: unsigned will do.

    ``writes``: push or refuse.
    """

    url: str
    branch: str
    interval: float
    keys: Path | None = None
    writes: str = "push"


class _Again(Exception):
    """Somebody was quicker: begin anew."""


class Puller:
    """Keeps one work tree in step with one branch elsewhere."""

    def __init__(self, tree: GitTree, source: Source, reload: Callable[[], Awaitable[None]]) -> None:
        self._tree = tree
        self._source = source
        self._reload = reload
        self._asked = asyncio.Event()
        self._told: tuple[object, ...] = ()
        tree.closed = source.writes == "refuse"

    def ask(self) -> None:
        """Fetch now; called in the event loop."""
        self._asked.set()

    async def committed(self) -> None:
        """Something was committed here: look at the files, and push it back soon."""
        await self._reload()
        self.ask()

    async def run(self) -> None:
        """Fetch, judge, take in and push back, for ever."""
        while True:
            self._asked.clear()
            try:
                await self._round()
            except Exception:
                # A bug in here must not end the daemon.
                log.exception("a fetch failed in a way nobody foresaw")
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
        for _ in range(_ROUNDS):
            fetched = await asyncio.to_thread(self._fetched, git)
            try:
                await self._taken_in(git, fetched)
            except _Again:
                await asyncio.sleep(_PAUSE)
                continue
            return
        raise GitError("others are quicker again and again; it is tried again at the next interval")

    def _repository(self) -> Git:
        top = self._tree.top
        top.mkdir(parents=True, exist_ok=True)
        found = repository(top)
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
        fsck = ("-c", "fetch.fsckObjects=true")
        try:
            git(*fsck, "fetch", *options, _REMOTE, branch, more=_SLOW, timeout=_NETWORK)
        except GitError as error:
            raise GitError(f"can't fetch: {error}; the last good state is kept", error.remedy) from error
        commit = resolved(git, FETCHED)
        assert commit
        return commit

    async def _taken_in(self, git: Git, fetched: str) -> None:
        where = await asyncio.to_thread(standing, git)
        head = where.head
        if head == fetched:
            return
        ahead = await asyncio.to_thread(is_ancestor, git, fetched, head) if head else False
        if ahead:
            await asyncio.to_thread(self._push_back, git, head)
            return
        if self._source.keys is not None:
            await asyncio.to_thread(git_sign.verify, git, fetched, self._source.keys)
        straight = await asyncio.to_thread(is_ancestor, git, head, fetched) if head else True
        new = fetched if straight else await asyncio.to_thread(self._on_top, git, fetched, head)
        await self._judge(git, new, fetched)
        async with self._tree.guard():
            await asyncio.to_thread(self._check_out, git, head, new)
            self._tree.brought[new] = fetched
        log.info("commits taken in", extra={"commit": new[:_SHORT], "author": self._source.branch})
        await self._reload()
        if not straight:
            await asyncio.to_thread(self._push_back, git, new)

    async def _judge(self, git: Git, new: str, fetched: str) -> None:
        try:
            await judged(git, new, self._tree.around)
        except InvalidDesiredState as error:
            note = f"(commit {fetched[:_SHORT]}; the last good one is kept)"
            raise InvalidDesiredState(
                tuple(mistake._replace(message=f"{mistake.message} {note}") for mistake in error.mistakes)
            ) from None

    def _check_out(self, git: Git, head: str, new: str) -> None:
        where = standing(git)
        if where.head != head:
            raise _Again
        if where.dirty and self._tree.pending:
            raise _Again
        if where.dirty and not _left_half(git, new):
            told = f"new commits wait: {', '.join(where.dirty[:5])} edited here and not committed"
            raise GitError(told, "`service-manager git commit`")
        old = head or git("hash-object", "-w", "-t", "tree", "--stdin").decode().strip()
        if not where.dirty:
            git.patiently("read-tree", "-u", "-m", old, new)
        git("update-ref", "-m", "service-manager: taken in", "HEAD", new, head or "0" * len(new))

    def _on_top(self, git: Git, fetched: str, head: str) -> str:
        """The commits that only we have, put on top of what was fetched; tried out beside the work tree."""
        if self._source.writes != "push":
            raise GitError(
                f"{self._source.branch} here has commits that it has not elsewhere",
                "push or drop them by hand",
            )
        git("worktree", "prune")
        with tempfile.TemporaryDirectory(prefix="service-manager-", dir=git.directory) as folder:
            if git.owner is not None:
                os.chown(folder, git.owner, -1)
            place = Path(folder) / "tree"
            git("worktree", "add", "--quiet", "--detach", str(place), fetched)
            try:
                beside = Git(place, repository(place) or git.directory, git.environ)
                picked = beside.run(
                    "cherry-pick",
                    "--keep-redundant-commits",
                    "--allow-empty",
                    f"{fetched}..{head}",
                    more=committer(),
                )
                if picked.returncode:
                    raise GitError(
                        f"changes made here contradict commit {fetched[:_SHORT]}; the box stays as it is",
                        f"merge by hand in {git.top}: `git pull --rebase`",
                    )
                return beside.line("rev-parse", "HEAD")
            finally:
                git.run("worktree", "remove", "--force", str(place))

    def _push_back(self, git: Git, head: str) -> None:
        if self._source.writes != "push":
            return
        target = f"{head}:refs/heads/{self._source.branch}"
        done = git.run("push", "--quiet", _REMOTE, target, more=_SLOW, timeout=_NETWORK)
        if done.returncode == 0:
            return
        told = done.stderr.decode(errors="replace")
        if "fetch first" in told or "non-fast-forward" in told:
            raise _Again
        raise GitError(f"changes made here are committed, but can't be pushed back: {said(done.stderr)}")


def _left_half(git: Git, new: str) -> bool:
    """Whether a crash came between the checkout of ``new`` and the moving of the branch."""
    try:
        index = git.patiently("write-tree").strip()
    except GitError:
        return False
    return index == git("rev-parse", f"{new}^{{tree}}").strip() and git.run("diff-files", "-q").stdout == b""
