"""Finds what keeps git from working in a repository, each with a remedy: for ``doctor`` and the hook."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import NamedTuple

from reconciler.git.attributes import encoding_mistakes
from reconciler.git.command import Git, GitError, open_work_tree
from reconciler.git.inspect import rev_parse, tree
from reconciler.git.refs import REPLACED, refusal


class Obstacle(NamedTuple):
    """A problem of a repository, and the command that solves it."""

    message: str
    remedy: str


def find_obstacles(directory: Path) -> list[Obstacle]:
    """Return every obstacle in the work tree at ``directory``; empty outside a work tree."""
    git = open_work_tree(directory)
    try:
        return [*replaced(git), *_named(git), *_attributes(git)] if git is not None else []
    except (GitError, OSError) as error:
        remedy = getattr(error, "remedy", "") or f"`git -C {quote(str(directory))} fsck` says more"
        return [Obstacle(f"git fails in {directory}: {error}", remedy)]


def replaced(git: Git) -> list[Obstacle]:
    """Return an obstacle for replaced objects (``refs/replace``) if git uses them; a checkout may fail then.

    Raises:
        GitError: the refs can't be read.
    """
    found = [ref.removeprefix(REPLACED) for ref in _refs(git, REPLACED)]
    done = git.run("config", "--type=bool", "--get", "core.useReplaceRefs")
    if not found or done.stdout.strip() == b"false":
        return []
    message = (
        f"git takes another object for {len(found)} commit{'s' if found[1:] else ''} ({REPLACED}{found[0]}"
        f"{', …' if found[1:] else ''}): pushes and users' commands fail, or read other content"
    )
    return [Obstacle(message, f"`git -C {quote(str(git.top))} replace -d {' '.join(found)}`")]


def _named(git: Git) -> Iterator[Obstacle]:
    deployed = git.run("symbolic-ref", "--quiet", "HEAD").stdout.decode(errors="surrogateescape").strip()
    for ref in _refs(git, "refs/heads/", "refs/tags/"):
        reason = refusal(ref, deployed)
        if reason:
            yield Obstacle(reason, f"`git -C {quote(str(git.top))} update-ref -d {quote(ref)}`")


def _refs(git: Git, *prefixes: str) -> list[str]:
    listed = git("for-each-ref", "--format=%(refname)", *prefixes).decode(errors="surrogateescape")
    return [ref for ref in listed.split("\n") if ref]


def _attributes(git: Git) -> Iterator[Obstacle]:
    head = rev_parse(git, "HEAD")
    for mistake in encoding_mistakes(git, tree(git, head)) if head else ():
        yield Obstacle(
            f"{mistake}; writes can't be committed", "remove it, then run `service-manager git commit`"
        )
