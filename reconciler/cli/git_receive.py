"""What happens between a push and its acceptance: the pushed tree is judged as it would lie on the box.

Runs as whoever pushes, in the repository of the work tree. Until it agrees, what was pushed is in quarantine:
refused, nothing of it is left. Once it agrees, it leaves a process behind that keeps the daemon from writing
until git has moved the branch, so that a write and a checkout never meet.
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

_NOTHING = "0"
_SETTLED = 2.0
"""Seconds that a write of the daemon is given to become a commit."""
_HELD = 60.0
"""Seconds after which a push counts as dead, however it hangs."""
_LOOK = 3.0
"""Seconds for a look at the engine: the pusher waits."""
_MOST_LINES = 15

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class HookContext:
    """What the hook was told when it was made, and what it finds: see ``setup``."""

    desired_state: Path
    state_dir: Path
    engine: str
    around: ValidationContext
    environ: Mapping[str, str]


class _Refused(Exception):
    """Lines for the pusher; the last one says what to do."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def receive(box: HookContext, updates: Sequence[str], say: Say) -> int:
    """The hook: ``updates`` are lines of OLD NEW REF; 0 lets all of them in, 1 none."""
    try:
        git = Git(box.desired_state.resolve(), _own(box), box.environ)
        current = git.run_line("symbolic-ref", "HEAD")
        # Not at any blank: a name may hold blanks of Unicode.
        parsed = [update.split(" ", 2) for update in updates if update]
        _named(parsed, current)
        for old, new, ref in parsed:
            if ref == current:
                _deployed(box, git, old, new, ref, say)
    except _Refused as error:
        say("refused; nothing on the box has changed")
        for line in error.lines:
            say(f"  {line}")
        return 1
    except (ServiceManagerError, OSError) as error:
        say(f"refused, since it can't be checked: {error}")
        remedy = getattr(error, "remedy", "")
        if remedy:
            say(f"  {remedy}")
        return 1
    return 0


def _own(box: HookContext) -> Path:
    found = git_dir(box.desired_state)
    if found is None:
        raise _Refused(
            f"{box.desired_state} is no work tree any more", "call `service-manager git init` again"
        )
    return found


def _named(updates: Sequence[Sequence[str]], current: str) -> None:
    """Refuse names that would keep git from working here. What has such a name already may be deleted."""
    refusals = [
        reason
        for _, new, ref in updates
        if (reason := refusal(ref, current))
        and (new.strip(_NOTHING) or not ref.startswith(("refs/heads/", "refs/tags/")))
    ]
    if refusals:
        raise _Refused(*refusals[:_MOST_LINES], "push branches and tags, under other names")


def _deployed(box: HookContext, git: Git, old: str, new: str, ref: str, say: Say) -> None:
    branch = ref.removeprefix("refs/heads/")
    if not new.strip(_NOTHING):
        raise _Refused(f"{branch} is what the box runs on; it can't be deleted")
    first = not old.strip(_NOTHING)
    if not first and not is_ancestor(git, old, new):
        raise _Refused(
            f"this would take commits away that {branch} has on the box, changes made over REST among them",
            "pull and push again; to go back, use `git revert` or `service-manager rollback`",
        )
    for obstacle in replaced(git):
        # Of the checkout that follows git would say no more than that it failed.
        raise _Refused(obstacle.message, f"on this machine: {obstacle.remedy}")
    _at_rest(git, "" if first else old)
    lines = asyncio.run(_judged(box, git, new))
    for descriptor in _lock(git):
        _at_rest(git, "" if first else old)
        _hold(descriptor, git, ref, new)
    for line in lines:
        say(line)


def _at_rest(git: Git, old: str) -> None:
    """Whether the box stands where the push begins, with nothing uncommitted; waits for a write's commit."""
    deadline = time.monotonic() + _SETTLED
    while (where := work_tree_status(git)).dirty and where.head == old and time.monotonic() < deadline:
        time.sleep(0.05)
    if where.head != old:
        raise _Refused("the box has newer commits, made meanwhile", "`git pull --rebase`, then push again")
    if where.dirty:
        names = ", ".join(where.dirty[:5]) + (" and others" if where.dirty[5:] else "")
        raise _Refused(
            f"edited on the box and not committed: {names}",
            f"on the box: `service-manager git commit {git.top}`; then pull and push again",
        )


