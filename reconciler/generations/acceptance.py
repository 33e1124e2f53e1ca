"""How desired state comes in: read, numbered, made durable, handed to the loop. One at a time.

A file that changed and a request that changes a file take the same way; both end in ``Loop.set_target``.
Bad files stop nothing: the loop goes on with the last good state and readers are told what is wrong.

What a request changes goes to the disk step by step, each safe before the next one begins: the file, the
generation, the entry of the audit log; then the loop hears of it, then the caller. So it is known what a
crash leaves. Before the file: all as it was. Behind it: an edit that nobody signed, taken in as such by the
next run. Behind the generation: the change, with who made it; the next run makes up for the entry
(``audit_session``). Behind the entry: all but the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Container, Mapping
from concurrent.futures import Future, wait
from dataclasses import replace
from typing import NamedTuple, Protocol

from reconciler.audit import events
from reconciler.audit.chain import AuditEvent
from reconciler.controller.loop import Loop
from reconciler.desired_state.store import LoadedState, Store, StoredWrite
from reconciler.errors import EngineError, InvalidDesiredState, Mistake, NotReadableNow, WriteRefused
from reconciler.generations.edits import Changes, EditFunction, GroupEdit, WriteResult
from reconciler.generations.outcomes import ended as ended_of
from reconciler.generations.store import AcceptedState, Generations
from reconciler.host.untrusted import is_transient
from reconciler.model.desired import GroupState, Suspension

log = logging.getLogger(__name__)

_ENDS = frozenset({"converged", "degraded"})

BY_FILE = "file"
"""The author of an edit that nobody signed: somebody saved a file."""


EDITED = "edited"
"""Why, of such an edit."""

_LOOKS = 5

_HEAD_START = 0.1
"""Seconds that the loop hears later of a change at most, while the audit log takes it in."""

Record = Callable[[AuditEvent], "Future[bool]"]
"""Puts a fact into the audit log; the future is done when it is on the disk, or can't be."""


class ChangeOrigin(NamedTuple):
    """Who made the files what they are, and why; ``commit``: the git commit that holds all of it, if any."""

    author: str
    reason: str
    commit: str = ""


class WorkTree(Protocol):
    """What is known of the directory as a git work tree; ``reconciler.git.work_tree.GitTree`` is one."""

    async def look(self) -> str:
        """Wait for a push under way, and look where the tree stands; the commit, '' for none."""

    async def origin(self, loaded: LoadedState) -> ChangeOrigin:
        """Where files come from that were read between two looks."""

    def accepted(self) -> None:
        """A state was accepted: there may be something to commit."""

    def refused(self) -> WriteRefused | None:
        """Why nothing may be written here, None: it may."""

    def warnings(self) -> tuple[str, ...]:
        """What a person should know of it."""

    def mistakes(self) -> tuple[Mistake, ...]:
        """What is wrong with commits that wait to be taken in."""


class NullWorkTree:
    """A directory without git."""

    async def look(self) -> str:
        """See ``WorkTree``."""
        return ""

    async def origin(self, _loaded: LoadedState) -> ChangeOrigin:
        """See ``WorkTree``."""
        return ChangeOrigin(BY_FILE, EDITED)

    def accepted(self) -> None:
        """See ``WorkTree``."""

    def refused(self) -> WriteRefused | None:
        """See ``WorkTree``."""
        return None

    def warnings(self) -> tuple[str, ...]:
        """See ``WorkTree``."""
        return ()

    def mistakes(self) -> tuple[Mistake, ...]:
        """See ``WorkTree``."""
        return ()


class RestoreSet(NamedTuple):
    """Files as they were once: ``sources`` by name as in ``LoadedState``, and those that did not exist
    (``gone``).

    ``whole``: ``sources`` are all that was read at that time.
    """

    sources: Mapping[str, bytes]
    gone: tuple[str, ...] = ()
    whole: bool = True


def audit_unavailable(_: AuditEvent) -> Future[bool]:
    """Where there is no audit log."""
    done: Future[bool] = Future()
    done.set_result(False)
    return done


