"""The desired-state directory: loads it, and writes edits as the smallest possible changes of its files."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import NamedTuple

from reconciler.desired_state.assemble import LoadedState
from reconciler.desired_state.atomic_replace import recover_interrupted
from reconciler.desired_state.late_writes import LateWrites
from reconciler.desired_state.loader import Loader, Resolver, Sleep
from reconciler.desired_state.schema import GROUPS
from reconciler.desired_state.stable_reader import FileBusy
from reconciler.desired_state.transaction import delete_all, replace_all, restore, rollback
from reconciler.desired_state.yaml_edit import apply_edit
from reconciler.errors import InvalidDesiredState, NotReadableNow, WriteRefused
from reconciler.host.untrusted import read_regular
from reconciler.model.desired import GroupState
from reconciler.model.edit import Edit
from reconciler.planning.edits import Rejected, resolve

log = logging.getLogger(__name__)

__all__ = ["LoadedState", "Resolver", "Store", "StoredWrite"]

Guard = Callable[[], AbstractAsyncContextManager[None]]

_SMALL = 16 * 1024
"""Size in bytes of a ``groups.yaml`` that is edited in the event loop; a larger one takes over 10 ms."""

_WRITES = 20
"""Attempts to write while the files keep changing."""


class StoredWrite(NamedTuple):
    """Result of a write. ``before`` includes edits of the files that no earlier load has read.

    ``groups``: groups that an edit changed, in display order.
    """

    before: LoadedState
    after: LoadedState
    changed: bool
    groups: tuple[str, ...] = ()


class Store:
    """One desired-state directory. Many tasks may use it: loads and writes take turns.

    ``extra_compose`` are Compose files added after those of ``stack.yaml``; ``environment`` is what the
    resolver gives to Compose, for names of files that have variables in them. ``guard`` is entered for the
    time of a write, and excludes other writers of several files, such as a push. ``also`` returns further
    files to watch; ``inputs_changed`` is called when ``inputs`` returns other files.
    """

    def __init__(
        self,
        directory: Path,
        resolve: Resolver,
        *,
        extra_compose: Sequence[Path] = (),
        environment: Mapping[str, str] | None = None,
        guard: Guard = contextlib.nullcontext,
        also: Callable[[], Iterable[Path]] = tuple,
        inputs_changed: Callable[[], None] = lambda: None,
        sleep: Sleep = asyncio.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.directory = directory.absolute()
        self._guard = guard
        self._also = also
        self._turn = asyncio.Lock()
        self._late_writes = LateWrites(now)
        self._loader = Loader(
            self.directory,
            resolve,
            self._late_writes,
            extra_compose=extra_compose,
            environment=environment or {},
            inputs_changed=inputs_changed,
            sleep=sleep,
            now=now,
        )

    def inputs(self) -> frozenset[Path]:
        """Return the files to watch: those that the last load looked for, existing or not, and ``also``."""
        return self._loader.inputs | frozenset(self._also())

    async def load(self) -> LoadedState:
        """Return the current state of the directory; raises as ``Loader.load``."""
        async with self._turn:
            try:
                return await self._loader.load()
            finally:
                # Release here and not in a write: it takes disk time, and a write has a waiting caller.
                if self._late_writes.finished:
                    await asyncio.to_thread(self._late_writes.release)

    async def write(self, edit: Edit) -> StoredWrite:
        """Apply ``edit`` to ``groups.yaml`` by the smallest change of its text. Durable on return.

        The edit is resolved against the files on disk, and again if they change during the write.

        Raises:
            WriteRefused: ``desired_state_invalid``, ``being_written``, ``cannot_edit``, ``not_writable``, or
                the reason for which ``resolve`` rejects the edit; nothing was changed.
        """
        async with self._turn, self._guard():
            for _ in range(_WRITES):
                before = await self._load_for_write()
                states = resolve(edit, before.stack, before.desired)
                if isinstance(states, Rejected):
                    raise WriteRefused(*states)
                after = await self._edited(before, states)
                content = after.sources[GROUPS]
                if content == before.sources[GROUPS]:
                    return StoredWrite(before, before, changed=False)
                if await self._replace({GROUPS: content}, before.sources):
                    self._loader.expect(after)
                    return StoredWrite(before, after, changed=True, groups=tuple(states))
        raise WriteRefused("being_written", f"{GROUPS} keeps changing", "try again")

    async def _edited(self, before: LoadedState, states: Mapping[str, GroupState]) -> LoadedState:
        content = before.sources[GROUPS]
        if len(content) < _SMALL:
            result = apply_edit(content, states)
        else:
            result = await asyncio.to_thread(apply_edit, content, states)
        return before if result.content == content else before.with_groups(result.content, result.states)

    async def restore(
        self, sources: Mapping[str, bytes], *, gone: Iterable[str] = (), whole: bool = True
    ) -> StoredWrite:
        """Restore files byte for byte, by name as in ``LoadedState.sources``, and delete those in ``gone``.

        With ``whole``, ``sources`` are all files of the restored state: a further file of the directory that
        a load would read is deleted, since it would change that state. Other files stay. If the restored
        files are not valid (a file that they need is missing), everything is rolled back.

        Files that are not below the directory stay as they are: other programs may use them.

        Raises:
            WriteRefused: as ``write``; or ``not_restorable``: the old files are no longer valid.
        """
        async with self._turn, self._guard():
            before = await self._load_for_write()
            restored = await asyncio.to_thread(self._below, sources)
            current = {**await asyncio.to_thread(self.on_disk, {*restored, *gone}), **before.sources}
            changed = {name: content for name, content in restored.items() if current.get(name) != content}
            removed = {name: current[name] for name in gone if name in current and name not in restored}
            if not changed and not removed and not (whole and _added(before, sources)):
                return StoredWrite(before, before, changed=False)
            if not await self._replace(changed, current):
                raise _files_changed()
            try:
                loaded = await self._load_without(removed)
                unwanted = {name: current[name] for name in _added(loaded, sources) if name in current}
                added = await asyncio.to_thread(self._below, unwanted) if whole else {}
                if added:
                    removed |= added
                    loaded = await self._load_without(added)
            except (InvalidDesiredState, NotReadableNow, WriteRefused) as error:
                await asyncio.to_thread(rollback, self.directory, changed, current)
                await asyncio.to_thread(restore, self.directory, removed)
                if isinstance(error, WriteRefused):
                    raise
                message = f"that generation's files are no longer valid: {error}"
                raise WriteRefused("not_restorable", message, "correct the files by hand") from error
            return StoredWrite(before, loaded, changed=True)

    def is_below(self, name: str) -> bool:
        """Return whether a file is below the directory, with links followed."""
        with contextlib.suppress(OSError, RuntimeError):
            return (self.directory / name).resolve().is_relative_to(self.directory.resolve())
        return False

    def _below(self, sources: Mapping[str, bytes]) -> dict[str, bytes]:
        below = {name: content for name, content in sources.items() if self.is_below(name)}
        now = self.on_disk(set(sources) - set(below))
        outside = sorted(name for name in sources if name not in below and now.get(name) != sources[name])
        if outside:
            extra = {"files": outside}
            log.warning("files outside the desired-state directory are not restored", extra=extra)
        return below

    def on_disk(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return the content of each named file that exists. Reads whole files, so they should be small."""
        contents = {}
        for name in names:
            with contextlib.suppress(OSError):
                contents[name] = read_regular(self.directory / name)
        return contents

    def recover_interrupted(self) -> bool:
        """Clean up after a crash during a write; return True if this restored a concurrent edit.

        Call it once, with the directory locked.
        """
        return recover_interrupted(self.directory / GROUPS)

    async def _load_for_write(self) -> LoadedState:
        try:
            return await self._loader.load()
        except NotReadableNow as error:
            raise WriteRefused("not_readable", str(error), "try again in a moment") from error
        except InvalidDesiredState as error:
            message = f"files that are not valid are not overwritten: {error.mistakes[0]}"
            remedy = "correct the file; `validate` shows all mistakes"
            raise WriteRefused("desired_state_invalid", message, remedy) from error

    async def _load_without(self, contents: Mapping[str, bytes]) -> LoadedState:
        """Delete files and load the rest."""
        try:
            if contents and not await asyncio.to_thread(delete_all, self.directory, contents):
                raise _files_changed()
        except OSError as error:
            message = f"{error.filename} can't be deleted: {error.strerror}"
            raise WriteRefused("not_writable", message, "check the permissions of the folder") from error
        return await self._loader.load()

    async def _replace(self, contents: Mapping[str, bytes], before: Mapping[str, bytes]) -> bool:
        try:
            return await asyncio.to_thread(
                replace_all, self.directory, contents, before, self._late_writes.remember
            )
        except FileBusy as error:
            message = f"{error.path.name} is open for writing in another program"
            raise WriteRefused("being_written", message, "close it there, and try again") from error
        except OSError as error:
            raise _not_writable(error, self.directory) from error


def _not_writable(error: OSError, directory: Path) -> WriteRefused:
    message = f"{error.filename or directory} can't be written: {error.strerror}"
    if error.errno == errno.EBUSY:
        message += " (a file mounted on its own can't be replaced)"
        return WriteRefused("not_writable", message, "mount its folder instead")
    return WriteRefused("not_writable", message, "check free space and permissions")


def _files_changed() -> WriteRefused:
    return WriteRefused("being_written", "the files changed during the write", "try again")


def _added(loaded: LoadedState, restored: Mapping[str, bytes]) -> set[str]:
    """Return the names of the files inside the directory that ``loaded`` has and ``restored`` lacks."""
    return {name for name in loaded.sources if name not in restored and not Path(name).is_absolute()}