def _lock(git: Git) -> Iterator[int]:
    with lock.locked(git.directory) as descriptor:
        yield descriptor


def _hold(descriptor: int, git: Git, ref: str, new: str) -> None:
    """Leaves a process behind that holds the lock until the branch is at ``new``, or git has given up."""
    receiver = os.pidfd_open(os.getppid())
    if os.fork():
        os.close(receiver)
        return
    # The child. git waits for whoever has its pipes open, so they go first.
    with suppress(BaseException):
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nowhere, standard)
        poll = select.poll()
        poll.register(receiver, select.POLLIN)
        deadline = time.monotonic() + _HELD
        while time.monotonic() < deadline and not poll.poll(2):
            with suppress(OSError):
                if (git.directory / ref).read_text().strip() == new:
                    break
        _open_to_group(git.top)
    os._exit(0)


def _open_to_group(top: Path) -> None:
    """In a directory that its group may write, so may it what we have checked out, whatever our umask."""
    if not top.stat().st_mode & stat.S_IWGRP:
        return
    for folder, names, files in os.walk(top):
        if ".git" in names:
            names.remove(".git")
        for name in (*names, *files):
            place = Path(folder) / name
            found = place.lstat()
            more = 0o2070 if stat.S_ISDIR(found.st_mode) else 0o060
            if found.st_uid == os.geteuid() and not stat.S_ISLNK(found.st_mode):
                place.chmod(found.st_mode | more)


async def _judged(box: HookContext, git: Git, new: str) -> list[str]:
    """What the push will do, in lines.

    Raises:
        _Refused: it is not valid, with every mistake.
    """
    now = asyncio.create_task(_now(box))
    try:
        loaded = await validate_commit(git, new, box.around)
    except InvalidDesiredState as error:
        await now
        mistakes = [str(mistake) for mistake in error.mistakes]
        raise _Refused(*mistakes, f"{len(mistakes)} mistake{'s' if mistakes[1:] else ''} to mend") from None
    return [*_changes(await now, loaded), *await _steps(box, loaded)]


async def _now(box: HookContext) -> LoadedState | None:
    """What lies on the box now; None where that is not valid."""
    store = Store(
        box.desired_state / box.around.path,
        box.around.resolve,
        extra_compose=box.around.extra_compose,
        environment=box.around.environment,
    )
    try:
        return await store.load()
    except ServiceManagerError:
        return None


def _changes(now: LoadedState | None, then: LoadedState) -> Iterator[str]:
    if now is None:
        yield "valid; it takes the place of a desired state that is not"
        return
    told = list(differences((now.stack, now.desired.groups), (then.stack, then.desired.groups)))
    yield "valid; it changes:" if told else "valid; it changes nothing that runs"
    yield from (f"  {line}" for line in told[:_MOST_LINES])
    if told[_MOST_LINES:]:
        yield f"  and {len(told) - _MOST_LINES} more"


async def _steps(box: HookContext, loaded: LoadedState) -> list[str]:
    if box.engine != "docker":
        return []
    with stack_with_model(loaded) as stack:
        try:
            async with asyncio.timeout(_LOOK), open_engine(box.engine) as engine:
                observed = await observe(engine, stack)
        except (EngineError, TimeoutError, OSError):
            return ["what is to be done is seen by the daemon alone: the engine does not answer here"]
    now = read_clocks()
    ledger = read_ledger(box.state_dir, now)
    ledger = record_observation(stack, loaded.desired, observed, ledger, now, chance=0.0)
    return list(_listed(dry_run(stack, loaded.desired, observed, ledger, now).steps))


def _listed(steps: Sequence[Step]) -> Iterator[str]:
    actions: dict[str, list[str]] = {}
    for step in steps:
        actions.setdefault(step.service, []).append(str(step.action))
    yield f"{len(steps)} steps will follow:" if steps else "no container is touched"
    for index, (service, words) in enumerate(actions.items()):
        if index == _MOST_LINES:
            yield f"  and {len(actions) - index} more services"
            return
        yield f"  {service}: {', '.join(words)}"
