"""The desired-state directory: from files to a validated value, and back by the smallest edit there is.

``load`` reads what one writer meant, never half of it, and either gives a valid ``LoadedState`` or raises
with every mistake there is. Resolving the Compose files costs two tenths of a second, so that is done only
when one of them, or something they name, has changed; an edit of ``groups.yaml`` costs milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from reconciler.desired_state.assemble import (
    LoadedState,
    ParsedFiles,
    assemble,
    replace_groups,
    revision_of,
    sort_mistakes,
)
from reconciler.desired_state.atomic_replace import recover_interrupted
from reconciler.desired_state.git_busy import GitActivity
from reconciler.desired_state.late_writes import LateWrites
from reconciler.desired_state.scan import Scan, Scanner
from reconciler.desired_state.schema import GROUPS, STACK
from reconciler.desired_state.stable_reader import FileBusy
from reconciler.desired_state.transaction import delete_all, replace_all, restore, rollback
from reconciler.desired_state.yaml_edit import apply_edit
from reconciler.errors import InvalidDesiredState, NotReadableNow, ServiceManagerError, WriteRefused
from reconciler.host.untrusted import is_transient
from reconciler.model.desired import Desired, GroupState
from reconciler.model.edit import Edit
from reconciler.model.resolved_compose import Resolved
from reconciler.planning.edits import Rejected, resolve

log = logging.getLogger(__name__)

__all__ = ["LoadedState", "Resolver", "Store", "StoredWrite"]

Resolver = Callable[[Sequence[Path], Path, str], Awaitable[Resolved]]
"""Resolves Compose files (all profiles), given their project directory and project name."""

Sleep = Callable[[float], Awaitable[None]]

Guard = Callable[[], AbstractAsyncContextManager[None]]

_PAUSE = 0.02
_WRITER_PATIENCE = 1.0
_PATIENCE = 5.0
_PASSING_PATIENCE = 0.3
"""Seconds in which a file that can't be read for a passing reason is tried again, before that is said."""
_SMALL = 16 * 1024
"""Bytes of a groups.yaml that is edited within the event loop; a larger one takes tens of milliseconds."""
_REMEMBERED = 4
_WRITES = 20
_OPEN = "another program still has it open for writing; it is read when closed"


class StoredWrite(NamedTuple):
    """Result of a write; ``before`` may contain an edit of the files that was not loaded until now.

    ``groups``: groups that an edit changed, in display order.
    """

    before: LoadedState
    after: LoadedState
    changed: bool
    groups: tuple[str, ...] = ()


