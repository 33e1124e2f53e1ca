"""Writes of the store that concern whole files: several at once, undone together where one fails."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from reconciler.desired_state.atomic_replace import OnReplaced, atomic_replace
from reconciler.desired_state.schema import GROUPS, STACK
from reconciler.desired_state.stable_reader import FileBusy
from reconciler.host.atomic_files import sync_directory


def replace_all(
    directory: Path,
    contents: Mapping[str, bytes],
    before: Mapping[str, bytes],
    on_replaced: OnReplaced | None = None,
) -> bool:
    """Writes files, by name as in ``LoadedState.sources``; all or none. False: one was no longer as
    ``before``.

    ``groups.yaml`` comes last, so that the state in between is one that switches nothing on.

    Raises:
        StillWritten, OSError: as ``atomic_replace``; none is changed then.
    """
    done: list[str] = []
    try:
        for name in _in_order(contents):
            if not _one(directory / name, before.get(name), contents[name], on_replaced):
                break
            done.append(name)
        else:
            return True
    except BaseException:
        rollback(directory, {name: contents[name] for name in done}, before)
        raise
    rollback(directory, {name: contents[name] for name in done}, before)
    return False


def rollback(directory: Path, contents: Mapping[str, bytes], before: Mapping[str, bytes]) -> None:
    """Takes ``replace_all`` back; a file that somebody changed since is left to them."""
    for name in reversed(_in_order(contents)):
        with suppress(OSError, FileBusy):
            old = before.get(name)
            if old is None:
                (directory / name).unlink()
            else:
                atomic_replace(directory / name, contents[name], old)


def _one(path: Path, old: bytes | None, new: bytes, on_replaced: OnReplaced | None = None) -> bool:
    if old is not None:
        return atomic_replace(path, old, new, on_replaced)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _mode(path)), "wb") as file:
            file.write(new)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return False
    sync_directory(path.parent)
    return True


def delete_all(directory: Path, contents: Mapping[str, bytes]) -> bool:
    """Takes files away that hold what ``contents`` says; all or none. False: one held something else.

    Raises:
        OSError: one can't be taken away; none is then.
    """
    done: list[str] = []
    try:
        for name, content in contents.items():
            if (directory / name).read_bytes() != content:
                break
            (directory / name).unlink()
            done.append(name)
        else:
            return True
    except BaseException:
        restore(directory, {name: contents[name] for name in done})
        raise
    restore(directory, {name: contents[name] for name in done})
    return False


def restore(directory: Path, contents: Mapping[str, bytes]) -> None:
    """Takes ``delete_all`` back; where another file stands by now, that stays."""
    for name, content in contents.items():
        with suppress(OSError):
            _one(directory / name, None, content)


def _mode(path: Path) -> int:
    # What a file's mode was is not kept; one of variables may hold passwords.
    return 0o600 if "env" in path.name or "secret" in path.name else 0o666


def _in_order(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: (name == GROUPS, name == STACK, name))
