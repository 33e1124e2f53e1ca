"""Makes a desired-state directory a git work tree that accepts pushes, or adopts an existing one."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import reconciler
from reconciler.git.command import Git, GitError, git_dir
from reconciler.git.commit_objects import Author, commit, read_edits
from reconciler.git.inspect import LARGEST_TREE, work_tree_status
from reconciler.git.refs import HIDDEN
from reconciler.host.atomic_files import acting_as_owner

HOOK = "pre-receive"
_MARK = "# Made by `service-manager git init`"
_EXCLUDED = "# Variables and passwords stay on this machine.\n.env\n"
_SETTINGS = {
    "receive.denyCurrentBranch": "updateInstead",
    # REST writes are commits; a forced push would remove them.
    "receive.denyNonFastForwards": "true",
    "receive.denyDeleteCurrent": "refuse",
    "receive.fsckObjects": "true",
    "receive.maxInputSize": str(LARGEST_TREE),
    # The checkout of a push would fail with a replaced commit.
    "core.useReplaceRefs": "false",
}
_HIDE = "receive.hideRefs"


def install_hook(directory: Path, hook_arguments: Sequence[str], environ: Mapping[str, str]) -> Iterator[str]:
    """Set up the repository and yield a line for each step. ``hook_arguments`` are passed to ``git hook``.

    Raises:
        GitError: the directory can't be set up; carries the remedy.
        OSError: the directory can't be written.
    """
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    found = git_dir(directory)
    git = Git(directory, found or directory / ".git", environ)
    if found is None:
        git("init", "--quiet", "--initial-branch=main")
        yield f"created a repository in {directory}"
    else:
        yield f"adopted the repository in {directory}"
        if found != directory / ".git":
            raise GitError(
                f"{directory} is a linked work tree", "use the main work tree, or a separate clone"
            )
    where = work_tree_status(git)
    if not where.branch:
        raise GitError(
            "HEAD is detached, so nothing can be pushed to it", "run `git switch` to a branch first"
        )
    _check_hooks(git)
    for key, value in _settings(git).items():
        git("config", "--local", key, value)
    _hide(git)
    # Root writes below .git with the owner's permissions: the owner may have planted links.
    with acting_as_owner(git.top):
        _exclude(git)
        _write_hook(git, hook_arguments)
    yield f"a push to {where.branch} is validated, then checked out"
    if _is_shared(git):
        _share(git.directory)
        yield "its group may push, too; each user other than the owner runs this once, on this machine:"
        yield f"  git config --global --add safe.directory {directory}/.git"
    if not where.head:
        yield from _first(git)
    elif where.dirty:
        yield f"not committed: {', '.join(where.dirty)}; run `service-manager git commit`"


def hook_missing(directory: Path) -> str:
    """Return the program that the installed hook calls if it is missing; empty otherwise."""
    found = git_dir(directory)
    try:
        text = (found / "hooks" / HOOK).read_text() if found else ""
        words = shlex.split(text.partition("exec ")[2]) if _MARK in text else []
    except (OSError, ValueError):
        return ""
    return words[0] if words and not Path(words[0]).exists() else ""


def _settings(git: Git) -> dict[str, str]:
    # Set explicitly, so that no other setting of the machine or repository applies.
    found = _SETTINGS | {"core.hooksPath": str(git.directory / "hooks")}
    if _is_shared(git):
        found["core.sharedRepository"] = "group"
    return found


def _hide(git: Git) -> None:
    """Allow only branches and tags in pushes; other refs that the owner hides stay hidden."""
    done = git.run("config", "--local", "-z", "--get-all", _HIDE).stdout.decode(errors="surrogateescape")
    present = done.split("\0")[:-1]
    wanted = [*HIDDEN, *(value for value in present if value not in HIDDEN)]
    if present == wanted:
        return
    if present:
        git("config", "--local", "--unset-all", _HIDE)
    for value in wanted:
        git("config", "--local", "--add", _HIDE, value)


def _is_shared(git: Git) -> bool:
    return bool(git.top.stat().st_mode & stat.S_IWGRP)


def _share(repository: Path) -> None:
    """Give the group access to the existing files of the repository, as git does for new ones."""
    # By descriptors and never through links: the owner may have planted some for root to follow.
    for _, _, files, folder in os.fwalk(repository):
        os.fchmod(folder, stat.S_IMODE(os.fstat(folder).st_mode) | 0o2070)
        for name in files:
            _share_file(name, folder)


def _share_file(name: str, folder: int) -> None:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        # A link, a socket, or gone since: nothing that git needs.
        return
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.fstat(folder).st_uid:
            # Objects are read-only for everyone.
            writable = 0o020 if status.st_mode & stat.S_IWUSR else 0
            os.fchmod(descriptor, stat.S_IMODE(status.st_mode) | 0o040 | writable)
    finally:
        os.close(descriptor)


def _check_hooks(git: Git) -> None:
    for name in (HOOK, "push-to-checkout", "update"):
        hook = git.directory / "hooks" / name
        if hook.exists() and _MARK not in hook.read_text(errors="replace"):
            raise GitError(f"a hook exists already: {hook}", "move it elsewhere, then run this again")


def _exclude(git: Git) -> None:
    path = git.directory / "info" / "exclude"
    text = path.read_text() if path.exists() else ""
    if ".env" not in text.split():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + _EXCLUDED)


def _write_hook(git: Git, arguments: Sequence[str]) -> None:
    root = Path(reconciler.__file__).resolve().parents[1]
    installed = root.name in {"site-packages", "dist-packages"}
    place = "" if installed else f"PYTHONPATH={shlex.quote(str(root))} "
    command = shlex.join([sys.executable, "-P", "-m", "reconciler", "git", "hook", *arguments])
    hook = git.directory / "hooks" / HOOK
    hook.parent.mkdir(exist_ok=True)
    purpose = "validates a push before it is accepted."
    hook.unlink(missing_ok=True)
    hook.write_text(f"#!/bin/sh\n{_MARK}; {purpose}\n{place}exec {command}\n")
    hook.chmod(0o755)


def _first(git: Git) -> Iterator[str]:
    listed = git("ls-files", "--others", "--exclude-standard", "-z").decode(errors="surrogateescape")
    names = [name for name in listed.split("\0") if name]
    if not names:
        yield "the directory is empty: the first push brings stack.yaml, groups.yaml and the Compose file"
        return
    git("add", "--all")
    name = git.run("config", "--get", "user.name").stdout.decode().strip()
    author = Author(name or os.environ.get("SUDO_USER") or os.environ.get("USER") or "service-manager")
    made = commit(git, "", read_edits(git, names), "Desired state as it was found\n", author)
    yield f"committed {len(names)} files as {made[:10]}"
