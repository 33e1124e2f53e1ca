"""The pre-receive hook of ``git init``: validates a push before git accepts it.

Runs as the user who pushes, in the repository of the work tree. Until the hook succeeds, git keeps the pushed
objects in quarantine and deletes them if the push is refused. On success, a child process keeps the daemon
from writing until git has moved the branch, so that a write and a checkout never overlap.
"""

from __future__ import annotations

import asyncio
import os
import select
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from reconciler.cli.oneshot import observe, open_engine, read_clocks, read_ledger, stack_with_model
from reconciler.desired_state.assemble import LoadedState
from reconciler.desired_state.store import Store
from reconciler.engine import registry
from reconciler.errors import EngineError, InvalidDesiredState, ServiceManagerError
from reconciler.git import lock
from reconciler.git.command import Git, git_dir
from reconciler.git.inspect import is_ancestor, work_tree_status
from reconciler.git.obstacles import replaced
from reconciler.git.refs import refusal
from reconciler.git.staging import ValidationContext, validate_commit
from reconciler.planning.diff import differences
from reconciler.planning.dry_run import dry_run
from reconciler.planning.planner import Step
from reconciler.planning.record_observation import record_observation

_NULL_DIGIT = "0"
"""The object name of a ref that does not exist has no other digit."""
_COMMIT_TIMEOUT = 2.0
"""Seconds to wait until the daemon has committed its latest write."""
_LOCK_TIMEOUT = 60.0
"""Seconds after which the lock is released although git has not moved the branch."""
_OBSERVE_TIMEOUT = 3.0
"""Seconds to observe the engine: the user who pushes waits."""
_MOST_LINES = 15
_MOST_NAMES = 5

PrintLine = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class HookContext:
    """The arguments that ``git.setup`` wrote into the hook, and the environment."""

    desired_state: Path
    state_dir: Path
    engine: str
    validation: ValidationContext
    environ: Mapping[str, str]


