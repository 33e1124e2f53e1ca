"""Checks out a commit into a temporary folder, as the desired-state directory would look with it.

Besides the commit's files it has links to the directory's untracked files (``.env``, for example) and, above,
to the directory's neighbours, so that ``../shared/x.yaml`` resolves as usual. Resolved paths contain the
folder; without it they are the real paths.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from reconciler.desired_state.assemble import LoadedState
from reconciler.desired_state.digest_key_file import Resolve
from reconciler.desired_state.store import Store
from reconciler.errors import InvalidDesiredState, Mistake
from reconciler.git.attributes import changed_after_checkout, encoding_mistakes
from reconciler.git.command import Git
from reconciler.git.inspect import tree, unacceptable_files
from reconciler.host.lfs_pointers import pointer_warnings
from reconciler.model.resolved_compose import Resolved

_PREFIX = "service-manager-"
_OLD = 3600.0
"""Seconds after which a temporary folder was left by a crash."""


class ValidationContext(NamedTuple):
    """What validation needs: a resolver, further Compose files, Compose's environment.

    ``path`` is the folder of desired state in the work tree; empty: its top.
    """

    resolve: Resolve
    extra_compose: tuple[Path, ...] = ()
    environment: Mapping[str, str] | None = None
    path: str = ""


async def validate_commit(git: Git, commit: str, around: ValidationContext) -> LoadedState:
    """Return the desired state that a commit would give this directory.

    Raises:
        InvalidDesiredState: with every mistake; unacceptable files are reported alone, before anything else
            is read.
        StepFailed: Docker Compose is missing.
        GitError: git can't read the commit.
    """
    await asyncio.to_thread(_check_files, git, commit)
    # Created and removed in a thread: many small files.
    layout = ExitStack()
    try:
        folder, top = await asyncio.to_thread(layout.enter_context, stage(git, commit))
        clashes = await asyncio.to_thread(_link_untracked, git, top)
        if clashes:
            raise InvalidDesiredState(tuple(clashes))
        return await _loaded(top / around.path, folder, around)
    finally:
        await asyncio.to_thread(layout.close)


def check_checkout(git: Git, commit: str) -> None:
    """Check that a commit can be checked out, without reading its desired state; blocks.

    Raises:
        InvalidDesiredState: with every unacceptable file: links that lead outside, submodules, files that are
            too large, attributes that break git afterwards.
        GitError: git can't read the commit, or check it out.
    """
    _check_files(git, commit)
    with stage(git, commit):
        pass


def _check_files(git: Git, commit: str) -> None:
    files = tree(git, commit)
    mistakes = [*unacceptable_files(git, files), *encoding_mistakes(git, files)]
    if mistakes:
        raise InvalidDesiredState(tuple(sorted(mistakes)))


@contextmanager
def stage(git: Git, commit: str) -> Iterator[tuple[str, Path]]:
    """Yield the temporary folder and the top of the work tree in it, with the commit's files only.

    Raises:
        InvalidDesiredState: files that would count as changed right after the checkout.
        GitError: git can't check it out.
    """
    # Inside the repository: private, and on the same disk.
    _remove_leftovers(git.directory)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=git.directory) as folder:
        made = Path(folder)
        top = made / "/".join(git.top.parts[1:])
        top.mkdir(parents=True)
        for place in (made, top) if git.owner is not None else ():
            os.chown(place, git.owner or -1, -1)
        index = made / "index"
        # A separate work tree, so that git uses the commit's attributes, not the current ones.
        layout = Git(top, git.directory, git.environ)
        layout("read-tree", commit, index=index)
        layout("checkout-index", "--all", "--force", index=index)
        mistakes = changed_after_checkout(layout, index, git, commit)
        if mistakes:
            raise InvalidDesiredState(tuple(sorted(mistakes)))
        index.unlink(missing_ok=True)
        _link_neighbours(made, git.top)
        yield folder, top


def _remove_leftovers(directory: Path) -> None:
    """Remove folders that a crash left."""
    for left in directory.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _OLD:
                shutil.rmtree(left)


def _link_neighbours(folder: Path, top: Path) -> None:
    """Link the neighbours of the directory and of all folders above it."""
    for inner in (top, *top.parents[:-1]):
        within = folder / "/".join(inner.parent.parts[1:])
        with suppress(OSError):
            for neighbour in inner.parent.iterdir():
                if neighbour != inner and not folder.is_relative_to(neighbour):
                    (within / neighbour.name).symlink_to(neighbour)


def _link_untracked(git: Git, top: Path) -> list[Mistake]:
    """Link untracked files; return a mistake for each that the commit would overwrite."""
    listed = git("ls-files", "--others", "--directory", "-z").decode(errors="surrogateescape")
    clashes: list[Mistake] = []
    for name in filter(None, listed.split("\0")):
        clashes += _link(git.top, top, name.rstrip("/"))
    return clashes


def _link(real: Path, top: Path, name: str) -> Iterator[Mistake]:
    place, source = top / name, real / name
    if not place.exists() and not place.is_symlink():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(source)
    elif place.is_dir() and not place.is_symlink() and source.is_dir() and not source.is_symlink():
        for inner in source.iterdir():
            yield from _link(real, top, f"{name}/{inner.name}")
    else:
        yield Mistake(name, 0, 0, "exists on this machine, untracked by git; move it elsewhere first")


async def _loaded(directory: Path, folder: str, around: ValidationContext) -> LoadedState:
    async def resolve(files: Sequence[Path], base: Path, project: str, *, remote: bool = False) -> Resolved:
        return await around.resolve(files, base, project, without=folder, remote=remote)

    store = Store(directory, resolve, extra_compose=around.extra_compose, environment=around.environment)
    try:
        loaded = await store.load()
    except InvalidDesiredState as error:
        raise InvalidDesiredState(tuple(_plain(mistake, folder) for mistake in error.mistakes)) from None
    pointers = await asyncio.to_thread(pointer_warnings, loaded.stack.services.values(), folder)
    warnings = tuple(warning.replace(folder, "") for warning in (*loaded.stack.warnings, *pointers))
    stack = replace(loaded.stack, directory=loaded.stack.directory.replace(folder, ""), warnings=warnings)
    return loaded._replace(stack=stack)


def _plain(mistake: Mistake, folder: str) -> Mistake:
    path, message = mistake.path.replace(folder, ""), mistake.message.replace(folder, "")
    return mistake._replace(path=path, message=message)