class Acceptor:
    """Implements ``changes.Writer``. ``wall`` gives the time of day in seconds since the epoch."""

    def __init__(
        self,
        store: Store,
        generations: Generations,
        loop: Loop,
        *,
        wall: Callable[[], float],
        record: Record = audit_unavailable,
        tree: WorkTree | None = None,
    ) -> None:
        self._store = store
        self._generations = generations
        self._loop = loop
        self._wall = wall
        self._record = record
        self._tree = tree or NullWorkTree()
        self._recorded: Future[bool] | None = None
        self._rejected: tuple[Mistake, ...] = ()
        self._missed = ""
        self._taken: tuple[LoadedState, AcceptedState] | None = None
        self._turn = asyncio.Lock()

    @property
    def reading(self) -> bool:
        """Whether files are being taken in: what is wanted may be about to change."""
        return self._turn.locked()

    async def restore_last(self) -> None:
        """Begin with the last good state, so that a broken directory or a slow Compose delays nothing."""
        try:
            accepted = await asyncio.to_thread(self._generations.latest)
            if accepted is not None:
                self._adopt(accepted)
        except Exception:
            # The files are read next, and most likely hold the same.
            log.exception("the last good state can't be used")

    @property
    def missed(self) -> bool:
        """Whether something could not be read for a reason that passes: reload again in a moment."""
        return bool(self._missed)

    async def reload(self) -> None:
        """Take in what is on disk now. Never raises: whatever goes wrong, the last good state stays."""
        async with self._turn:
            try:
                await self._reload()
            except InvalidDesiredState as error:
                self._broken(error.mistakes)
            except NotReadableNow as error:
                self._not_now(str(error))
                return
            except EngineError as error:
                # Compose itself is not to be had: said like a mistake, since nothing can be read without it.
                self._broken((Mistake(str(self._store.directory), 0, 0, str(error)),))
            except Exception as error:
                if isinstance(error, OSError) and is_transient(error):
                    self._not_now(str(error))
                    return
                told = f"could not be taken in: {type(error).__name__}: {error}"[:500]
                mistakes = (Mistake(str(self._store.directory), 0, 0, told),)
                if mistakes != self._rejected:
                    log.exception("taking in the desired state failed in an unforeseen way")
                self._broken(mistakes)
            self._missed = ""

    async def _reload(self) -> None:
        loaded, origin = await self._with_origin()
        # Reported by then; what can't be kept now is taken in at the next look.
        with contextlib.suppress(WriteRefused):
            await self._accept(loaded, origin.author, origin.reason, commit=origin.commit)

    def _not_now(self, why: str) -> None:
        if why != self._missed:
            self._missed = why
            log.warning("the desired state can't be read at the moment", extra={"error": why})
        self._loop.report_mistakes((*self._rejected, *self._tree.mistakes()), (*self._warnings(), why))

    async def _with_origin(self) -> tuple[LoadedState, ChangeOrigin]:
        """The files, and where they come from: both of the same moment, though a push may come in between."""
        head = await self._tree.look()
        for _ in range(_LOOKS):
            loaded = await self._store.load()
            before, head = head, await self._tree.look()
            if before == head:
                break
        return loaded, await self._tree.origin(loaded)

    async def write(self, decide: EditFunction, *, author: str, reason: str, source: str = "") -> WriteResult:
        """See ``changes.Writer.write``."""
        asked: dict[str, GroupEdit] = {}

        def edit(loaded: LoadedState) -> dict[str, GroupState]:
            changes: Changes = decide(loaded.stack, loaded.desired)
            asked.clear()
            asked.update(changes)
            groups = loaded.desired.groups
            return {name: _applied(groups[name], change) for name, change in changes.items()}

        self._may_write()
        async with self._turn:
            written = await self._store.write(edit)
            _, accepted = await self._kept(written, author, reason, source)
            recorded = self._recorded
        if accepted.fresh:
            await _done(recorded)
        return self._receipt(accepted, asked, changed=written.changed)

    async def restore(self, then: RestoreSet, *, author: str, reason: str, source: str = "") -> WriteResult:
        """Bring back files of an earlier time, as a new generation; raises as ``Store.restore``."""
        self._may_write()
        async with self._turn:
            written = await self._store.restore(then.sources, gone=then.gone, whole=then.whole)
            before, accepted = await self._kept(written, author, reason, source)
            recorded = self._recorded
        if accepted.fresh:
            await _done(recorded)
        touched = events.changed_groups(_meant(before), _meant(accepted))
        return self._receipt(accepted, touched, changed=written.changed)

    def _may_write(self) -> None:
        refused = self._tree.refused()
        if refused is not None:
            raise refused

    def on_disk(self, then: RestoreSet) -> Mapping[str, bytes]:
        """The files of ``then`` as they are now; blocks."""
        return self._store.on_disk({*then.sources, *then.gone})

    def _receipt(self, accepted: AcceptedState, groups: Container[str], *, changed: bool) -> WriteResult:
        now = self._wall()
        states = accepted.desired.groups
        return WriteResult(
            generation=accepted.desired.generation,
            changed=changed and accepted.fresh,
            groups=tuple(name for name in accepted.stack.groups if name in groups),
            suspended=tuple(name for name, state in states.items() if state.suspended(now)),
        )

    async def _kept(
        self, written: StoredWrite, author: str, reason: str, source: str
    ) -> tuple[AcceptedState, AcceptedState]:
        """Accept what a write began from and what it made; what can't be kept is taken back.

        A refusal means that nothing changed, on the disk either.
        """
        try:
            before = accepted = await self._unread(written.before)
            if written.changed:
                accepted = await self._accept(written.after, author, reason, source)
        except WriteRefused:
            if written.changed:
                with contextlib.suppress(WriteRefused):
                    await self._store.restore(written.before.sources)
            raise
        return before, accepted

    async def _unread(self, loaded: LoadedState) -> AcceptedState:
        """Accept what a write began from; an edit that nobody had read yet is a generation of its own."""
        if self._taken is not None and self._taken[0] is loaded:
            return self._taken[1]
        held = self._loop.target
        if held is not None and held[1].revision == loaded.revision:
            return await self._accept(loaded, BY_FILE, EDITED)
        await self._tree.look()
        origin = await self._tree.origin(loaded)
        return await self._accept(loaded, origin.author, origin.reason, commit=origin.commit)

    async def _accept(
        self, loaded: LoadedState, author: str, reason: str, source: str = "", commit: str = ""
    ) -> AcceptedState:
        before, at = self._loop.target, self._wall()

        def kept() -> tuple[AcceptedState, Future[bool] | None]:
            accepted = self._generations.record(loaded, author=author, reason=reason, at=at, commit=commit)
            if not accepted.fresh:
                return accepted, None
            fact = events.accepted(
                reason,
                user=author,
                source=source,
                generation=accepted.desired.generation,
                groups=events.changed_groups(before, (accepted.stack, accepted.desired)),
                changes=accepted.changes,
                at=at,
            )
            recorded = self._record(fact)
            # Before the loop hears of it: what that does about it stands behind it in the log, and takes the
            # interpreter from the log's thread. But a log that can't be written holds up no converging.
            wait([recorded], timeout=_HEAD_START)
            return accepted, recorded

        try:
            accepted, recorded = await asyncio.to_thread(kept)
        except OSError as error:
            told = f"the state directory can't be written: {error.strerror}"
            self._loop.report_mistakes((), (told,))
            raise WriteRefused("state_not_writable", told, "make room or mend the file system") from error
        if accepted.fresh:
            self._recorded = recorded
            changes = "; ".join(accepted.changes)
            log.info(
                "desired state accepted",
                extra={"generation": accepted.desired.generation, "author": author, "changes": changes},
            )
        self._rejected = ()
        # The same files are the very same object, as long as nothing is read that is not valid.
        self._taken = loaded, accepted._replace(fresh=False)
        self._adopt(accepted)
        self._loop.report_mistakes(self._tree.mistakes(), self._warnings())
        self._tree.accepted()
        return accepted

    def _warnings(self) -> tuple[str, ...]:
        return (*self._generations.warnings(), *self._tree.warnings())

    def _adopt(self, accepted: AcceptedState) -> None:
        held = self._loop.target
        if held is not None and held == (accepted.stack, accepted.desired):
            return
        generation = accepted.desired.generation
        record = next((r for r in self._generations.history() if r.generation == generation), None)
        ended = ended_of(record, generation) if record is not None and record.outcome in _ENDS else None
        at = record.at if record is not None else self._wall()
        self._loop.set_target(accepted.stack, accepted.desired, accepted_at=at, ended=ended)

    def _broken(self, mistakes: tuple[Mistake, ...]) -> None:
        self._taken = None
        for mistake in mistakes:
            log.error("the desired state is not valid", extra={"mistake": str(mistake)})
        if mistakes != self._rejected:
            self._rejected = mistakes
            target = self._loop.target
            generation = target[1].generation if target else 0
            self._record(events.rejected(mistakes, user=BY_FILE, generation=generation, at=self._wall()))
        self._loop.report_mistakes((*mistakes, *self._tree.mistakes()), self._warnings())


async def _done(recorded: Future[bool] | None) -> None:
    if recorded is not None and not recorded.done():
        # Others take their turn meanwhile; entries are written in the order of generations all the same.
        await asyncio.wrap_future(recorded)


def _meant(accepted: AcceptedState) -> events.Target:
    return accepted.stack, accepted.desired


def _applied(state: GroupState, change: GroupEdit) -> GroupState:
    """The entry as it is to read; what the change leaves open stays."""
    suspend = state.suspend
    if change.suspend is False:
        suspend = None
    elif change.suspend is True:
        suspend = Suspension()
    elif change.suspend is not None:
        suspend = change.suspend
    return replace(
        state,
        on=state.on if change.on is None else change.on,
        force=state.force if change.force is None else change.force,
        restarted_at=state.restarted_at if change.restarted_at is None else change.restarted_at,
        suspend=suspend,
        accepted_at=state.accepted_at if change.accepted_at is None else change.accepted_at,
    )
