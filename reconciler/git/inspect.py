"""What git knows of a work tree: where it stands, what is not committed, what a commit holds."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from reconciler.errors import Mistake
from reconciler.git.command import Git, GitError, stderr_message

LARGEST = 10 * 2**20
"""Bytes of one file that are taken; desired state is text."""
LARGEST_TREE = 200 * 2**20
MOST_FILES = 20_000

_LINK, _MODULE = "120000", "160000"
_MOST_LINKS = 40


class WorkTreeStatus(NamedTuple):
    """Where a work tree stands. ``head`` is empty before the first commit, ``branch`` off any branch.

    ``dirty``: files that git knows and that are not as the commit has them.
    """

    head: str
    branch: str
    dirty: tuple[str, ...]


class TreeFile(NamedTuple):
    """One file of a tree: its mode as git writes it, the name of its content, bytes."""

    mode: str
    oid: str
    size: int


class About(NamedTuple):
    """What a commit says of itself."""

    author: str
    subject: str


def work_tree_status(git: Git) -> WorkTreeStatus:
    """Where the work tree stands; takes a few milliseconds and no lock.

    Raises:
        GitError: git can't say.
    """
    told = git(
        "status", "--porcelain=v2", "--branch", "-z", "--untracked-files=no", "--ignore-submodules=all"
    )
    head = branch = ""
    dirty: list[str] = []
    parts = iter(told.decode(errors="surrogateescape").split("\0"))
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


def commit_info(git: Git, commit: str) -> About:
    """Author and first line of a commit."""
    told = git("log", "-1", "--format=%an%x00%s", commit).decode(errors="replace").strip("\n")
    author, _, subject = told.partition("\0")
    return About(author, subject)


def rev_parse(git: Git, word: str) -> str | None:
    """The whole name of a commit, None where there is none of that name."""
    done = git.run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{word}^{{commit}}")
    return done.stdout.decode().strip() or None if done.returncode == 0 else None


def is_ancestor(git: Git, older: str, newer: str) -> bool:
    """Whether ``newer`` contains ``older``.

    Raises:
        GitError: git can't tell, since a commit is missing or it failed.
    """
    done = git.run("merge-base", "--is-ancestor", older, newer)
    if done.returncode > 1:
        raise GitError(stderr_message(done.stderr) or f"git merge-base ended with {done.returncode}")
    return done.returncode == 0


def tree(git: Git, commit: str, prefix: str = "") -> dict[str, TreeFile]:
    """Every file of a commit below ``prefix`` (empty, or ends with a slash), by name from there on."""
    found: dict[str, TreeFile] = {}
    for part in git("ls-tree", "-r", "-l", "-z", "--full-tree", commit).split(b"\0"):
        if not part:
            continue
        told, _, name = part.partition(b"\t")
        mode, _, oid, size = told.decode().split()
        path = name.decode(errors="surrogateescape")
        if path.startswith(prefix):
            found[path.removeprefix(prefix)] = TreeFile(mode, oid, int(size) if size.isdigit() else 0)
    return found


def read_blob(git: Git, oid: str) -> bytes:
    """A content by its name."""
    return git("cat-file", "blob", oid)


def read_blobs(git: Git, oids: Iterable[str]) -> dict[str, bytes]:
    """Many contents by their names, with one command."""
    wanted = list(dict.fromkeys(oids))
    if not wanted:
        return {}
    told = git("cat-file", "--batch", given="".join(f"{oid}\n" for oid in wanted).encode())
    found: dict[str, bytes] = {}
    at = 0
    for _ in wanted:
        end = told.index(b"\n", at)
        oid, kind, size = told[at:end].decode().split()
        if kind != "blob":
            raise GitError(f"{oid} is a {kind}, not a file")
        found[oid] = told[end + 1 : end + 1 + int(size)]
        at = end + int(size) + 2
    return found


def unacceptable_files(git: Git, files: Mapping[str, TreeFile]) -> list[Mistake]:
    """What is never taken from others: submodules, links that lead outside, what is far too large."""
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
            yield Mistake(name, 0, 0, "is a submodule; those are not taken, put its files here instead")
        elif entry.size > LARGEST:
            yield Mistake(name, 0, 0, f"is {entry.size} bytes long; at most {LARGEST} are taken")
    if len(files) > MOST_FILES:
        yield Mistake(".", 0, 0, f"has {len(files)} files; at most {MOST_FILES} are taken")
    total = sum(entry.size for entry in files.values())
    if total > LARGEST_TREE:
        yield Mistake(".", 0, 0, f"is {total} bytes long in all; at most {LARGEST_TREE} are taken")


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