class _PushRefused(Exception):
    """Lines for the user who pushes; the last line is the remedy."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def receive(context: HookContext, updates: Sequence[str], print_line: PrintLine) -> int:
    """Run the hook for lines of OLD NEW REF; return 0 to accept the push, 1 to refuse it."""
    try:
        git = Git(context.desired_state.resolve(), _git_directory(context), context.environ)
        current = git.run_line("symbolic-ref", "HEAD")
        # Split at ASCII blanks only: a name may contain Unicode blanks.
        parsed = [update.split(" ", 2) for update in updates if update]
        _check_names(parsed, current)
        for old, new, ref in parsed:
            if ref == current:
                _check_deployed(context, git, old, new, ref, print_line)
        for line in _not_deployed(parsed, current):
            print_line(line)
    except _PushRefused as error:
        print_line("push refused; nothing was changed")
        for line in error.lines:
            print_line(f"  {line}")
        return 1
    except (ServiceManagerError, OSError) as error:
        print_line(f"push refused: it can't be validated: {error}")
        remedy = getattr(error, "remedy", "")
        if remedy:
            print_line(f"  {remedy}")
        return 1
    return 0


def _git_directory(context: HookContext) -> Path:
    directory = git_dir(context.desired_state)
    if directory is None:
        raise _PushRefused(
            f"{context.desired_state} is no longer a git work tree",
            "on the server: run `service-manager git init` again",
        )
    return directory


def _check_names(updates: Sequence[Sequence[str]], current: str) -> None:
    """Refuse ref names that break git in this repository, but let a push delete a branch or tag with one."""
    refusals = [
        reason
        for _, new, ref in updates
        if (reason := refusal(ref, current))
        and (new.strip(_NULL_DIGIT) or not ref.startswith(("refs/heads/", "refs/tags/")))
    ]
    if refusals:
        raise _PushRefused(*refusals[:_MOST_LINES], "push only branches and tags, and choose other names")


def _not_deployed(updates: Sequence[Sequence[str]], current: str) -> Iterator[str]:
    """Say which pushed branches and tags are only stored, unless the deployed branch is pushed as well.

    git reports such a push as a success, and nothing is deployed (dokku#257).
    """
    stored = [ref for _, new, ref in updates if ref != current and new.strip(_NULL_DIGIT)]
    if not stored or any(ref == current for _, _, ref in updates):
        return
    names = [ref.removeprefix("refs/heads/").removeprefix("refs/tags/") for ref in stored]
    listed = ", ".join(names[:_MOST_NAMES])
    listed += f" and {len(names) - _MOST_NAMES} more" if names[_MOST_NAMES:] else ""
    deployed = current.removeprefix("refs/heads/")
    yield f"nothing is deployed: only {deployed} is, and {listed} {'are' if names[1:] else 'is'} only stored"
    if stored[0].startswith("refs/heads/") and not stored[1:]:
        yield f"  to deploy it: git push REMOTE {names[0]}:{deployed}"


def _check_deployed(
    context: HookContext, git: Git, old: str, new: str, ref: str, print_line: PrintLine
) -> None:
    """Validate a push to the deployed branch, print its effect, and lock the work tree for the checkout.

    Raises:
        _PushRefused: with the reason and the remedy.
    """
    branch = ref.removeprefix("refs/heads/")
    if not new.strip(_NULL_DIGIT):
        raise _PushRefused(
            f"{branch} is the deployed branch and can't be deleted", "push a commit to it instead"
        )
    first = not old.strip(_NULL_DIGIT)
    if not first and not is_ancestor(git, old, new):
        raise _PushRefused(
            f"this push would remove commits from {branch} on the server, such as changes made over REST",
            "pull, then push again; to undo changes, use `git revert` or `service-manager rollback`",
        )
    for obstacle in replaced(git):
        # git would only report that the checkout has failed.
        raise _PushRefused(obstacle.message, f"on the server: {obstacle.remedy}")
    _check_work_tree(git, "" if first else old)
    lines = asyncio.run(_validate(context, git, new))
    with lock.locked(git.directory):
        _check_work_tree(git, "" if first else old)
        _hold_lock(git, ref, new)
    for line in lines:
        print_line(line)


def _check_work_tree(git: Git, old: str) -> None:
    """Refuse the push if HEAD is not ``old`` or files are uncommitted; wait for the commit of a write."""
    deadline = time.monotonic() + _COMMIT_TIMEOUT
    while (status := work_tree_status(git)).dirty and status.head == old and time.monotonic() < deadline:
        time.sleep(0.05)
    if status.head != old:
        raise _PushRefused("the server has newer commits", "run `git pull --rebase`, then push again")
    if status.dirty:
        names = ", ".join(status.dirty[:5]) + (" and others" if status.dirty[5:] else "")
        raise _PushRefused(
            f"uncommitted edits on the server: {names}",
            f"on the server: run `service-manager git commit {git.top}`; then pull and push again",
        )


def _hold_lock(git: Git, ref: str, new: str) -> None:
    """Start a child that holds the inherited lock until the branch is at ``new`` or git has ended."""
    receiver = os.pidfd_open(os.getppid())
    if os.fork():
        os.close(receiver)
        return
    # From here on this is the child. Close the pipes first: git waits until they are closed.
    with suppress(BaseException):
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        poll = select.poll()
        poll.register(receiver, select.POLLIN)
        deadline = time.monotonic() + _LOCK_TIMEOUT
        while time.monotonic() < deadline and not poll.poll(2):
            with suppress(OSError):
                if (git.directory / ref).read_text().strip() == new:
                    break
        _allow_group_writes(git.top)
    os._exit(0)


def _allow_group_writes(top: Path) -> None:
    """Make the checked-out files group-writable if the directory is, whatever the umask."""
    if not top.stat().st_mode & stat.S_IWGRP:
        return
    for folder, names, files in os.walk(top):
        if ".git" in names:
            names.remove(".git")
        for name in (*names, *files):
            path = Path(folder) / name
            status = path.lstat()
            group_bits = 0o2070 if stat.S_ISDIR(status.st_mode) else 0o060
            if status.st_uid == os.geteuid() and not stat.S_ISLNK(status.st_mode):
                path.chmod(status.st_mode | group_bits)


async def _validate(context: HookContext, git: Git, new: str) -> list[str]:
    """Return the effect of the push, as lines.

    Raises:
        _PushRefused: the desired state is not valid; with every mistake.
    """
    current = asyncio.create_task(_load_current(context))
    try:
        loaded = await validate_commit(git, new, context.validation)
    except InvalidDesiredState as error:
        await current
        mistakes = [str(mistake) for mistake in error.mistakes]
        raise _PushRefused(
            *mistakes, f"{len(mistakes)} mistake{'s' if mistakes[1:] else ''} to fix"
        ) from None
    warnings = [f"warning: {warning}" for warning in loaded.stack.warnings]
    return [*warnings, *_changes(await current, loaded), *await _steps(context, loaded)]


async def _load_current(context: HookContext) -> LoadedState | None:
    """Return the current desired state of the directory; None if it is not valid."""
    validation = context.validation
    store = Store(
        context.desired_state / validation.path,
        validation.resolve,
        extra_compose=validation.extra_compose,
        environment=validation.environment,
    )
    try:
        return await store.load()
    except ServiceManagerError:
        return None


def _changes(current: LoadedState | None, new: LoadedState) -> Iterator[str]:
    if current is None:
        yield "valid; replaces an invalid desired state"
        return
    changes = list(differences((current.stack, current.desired.groups), (new.stack, new.desired.groups)))
    yield "valid; changes:" if changes else "valid; changes nothing that affects containers"
    yield from (f"  {line}" for line in changes[:_MOST_LINES])
    if changes[_MOST_LINES:]:
        yield f"  and {len(changes) - _MOST_LINES} more"


async def _steps(context: HookContext, loaded: LoadedState) -> list[str]:
    if registry.kind(context.engine).in_memory:
        return []
    with stack_with_model(loaded) as stack:
        try:
            async with asyncio.timeout(_OBSERVE_TIMEOUT), open_engine(context.engine) as engine:
                observed = await observe(engine, stack)
        except (EngineError, TimeoutError, OSError):
            return ["steps unknown: the engine does not answer this user; the daemon carries out the change"]
    now = read_clocks()
    ledger = read_ledger(context.state_dir, now)
    ledger = record_observation(stack, loaded.desired, observed, ledger, now, chance=0.0)
    return list(_list_steps(dry_run(stack, loaded.desired, observed, ledger, now).steps))


def _list_steps(steps: Sequence[Step]) -> Iterator[str]:
    actions: dict[str, list[str]] = {}
    for step in steps:
        actions.setdefault(step.service, []).append(str(step.action))
    yield f"{len(steps)} step{'s' if steps[1:] else ''} will follow:" if steps else "no container changes"
    for index, (service, words) in enumerate(actions.items()):
        if index == _MOST_LINES:
            yield f"  and {len(actions) - index} more services"
            return
        yield f"  {service}: {', '.join(words)}"
