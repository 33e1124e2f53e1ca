"""Write and delete several whole files: all, or none if one fails."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from reconciler.desired_state.atomic_replace import OnReplaced, atomic_replace
from reconciler.desired_state.schema import GROUPS, STACK
from reconciler.desired_state.stable_reader import FileBusy
from reconciler.host.atomic_files import sync_directory
from reconciler.host.untrusted import read_regular


def replace_all(
    directory: Path,
    contents: Mapping[str, bytes],
    before: Mapping[str, bytes],
    on_replaced: OnReplaced | None = None,
) -> bool:
    """Write files, by name as in ``LoadedState.sources``; return False if one differs from ``before``.

    Writes ``groups.yaml`` last, so that the intermediate state switches nothing on. On False and on errors
    no file is changed.

    Raises:
        FileBusy, OSError: as ``atomic_replace``.
    """
    done: list[str] = []
    try:
        for name in _write_order(contents):
            if not _replace_or_create(directory / name, before.get(name), contents[name], on_replaced):
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
    """Undo ``replace_all``; files that were changed since stay."""
    for name in reversed(_write_order(contents)):
        with suppress(OSError, FileBusy):
            old = before.get(name)
            if old is None:
                (directory / name).unlink()
            else:
                atomic_replace(directory / name, contents[name], old)


def _replace_or_create(
    path: Path, old: bytes | None, new: bytes, on_replaced: OnReplaced | None = None
) -> bool:
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
    """Delete files that hold ``contents``; return False, with no file deleted, if one holds something else.

    Raises:
        OSError: a file can't be deleted; no file is deleted.
    """
    done: list[str] = []
    try:
        for name, content in contents.items():
            if read_regular(directory / name) != content:
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
    """Undo ``delete_all``; files that were created since stay."""
    for name, content in contents.items():
        with suppress(OSError):
            _replace_or_create(directory / name, None, content)


def _mode(path: Path) -> int:
    # The mode of deleted files is not stored; a file of variables may hold passwords.
    return 0o600 if "env" in path.name or "secret" in path.name else 0o666


def _write_order(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: (name == GROUPS, name == STACK, name))
