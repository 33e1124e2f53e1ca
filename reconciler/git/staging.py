"""A commit laid out as the directory would be with it, without touching the directory.

Beside the commit's own files stand links to what lies in the directory and git does not know (``.env``, say),
and around it links to what lies around the directory, so that ``../shared/x.yaml`` leads where it would. What
is resolved in there names the folder; taken out of the text, the paths are those that they would be.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

from reconciler.desired_state.assemble import LoadedState
from reconciler.desired_state.store import Store
from reconciler.errors import InvalidDesiredState, Mistake
from reconciler.git.attributes import encodings, unclean
from reconciler.git.command import Git
from reconciler.git.inspect import tree, unacceptable_files
from reconciler.model.resolved_compose import Resolved

_PREFIX = "service-manager-"
_OLD = 3600.0
"""Seconds after which a layout is nobody's any more."""


class Resolve(Protocol):
    """Resolves Compose files; ``reconciler.engine.compose.engine.resolve`` is one."""

    async def __call__(
        self, files: Sequence[Path], directory: Path, project: str, *, without: str = ""
    ) -> Resolved:
        """What the files mean; ``without`` is taken out of it, before it is hashed."""


class ValidationContext(NamedTuple):
    """What a commit is judged with: a resolver, further Compose files, Compose's environment.

    ``path`` is the folder of desired state in the work tree; empty: its top.
    """

    resolve: Resolve
    extra_compose: tuple[Path, ...] = ()
    environment: dict[str, str] | None = None
    path: str = ""


async def validate_commit(git: Git, commit: str, around: ValidationContext) -> LoadedState:
    """The desired state that a commit would be in this directory.

    Raises:
        InvalidDesiredState: with every mistake: unfit files first, and alone, since nothing else is then
            looked at.
        StepFailed: there is no Compose.
        GitError: git can't read the commit.
    """
    await asyncio.to_thread(_fit, git, commit)
    # Laid out and cleared away in a thread: it is a matter of many small files.
    layout = ExitStack()
    try:
        folder, top = await asyncio.to_thread(layout.enter_context, stage(git, commit))
        clashes = await asyncio.to_thread(_beside, git, top)
        if clashes:
            raise InvalidDesiredState(tuple(clashes))
        return await _loaded(top / around.path, folder, around)
    finally:
        await asyncio.to_thread(layout.close)


def checked(git: Git, commit: str) -> None:
    """Whether a commit may be checked out at all, whatever its files mean; blocks.

    Raises:
        InvalidDesiredState: with every file that is not taken: links that lead outside, submodules, what is
            too large, attributes that git can't work with afterwards.
        GitError: git can't read the commit, or check it out.
    """
    _fit(git, commit)
    with stage(git, commit):
        pass


def _fit(git: Git, commit: str) -> None:
    files = tree(git, commit)
    mistakes = [*unacceptable_files(git, files), *encodings(git, files)]
    if mistakes:
        raise InvalidDesiredState(tuple(sorted(mistakes)))


@contextmanager
def stage(git: Git, commit: str) -> Iterator[tuple[str, Path]]:
    """The commit's files alone: the folder to be taken out of paths, and the top within it.

    Raises:
        InvalidDesiredState: files that would count as changed as soon as they are checked out.
        GitError: git can't check it out.
    """
    # In the repository, so that it is private and on the same disk.
    _tidied(git.directory)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=git.directory) as folder:
        made = Path(folder)
        top = made / "/".join(git.top.parts[1:])
        top.mkdir(parents=True)
        for place in (made, top) if git.owner is not None else ():
            os.chown(place, git.owner or -1, -1)
        index = made / "index"
        # In a work tree of its own, so that the attributes are those of the commit, not those in use now.
        layout = Git(top, git.directory, git.environ)
        layout("read-tree", commit, index=index)
        layout("checkout-index", "--all", "--force", index=index)
        mistakes = unclean(layout, index, git, commit)
        if mistakes:
            raise InvalidDesiredState(tuple(sorted(mistakes)))
        index.unlink(missing_ok=True)
        _around(made, git.top)
        yield folder, top


def _tidied(directory: Path) -> None:
    """Takes away what a crash has left lying."""
    for left in directory.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _OLD:
                shutil.rmtree(left)


def _around(folder: Path, top: Path) -> None:
    """Links to the neighbours of the directory, and of all folders above it."""
    for inner in (top, *top.parents[:-1]):
        within = folder / "/".join(inner.parent.parts[1:])
        with suppress(OSError):
            for neighbour in inner.parent.iterdir():
                if neighbour != inner and not folder.is_relative_to(neighbour):
                    (within / neighbour.name).symlink_to(neighbour)


def _beside(git: Git, top: Path) -> list[Mistake]:
    """Links to what git does not know; a mistake for each that the commit would be written over."""
    told = git("ls-files", "--others", "--directory", "-z").decode(errors="surrogateescape")
    clashes: list[Mistake] = []
    for name in filter(None, told.split("\0")):
        clashes += _linked(git.top, top, name.rstrip("/"))
    return clashes


def _linked(real: Path, top: Path, name: str) -> Iterator[Mistake]:
    place, source = top / name, real / name
    if not place.exists() and not place.is_symlink():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(source)
    elif place.is_dir() and not place.is_symlink() and source.is_dir() and not source.is_symlink():
        for inner in source.iterdir():
            yield from _linked(real, top, f"{name}/{inner.name}")
    else:
        yield Mistake(name, 0, 0, "lies on the box already, unknown to git there; move it away first")


async def _loaded(directory: Path, folder: str, around: ValidationContext) -> LoadedState:
    async def resolve(files: Sequence[Path], base: Path, project: str) -> Resolved:
        return await around.resolve(files, base, project, without=folder)

    store = Store(directory, resolve, extra_compose=around.extra_compose, environment=around.environment)
    try:
        loaded = await store.load()
    except InvalidDesiredState as error:
        raise InvalidDesiredState(tuple(_plain(mistake, folder) for mistake in error.mistakes)) from None
    warnings = tuple(warning.replace(folder, "") for warning in loaded.stack.warnings)
    stack = replace(loaded.stack, directory=loaded.stack.directory.replace(folder, ""), warnings=warnings)
    return loaded._replace(stack=stack)


def _plain(mistake: Mistake, folder: str) -> Mistake:
    path, message = mistake.path.replace(folder, ""), mistake.message.replace(folder, "")
    return mistake._replace(path=path, message=message)
