"""``git init``, ``git commit`` and ``git log``: manage the desired-state directory with git."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from reconciler.cli.console import Cell, Console, Row, clean
from reconciler.cli.options.option_types import path
from reconciler.cli.options.parsing import UsageError, closest
from reconciler.cli.options.spec import OptionValues
from reconciler.cli.output.time_format import local_time
from reconciler.errors import InvalidDesiredState, ServiceManagerError

_ACTIONS = ("init", "commit", "log")
_DAEMON_COMMIT_TIMEOUT = 1.5
"""Seconds to wait until a running daemon has committed its latest write."""


class NoRepository(ServiceManagerError):
    """The directory is not the top of a git work tree."""

    remedy = "make it one with `service-manager git init`"


def git(values: OptionValues, console: Console) -> int:
    """Run one action."""
    action = values["action"]
    handlers = {"init": _init, "commit": _commit, "log": _log, "hook": _hook}
    if action not in handlers:
        raise UsageError(
            f"unknown action {action!r}", closest(action, _ACTIONS) or "the actions are init, commit and log"
        )
    return handlers[action](values, console)


def _directory(values: OptionValues) -> Path:
    if values["dir"] is None:
        directory: Path = values["desired_state"]
        return directory
    try:
        return path(values["dir"])
    except ValueError as error:
        raise UsageError(f"DIR: {error}") from None


def _init(values: OptionValues, console: Console) -> int:
    from reconciler.git.setup import install_hook

    directory = _directory(values)
    words = ["--desired-state", str(directory), "--state-dir", str(values["state_dir"])]
    words += ["--engine", values["engine"]]
    for file in values["compose_file"]:
        words += ["--compose-file", str(file)]
    done = list(_print_each(install_hook(directory, words, os.environ), console, values))
    if values["output"] == "json":
        console.json({"directory": str(directory), "done": done})
    else:
        console.print(
            f"To push, clone it first:  git clone {directory}   (over ssh: git clone HOST:{directory})"
        )
    return 0


def _print_each(lines: Any, console: Console, values: OptionValues) -> Any:
    for line in lines:
        if values["output"] != "json":
            console.print(clean(line))
        yield line


def _hook(values: OptionValues, console: Console) -> int:
    """Run the pre-receive hook that ``git init`` installs; an internal command."""
    from reconciler.cli.git_receive import HookContext, receive
    from reconciler.desired_state.digest_key_file import keyed, read_key
    from reconciler.engine import registry
    from reconciler.git.staging import ValidationContext

    environ = dict(os.environ)
    resolve = registry.kind(values["engine"]).resolver(environ)
    context = HookContext(
        desired_state=values["desired_state"],
        state_dir=values["state_dir"],
        engine=values["engine"],
        validation=ValidationContext(
            keyed(resolve, read_key(values["state_dir"])), values["compose_file"], resolve.environment
        ),
        environ=environ,
    )

    def print_line(line: str) -> None:
        console.print(clean(line) if not line.startswith(" ") else f"  {clean(line)}")
        console.out.flush()

    # Names are bytes in git, and may contain characters that Python takes for line ends.
    given = sys.stdin.buffer.read().decode(errors="surrogateescape")
    return receive(context, given.split("\n"), print_line)


def _commit(values: OptionValues, console: Console) -> int:
    from reconciler.cli.oneshot import load, relative_to_cwd
    from reconciler.desired_state.schema import GROUPS
    from reconciler.git import lock
    from reconciler.git.auto_commit import retained
    from reconciler.git.command import GitError, open_work_tree
    from reconciler.git.commit_objects import Author, commit, read_edits
    from reconciler.git.inspect import work_tree_status

    directory = _directory(values)
    work_tree = open_work_tree(directory)
    if work_tree is None:
        raise NoRepository(f"{directory} is not the top of a git work tree")
    deadline = time.monotonic() + _DAEMON_COMMIT_TIMEOUT
    while (
        GROUPS in work_tree_status(work_tree).dirty
        and time.monotonic() < deadline
        and _daemon_runs(directory)
    ):
        time.sleep(0.1)
    try:
        loaded = asyncio.run(load(directory, values["compose_file"]))
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
            return _print_commit(values, console, status.head, [])
        author = Author(_config(work_tree, "user.name"), _config(work_tree, "user.email"))
        if not author.name:
            author = Author(os.environ.get("SUDO_USER") or os.environ.get("USER") or "hand edit")
        message = values["message"] or f"Edit {', '.join(names[:5])} by hand"
        made = commit(work_tree, status.head, read_edits(work_tree, names), f"{message}\n", author)
    return _print_commit(values, console, made, names)


def _print_commit(values: OptionValues, console: Console, commit: str, names: list[str]) -> int:
    if values["output"] == "json":
        console.json({"commit": commit, "files": names})
    elif names:
        console.print(f"committed {', '.join(map(clean, names))} as {commit[:10]}")
    else:
        console.print("nothing to commit")
    return 0


def _config(work_tree: Any, key: str) -> str:
    text: bytes = work_tree.run("config", "--get", key).stdout
    return text.decode(errors="replace").strip()


def _daemon_runs(directory: Path) -> bool:
    from reconciler.errors import AlreadyRunning
    from reconciler.host.directory_lock import DirectoryLock

    try:
        DirectoryLock(directory).close()
    except AlreadyRunning:
        return True
    return False


def _log(values: OptionValues, console: Console) -> int:
    from reconciler.git.command import open_work_tree

    directory = _directory(values)
    work_tree = open_work_tree(directory)
    if work_tree is None:
        raise NoRepository(f"{directory} is not the top of a git work tree")
    log = work_tree("log", f"--max-count={values['limit']}", "--format=%H%x00%aI%x00%an%x00%s")
    generations = _generations(values["state_dir"])
    entries: list[dict[str, Any]] = []
    # Not splitlines(): a subject may hold U+2028, U+0085 or a form feed.
    for line in filter(None, log.decode(errors="replace").split("\n")):
        commit, when, author, subject = line.split("\0")
        generation = generations.get(commit, {})
        entries.append(
            {
                "commit": commit,
                "time": when,
                "author": author,
                "subject": subject,
                "generation": generation.get("generation"),
                "state": generation.get("outcome") or None,
            }
        )
    if values["output"] == "json":
        console.json({"commits": entries})
        return 0
    titles = ("COMMIT", "WHEN", "WHO", "GENERATION", "STATE", "SUBJECT")
    rows: list[Row] = [tuple(Cell(title, "dim") for title in titles)]
    rows += [
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
    console.table(rows, right=(3,))
    return 0


def _generations(state_dir: Path) -> dict[str, dict[str, Any]]:
    """The generations that the daemon recorded, by commit; empty if they can't be read."""
    found: dict[str, dict[str, Any]] = {}
    try:
        files = sorted((state_dir / "generations").glob("*.json"))
    except OSError:
        return found
    for file in files:
        try:
            record = json.loads(file.read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(record, dict) and record.get("commit"):
            found[str(record["commit"])] = record
    return found