class Store:
    """One desired-state directory. Safe to be used by many tasks: loads and writes take turns.

    ``extra_compose`` are Compose files added after those of ``stack.yaml``; ``environment`` is what the
    resolver gives to Compose, for names of files that have variables in them. ``guard`` is entered for the
    time of a write: what else changes the files as a whole (a push) waits, and is waited for.
    ``also`` returns further files to watch; ``inputs_changed`` is called when ``inputs`` returns other files.
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
        self._resolve = resolve
        self._guard = guard
        self._also = also
        self._sleep = sleep
        self._now = now
        self._hold = GitActivity(self.directory, now=now)
        self._latecomers = LateWrites(now)
        self._surveyor = Scanner(self.directory, extra_compose, environment or {})
        self._turn = asyncio.Lock()
        self._resolutions: dict[str, Resolved] = {}
        self._last: tuple[tuple[str, str, tuple[str, ...]], LoadedState] | None = None
        self._inputs: frozenset[Path] = frozenset({self.directory / STACK, self.directory / GROUPS})
        self._inputs_changed = inputs_changed
        self._unforeseen = ""

    def inputs(self) -> frozenset[Path]:
        """The files that the last load looked at, there or not: what is worth watching."""
        return self._inputs | frozenset(self._also())

    async def load(self) -> LoadedState:
        """The directory as it is now.

        Raises:
            InvalidDesiredState: with every mistake; also while a file is being written and not closed.
            NotReadableNow: a file can't be read for a reason that passes; worth another try in a moment.
        """
        async with self._turn:
            try:
                return await self._load()
            finally:
                # Here and not in a write, which somebody waits for.
                if self._latecomers.finished:
                    await asyncio.to_thread(self._latecomers.release)

    async def write(self, edit: Edit) -> StoredWrite:
        """Apply ``edit`` to ``groups.yaml`` by the smallest change of its text. Durable on return.

        The edit is resolved against the files on disk, and again if they change during the write.

        Raises:
            WriteRefused: ``desired_state_invalid``, ``being_written``, ``cannot_edit``, ``not_writable``, or
                the reason for which ``resolve`` rejects the edit; nothing was changed.
        """
        async with self._turn, self._guard():
            for _ in range(_WRITES):
                before = await self._sound()
                states = resolve(edit, before.stack, before.desired)
                if isinstance(states, Rejected):
                    raise WriteRefused(*states)
                after = await self._edited(before, states)
                content = after.sources[GROUPS]
                if content == before.sources[GROUPS]:
                    return StoredWrite(before, before, changed=False)
                if await self._replaced({GROUPS: content}, before.sources):
                    self._expect(after)
                    return StoredWrite(before, after, changed=True, groups=tuple(states))
        raise WriteRefused("being_written", f"{GROUPS} is being changed again and again", "try again")

    async def _edited(self, before: LoadedState, states: Mapping[str, GroupState]) -> LoadedState:
        def made() -> LoadedState:
            content = apply_edit(before.sources[GROUPS], states)
            return before if content == before.sources[GROUPS] else replace_groups(before, content)

        return made() if len(before.sources[GROUPS]) < _SMALL else await asyncio.to_thread(made)

    async def restore(
        self, sources: Mapping[str, bytes], *, gone: Iterable[str] = (), whole: bool = True
    ) -> StoredWrite:
        """Brings back files byte for byte, as ``Generations.sources`` gives them; files not named stay.

        But for those in ``gone``; and where ``sources`` are all that was read then (``whole``), for those
        that would be read beside them now, since they would make another state of it. Should the old files
        not be valid any more (something they need is gone), all is put back as it was.

        Raises:
            WriteRefused: as ``write``; or ``not_restorable``, where the old files are no longer valid.
        """
        async with self._turn, self._guard():
            before = await self._sound()
            then = dict(sources)
            now = {**await asyncio.to_thread(self.on_disk, {*then, *gone}), **before.sources}
            changed = {name: content for name, content in then.items() if now.get(name) != content}
            removed = {name: now[name] for name in gone if name in now and name not in then}
            if not changed and not removed and not (whole and _added(before, then)):
                return StoredWrite(before, before, changed=False)
            if not await self._replaced(changed, now):
                raise _moment()
            try:
                loaded = await self._without(removed)
                added = {name: now[name] for name in _added(loaded, then) if whole and name in now}
                if added:
                    removed |= added
                    loaded = await self._without(added)
            except (InvalidDesiredState, NotReadableNow, WriteRefused) as error:
                await asyncio.to_thread(rollback, self.directory, changed, now)
                await asyncio.to_thread(restore, self.directory, removed)
                if isinstance(error, WriteRefused):
                    raise
                told = f"the files of then are not valid any more: {error}"
                raise WriteRefused("not_restorable", told, "mend the files by hand") from error
            return StoredWrite(before, loaded, changed=True)

    async def _without(self, contents: Mapping[str, bytes]) -> LoadedState:
        try:
            if contents and not await asyncio.to_thread(delete_all, self.directory, contents):
                raise _moment()
        except OSError as error:
            told = f"{error.filename} can't be taken away: {error.strerror}"
            raise WriteRefused("not_writable", told, "see to the permissions of the folder") from error
        return await self._load()

    def on_disk(self, names: Iterable[str]) -> dict[str, bytes]:
        """Those files of the directory that are there, as they are now; for files that are small."""
        found = {}
        for name in names:
            with contextlib.suppress(OSError):
                found[name] = (self.directory / name).read_bytes()
        return found

    def recover_interrupted(self) -> bool:
        """Clears up after a crash in the middle of a write; to be called once, holding the directory's lock.

        True if an edit was saved that would have been lost.
        """
        return recover_interrupted(self.directory / GROUPS)

    def _expect(self, loaded: LoadedState) -> None:
        # The next look finds what was just written, and need not work out again what that means.
        if self._last is not None:
            key, _, notes = self._last[0]
            self._last = ((key, loaded.revision, notes), loaded)

    async def _sound(self) -> LoadedState:
        try:
            return await self._load()
        except NotReadableNow as error:
            raise WriteRefused("not_readable", str(error), "try again in a moment") from error
        except InvalidDesiredState as error:
            told = f"nothing is written over files that are not valid: {error.mistakes[0]}"
            raise WriteRefused(
                "desired_state_invalid", told, "mend the file; `validate` tells all"
            ) from error

    async def _replaced(self, contents: Mapping[str, bytes], before: Mapping[str, bytes]) -> bool:
        try:
            return await asyncio.to_thread(
                replace_all, self.directory, contents, before, self._latecomers.remember
            )
        except FileBusy as error:
            told = f"{error.path.name} is open for writing in another program"
            raise WriteRefused("being_written", told, "close it there, and try again") from error
        except OSError as error:
            raise _not_writable(error, self.directory) from error

    async def _load(self) -> LoadedState:
        """The directory as it is; whatever goes wrong while it is read is one mistake of the directory."""
        try:
            loaded = await self._read()
        except ServiceManagerError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and is_transient(error):
                raise NotReadableNow(f"{self.directory} can't be read at the moment: {error}") from error
            told = f"could not be read: {type(error).__name__}: {error}"[:500]
            if told != self._unforeseen:
                # A bug of this program, so its place is wanted; but once, not at every look.
                log.exception("reading the desired state failed in an unforeseen way")
            self._unforeseen = told
            raise self._surveyor.invalid(self.directory, told) from error
        self._unforeseen = ""
        return loaded

    async def _read(self) -> LoadedState:
        started = self._now()
        while True:
            try:
                looked = await asyncio.to_thread(self._looked)
            except FileBusy as error:
                if self._now() - started > _WRITER_PATIENCE:
                    raise self._surveyor.invalid(error.path, _OPEN) from None
            except NotReadableNow:
                if self._now() - started > _PASSING_PATIENCE:
                    raise
            else:
                if looked is None:
                    await self._sleep(_PAUSE)
                    started = self._now()
                    continue
                survey, steady = looked
                self._remember(survey.inputs)
                known = survey.key in self._resolutions
                resolved = await self._resolved(survey)
                # What Compose had to be asked about took its time, and may have moved meanwhile.
                if steady if known else not await asyncio.to_thread(self._unsteady):
                    if known:
                        return self._judged(survey, resolved)
                    # What Compose made of the files may be megabytes.
                    return await asyncio.to_thread(self._judged, survey, resolved)
                if self._now() - started > _PATIENCE:
                    raise self._surveyor.invalid(
                        self.directory, "the files keep changing while they are read"
                    )
            await self._sleep(_PAUSE)

    def _looked(self) -> tuple[Scan, bool] | None:
        """A survey, and whether nothing moved while it was made; None while git is at work.

        All in one turn of a thread: on a busy machine each turn costs milliseconds.
        """
        if self._hold.current_operation() is not None:
            return None
        with contextlib.suppress(OSError):
            self._latecomers.recover()
        survey = self._surveyor.scan()
        return survey, not self._unsteady()

    def _unsteady(self) -> bool:
        return self._hold.current_operation() is not None or self._surveyor.has_changed()

    def _remember(self, compose: Iterable[Path]) -> None:
        inputs = frozenset({self.directory / STACK, self.directory / GROUPS, *compose})
        if inputs != self._inputs:
            self._inputs = inputs
            self._inputs_changed()

    async def _resolved(self, survey: Scan) -> Resolved | InvalidDesiredState | None:
        # A failure is not remembered: it may lie in a file that the scan for inputs did not find.
        if not survey.project or not survey.compose or survey.mistakes:
            return None
        known = self._resolutions.get(survey.key)
        if known:
            return known
        try:
            return await self._resolve(survey.compose, survey.compose[0].parent, survey.project)
        except InvalidDesiredState as error:
            return InvalidDesiredState(self._surveyor.relative_paths(error.mistakes))

    def _judged(self, survey: Scan, resolved: Resolved | InvalidDesiredState | None) -> LoadedState:
        mistakes = [*survey.parsed.mistakes, *survey.mistakes]
        if not isinstance(resolved, Resolved):
            raise InvalidDesiredState(sort_mistakes([*mistakes, *(resolved.mistakes if resolved else ())]))
        self._resolutions = dict([*self._resolutions.items(), (survey.key, resolved)][-_REMEMBERED:])
        notes = self._hold.stale_signs()
        identity = (survey.key, revision_of(survey.sources), notes)
        if self._last is None or self._last[0] != identity:
            parsed = survey.parsed._replace(mistakes=tuple(mistakes))
            self._last = (identity, self._assembled(parsed, survey, resolved, notes))
        return self._last[1]

    def _assembled(
        self, parsed: ParsedFiles, survey: Scan, resolved: Resolved, notes: tuple[str, ...]
    ) -> LoadedState:
        stack, groups = assemble(parsed, resolved, str(survey.compose[0].parent), notes)
        stack = replace(stack, files=tuple(map(str, survey.compose)))
        revision = revision_of(survey.sources)
        return LoadedState(
            stack, Desired(groups=groups, revision=revision), revision, survey.sources, resolved
        )


def _not_writable(error: OSError, directory: Path) -> WriteRefused:
    told = f"{error.filename or directory} can't be written: {error.strerror}"
    if error.errno == errno.EBUSY:
        told, remedy = f"{told} (a file mounted on its own can't be replaced)", "mount its folder instead"
        return WriteRefused("not_writable", told, remedy)
    return WriteRefused("not_writable", told, "see to the disk and its permissions")


def _moment() -> WriteRefused:
    return WriteRefused("being_written", "the files changed in the very moment", "try again")


def _added(loaded: LoadedState, then: Mapping[str, bytes]) -> set[str]:
    """What is read now, lies in the directory, and was not read then."""
    return {name for name in loaded.sources if name not in then and not Path(name).is_absolute()}
