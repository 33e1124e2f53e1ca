"""``git init``, ``git commit`` and ``git log``: manage the desired-state directory with git."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from reconciler.cli.console import Console, Row, clean
from reconciler.cli.output.time_format import local_time
from reconciler.errors import InvalidDesiredState, ServiceManagerError

if TYPE_CHECKING:
    from reconciler.git.command import Git

_DAEMON_COMMIT_TIMEOUT = 1.5
"""Seconds to wait until a running daemon has committed its latest write."""


class NoRepository(ServiceManagerError):
    """The directory is not the top of a git work tree."""

    remedy = "make it one with `service-manager git init`"


class _Request(NamedTuple):
    """The options of one call. ``directory`` is DIR, otherwise ``--desired-state``."""

    directory: Path
    desired_state: Path
    state_dir: Path
    compose_file: tuple[Path, ...]
    engine: str
    message: str
    limit: int
    as_json: bool


def git(
    console: Console, *, action: str, dir: Path | None, desired_state: Path, output: str, **options: Any
) -> int:
    """Run one action."""
    request = _Request(dir or desired_state, desired_state, as_json=output == "json", **options)
    return {"init": _init, "commit": _commit, "log": _log, "hook": _hook}[action](request, console)


def _init(request: _Request, console: Console) -> int:
    from reconciler.git.setup import install_hook

    directory = request.directory
    words = ["--desired-state", str(directory), "--state-dir", str(request.state_dir)]
    words += ["--engine", request.engine]
    for file in request.compose_file:
        words += ["--compose-file", str(file)]
    done = []
    for line in install_hook(directory, words, os.environ):
        done.append(line)
        if not request.as_json:
            console.print(clean(line))
    if request.as_json:
        console.json({"directory": str(directory), "done": done})
    else:
        console.print(
            f"To push, clone it first:  git clone {directory}   (over ssh: git clone HOST:{directory})"
        )
    return 0


def _hook(request: _Request, console: Console) -> int:
    """Run the pre-receive hook that ``git init`` installs; an internal command."""
    from reconciler.cli.git_receive import HookContext, receive
    from reconciler.desired_state.digest_key_file import keyed, read_key
    from reconciler.engine import registry
    from reconciler.git.staging import ValidationContext

    environ = dict(os.environ)
    resolve = registry.kind(request.engine).resolver(environ)
    context = HookContext(
        desired_state=request.desired_state,
        state_dir=request.state_dir,
        engine=request.engine,
        validation=ValidationContext(
            keyed(resolve, read_key(request.state_dir)), request.compose_file, resolve.environment
        ),
        environ=environ,
    )

    def print_line(line: str) -> None:
        console.print(clean(line) if not line.startswith(" ") else f"  {clean(line)}")
        console.out.flush()

    # Names are bytes in git, and may contain characters that Python takes for line ends.
    given = sys.stdin.buffer.read().decode(errors="surrogateescape")
    return receive(context, given.split("\n"), print_line)


def _work_tree(directory: Path) -> Git:
    from reconciler.git.command import open_work_tree

    work_tree = open_work_tree(directory)
    if work_tree is None:
        raise NoRepository(f"{directory} is not the top of a git work tree")
    return work_tree


def _commit(request: _Request, console: Console) -> int:
    from reconciler.cli.oneshot import load, relative_to_cwd
    from reconciler.desired_state.schema import GROUPS
    from reconciler.git import lock
    from reconciler.git.auto_commit import retained
    from reconciler.git.command import GitError
    from reconciler.git.commit_objects import Author, commit, read_edits
    from reconciler.git.inspect import work_tree_status

    directory = request.directory
    work_tree = _work_tree(directory)
    deadline = time.monotonic() + _DAEMON_COMMIT_TIMEOUT
    while (
        GROUPS in work_tree_status(work_tree).dirty
        and time.monotonic() < deadline
        and _daemon_runs(directory)
    ):
        time.sleep(0.1)
    try:
        loaded = asyncio.run(load(directory, request.compose_file))
    except InvalidDesiredState as error:
        raise InvalidDesiredState(
            tuple(relative_to_cwd(mistake, directory) for mistake in error.mistakes)
        ) from None
    with lock.locked(work_tree.directory):
        status = work_tree_status(work_tree)
        if not status.branch:
            raise GitError("HEAD is detached", "`git switch` to a branch first")
        new = work_tree("ls-files", "--others", "--exclude-standard", "-z").decode(errors="surrogateescape")
        added = set(new.split("\0")) & set(retained(loaded.sources))
        names = sorted({*status.dirty, *added})
        if not names:
            return _print_commit(status.head, [], console, as_json=request.as_json)
        author = Author(_config(work_tree, "user.name"), _config(work_tree, "user.email"))
        if not author.name:
            author = Author(os.environ.get("SUDO_USER") or os.environ.get("USER") or "hand edit")
        message = request.message or f"Edit {', '.join(names[:5])} by hand"
        created = commit(work_tree, status.head, read_edits(work_tree, names), f"{message}\n", author)
    return _print_commit(created, names, console, as_json=request.as_json)


def _print_commit(commit: str, names: list[str], console: Console, *, as_json: bool) -> int:
    if as_json:
        console.json({"commit": commit, "files": names})
    elif names:
        console.print(f"committed {', '.join(map(clean, names))} as {commit[:10]}")
    else:
        console.print("nothing to commit")
    return 0


def _config(work_tree: Git, key: str) -> str:
    return work_tree.run("config", "--get", key).stdout.decode(errors="replace").strip()


def _daemon_runs(directory: Path) -> bool:
    from reconciler.errors import AlreadyRunning
    from reconciler.host.directory_lock import DirectoryLock

    try:
        DirectoryLock(directory).close()
    except AlreadyRunning:
        return True
    return False


def _log(request: _Request, console: Console) -> int:
    from reconciler.generations.records import read_records

    work_tree = _work_tree(request.directory)
    log = work_tree("log", f"--max-count={request.limit}", "--format=%H%x00%aI%x00%an%x00%s")
    records = {record.commit: record for record in read_records(request.state_dir) if record.commit}
    entries: list[dict[str, Any]] = []
    # Not splitlines(): a subject may hold U+2028, U+0085 or a form feed.
    for line in filter(None, log.decode(errors="replace").split("\n")):
        commit, when, author, subject = line.split("\0")
        record = records.get(commit)
        entries.append(
            {
                "commit": commit,
                "time": when,
                "author": author,
                "subject": subject,
                "generation": record.generation if record else None,
                "state": (record.outcome or None) if record else None,
            }
        )
    if request.as_json:
        console.json({"commits": entries})
        return 0
    titles = ("COMMIT", "WHEN", "WHO", "GENERATION", "STATE", "SUBJECT")
    rows: list[Row] = [
        (
            entry["commit"][:10],
            local_time(entry["time"]),
            clean(entry["author"]),
            str(entry["generation"] or ""),
            entry["state"] or "",
            clean(entry["subject"]),
        )
        for entry in entries
    ]
    console.table(rows, titles=titles, right=(3,))
    return 0
