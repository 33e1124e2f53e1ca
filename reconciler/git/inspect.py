"""Reads the state of a work tree from git: head, uncommitted files, the files of a commit."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from reconciler.errors import Mistake
from reconciler.git.command import Git, GitError, stderr_message

LARGEST = 10 * 2**20
"""Most bytes of one file; desired state is text."""
LARGEST_TREE = 200 * 2**20
MOST_FILES = 20_000

_LINK, _MODULE = "120000", "160000"
_MOST_LINKS = 40


class WorkTreeStatus(NamedTuple):
    """The state of a work tree. ``head`` is empty before the first commit, ``branch`` when HEAD is detached.

    ``dirty``: tracked files that differ from the commit.
    """

    head: str
    branch: str
    dirty: tuple[str, ...]


class TreeFile(NamedTuple):
    """One file of a tree: its mode as git writes it, object id, size in bytes."""

    mode: str
    oid: str
    size: int


class CommitInfo(NamedTuple):
    """Author and subject of a commit."""

    author: str
    subject: str


def work_tree_status(git: Git) -> WorkTreeStatus:
    """Read the state of the work tree; takes a few milliseconds and no lock.

    Raises:
        GitError: git failed.
    """
    output = git(
        "status", "--porcelain=v2", "--branch", "-z", "--untracked-files=no", "--ignore-submodules=all"
    )
    head = branch = ""
    dirty: list[str] = []
    parts = iter(output.decode(errors="surrogateescape").split("\0"))
    for part in parts:
        kind, _, rest = part.partition(" ")
        if kind == "#":
            name, _, value = rest.partition(" ")
            if name == "branch.oid" and value != "(initial)":
                head = value
            elif name == "branch.head" and value != "(detached)":
                branch = value
        elif kind in {"1", "u"}:
            dirty.append(rest.split(" ", 7 if kind == "1" else 9)[-1])
        elif kind == "2":
            dirty += [rest.split(" ", 8)[-1], next(parts, "")]
    return WorkTreeStatus(head, branch, tuple(dirty))


def commit_info(git: Git, commit: str) -> CommitInfo:
    """Read author and subject of a commit."""
    output = git("log", "-1", "--format=%an%x00%s", commit).decode(errors="replace").strip("\n")
    author, _, subject = output.partition("\0")
    return CommitInfo(author, subject)


def rev_parse(git: Git, word: str) -> str | None:
    """Return the full id of a commit; None if ``word`` names none."""
    done = git.run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{word}^{{commit}}")
    return done.stdout.decode().strip() or None if done.returncode == 0 else None


def is_ancestor(git: Git, older: str, newer: str) -> bool:
    """Whether ``newer`` contains ``older``.

    Raises:
        GitError: a commit is missing, or git failed.
    """
    done = git.run("merge-base", "--is-ancestor", older, newer)
    if done.returncode > 1:
        raise GitError(stderr_message(done.stderr) or f"git merge-base ended with {done.returncode}")
    return done.returncode == 0


def tree(git: Git, commit: str, prefix: str = "") -> dict[str, TreeFile]:
    """Return every file of a commit below ``prefix`` (empty, or ends with a slash), by path from there."""
    found: dict[str, TreeFile] = {}
    for part in git("ls-tree", "-r", "-l", "-z", "--full-tree", commit).split(b"\0"):
        if not part:
            continue
        entry, _, name = part.partition(b"\t")
        mode, _, oid, size = entry.decode().split()
        path = name.decode(errors="surrogateescape")
        if path.startswith(prefix):
            found[path.removeprefix(prefix)] = TreeFile(mode, oid, int(size) if size.isdigit() else 0)
    return found


def tree_path(top: Path, prefix: str, name: str) -> str:
    """Return the path in the tree of the file ``name`` below ``prefix`` (empty, or ends with a slash).

    Links are followed while they stay inside ``top``.
    """
    try:
        return str((top / prefix / name).resolve().relative_to(top.resolve()))
    except (OSError, RuntimeError, ValueError):
        return prefix + name


def read_blobs(git: Git, oids: Iterable[str]) -> dict[str, bytes]:
    """Return the contents of many objects, with one command."""
    wanted = list(dict.fromkeys(oids))
    if not wanted:
        return {}
    output = git("cat-file", "--batch", given="".join(f"{oid}\n" for oid in wanted).encode())
    found: dict[str, bytes] = {}
    at = 0
    for _ in wanted:
        end = output.index(b"\n", at)
        oid, kind, size = output[at:end].decode().split()
        if kind != "blob":
            raise GitError(f"{oid} is a {kind}, not a file")
        found[oid] = output[end + 1 : end + 1 + int(size)]
        at = end + int(size) + 2
    return found


def unacceptable_files(git: Git, files: Mapping[str, TreeFile]) -> list[Mistake]:
    """Return a mistake for every submodule, link that leads outside, and file that is too large."""
    mistakes = [*_sizes(files)]
    links = {name: entry.oid for name, entry in files.items() if entry.mode == _LINK}
    targets = read_blobs(git, [oid for oid in links.values() if oid])
    ways = {name: targets[oid].decode(errors="surrogateescape") for name, oid in links.items()}
    mistakes += [
        Mistake(name, 0, 0, f"is a link to {target!r}, which leads outside the directory")
        for name, target in ways.items()
        if leads_outside(name, ways)
    ]
    return sorted(mistakes)


def _sizes(files: Mapping[str, TreeFile]) -> Iterator[Mistake]:
    for name, entry in files.items():
        if entry.mode == _MODULE:
            yield Mistake(name, 0, 0, "is a submodule, which is not supported; put its files here instead")
        elif entry.size > LARGEST:
            yield Mistake(name, 0, 0, f"is {entry.size} bytes long; the limit is {LARGEST}")
    if len(files) > MOST_FILES:
        yield Mistake(".", 0, 0, f"has {len(files)} files; the limit is {MOST_FILES}")
    total = sum(entry.size for entry in files.values())
    if total > LARGEST_TREE:
        yield Mistake(".", 0, 0, f"is {total} bytes long in all; the limit is {LARGEST_TREE}")


def leads_outside(name: str, links: Mapping[str, str]) -> bool:
    """Whether a link, followed through the other ``links`` of its tree, leaves it or ends in ``.git``."""
    at: list[str] = []
    ahead = list(reversed(name.split("/")))
    left = _MOST_LINKS
    while ahead:
        part = ahead.pop()
        if part in {"", "."}:
            continue
        if part == "..":
            if not at:
                return True
            at.pop()
            continue
        if not at and part.lower() == ".git":
            return True
        path = posixpath.join(*at, part)
        target = links.get(path)
        if target is None:
            at.append(part)
            continue
        left -= 1
        if left < 0 or target.startswith("/"):
            return True
        ahead += reversed(target.split("/"))
    return False
