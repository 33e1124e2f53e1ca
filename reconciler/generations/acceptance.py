"""Accepts desired state: reads it, numbers it, makes it durable and hands it to the loop. One at a time.

Changed files and write requests take the same path; both end in ``Loop.set_target``. Invalid files stop
nothing: the loop continues with the last valid state, and the mistakes are reported.

A write request is stored in steps, each durable before the next: the file, the generation, the audit entry.
Then the loop adopts it, then the caller gets the result. A crash therefore leaves a known state. Before the
file: no change. After it: an edit without an author, accepted as such by the next run. After the generation:
the change and its author; the next run adds the audit entry (``audit_session``). After the entry: everything
but the response.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Container, Mapping
from concurrent.futures import Future, wait
from typing import NamedTuple, Protocol

from reconciler.audit import events
from reconciler.audit.chain import AuditEvent
from reconciler.controller.loop import Loop
from reconciler.desired_state.store import LoadedState, Store, StoredWrite
from reconciler.errors import EngineError, InvalidDesiredState, Mistake, NotReadableNow, WriteRefused
from reconciler.generations.outcomes import ended as ended_of
from reconciler.generations.store import AcceptedState, Generations
from reconciler.generations.writes import WriteResult
from reconciler.host.untrusted import is_transient
from reconciler.model.edit import Edit

log = logging.getLogger(__name__)

_ENDS = frozenset({"converged", "degraded"})

BY_FILE = "file"
"""Author of an edit of the files, which names no author."""


EDITED = "edited"
"""Reason of such an edit."""

_LOOKS = 5

_HEAD_START = 0.1
"""Maximum delay in seconds before the loop adopts a change, to let the audit log write it first."""

Record = Callable[[AuditEvent], "Future[bool]"]
"""Appends an event to the audit log; the future is done once it is on disk, or has failed."""


class ChangeOrigin(NamedTuple):
    """Author and reason of a change; ``commit``: the git commit that contains all of it, if any."""

    author: str
    reason: str
    commit: str = ""


class WorkTree(Protocol):
    """The directory as a git work tree; ``reconciler.git.work_tree.GitTree`` implements it."""

    async def look(self) -> str:
        """Wait for a running push, then return the commit that is checked out, '' for none."""

    async def origin(self, loaded: LoadedState) -> ChangeOrigin:
        """Return the origin of files that were read between two calls of ``look``."""

    def accepted(self) -> None:
        """A state was accepted: there may be changes to commit."""

    def refused(self) -> WriteRefused | None:
        """Return why the directory may not be written, None if it may."""

    def warnings(self) -> tuple[str, ...]:
        """Return warnings about the work tree, for people."""

    def mistakes(self) -> tuple[Mistake, ...]:
        """Return mistakes in commits that are not accepted."""


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
    """Files of an earlier state: contents by name as in ``LoadedState``, and files to delete (``gone``).

    ``whole``: ``sources`` contains every file that was read then.
    """

    sources: Mapping[str, bytes]
    gone: tuple[str, ...] = ()
    whole: bool = True


def audit_unavailable(_: AuditEvent) -> Future[bool]:
    """Stand in for a missing audit log: return a future that is done, with False."""
    done: Future[bool] = Future()
    done.set_result(False)
    return done


class Acceptor:
    """Implements ``writes.Writer``. ``wall`` returns wall time in seconds since the epoch.

    ``turn`` is locked while files are read or written, when desired state may be about to change.
    """

    def __init__(
        self,
        store: Store,
        generations: Generations,
        loop: Loop,
        *,
        wall: Callable[[], float],
        record: Record = audit_unavailable,
        tree: WorkTree | None = None,
        turn: asyncio.Lock | None = None,
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
        self._turn = turn or asyncio.Lock()

    async def restore_last(self) -> None:
        """Start with the last valid state, so that invalid files or a slow Compose delay nothing."""
        try:
            accepted = await asyncio.to_thread(self._generations.latest)
            if accepted is not None:
                self._adopt(accepted)
        except Exception:
            # The files are read next, and most likely have the same content.
            log.exception("the last valid state can't be restored")

    @property
    def missed(self) -> bool:
        """Whether the last reload failed for a temporary reason, so that it should be retried soon."""
        return bool(self._missed)

    async def reload(self) -> None:
        """Read and accept the files on disk. Never raises: on any error the last valid state stays."""
        async with self._turn:
            try:
                await self._reload()
            except InvalidDesiredState as error:
                self._broken(error.mistakes)
            except NotReadableNow as error:
                self._not_now(str(error))
                return
            except EngineError as error:
                # Without Compose no file can be resolved, so its absence is reported like a mistake.
                self._broken((Mistake(str(self._store.directory), 0, 0, str(error)),))
            except Exception as error:
                if isinstance(error, OSError) and is_transient(error):
                    self._not_now(str(error))
                    return
                message = f"could not be accepted: {type(error).__name__}: {error}"[:500]
                mistakes = (Mistake(str(self._store.directory), 0, 0, message),)
                if mistakes != self._rejected:
                    log.exception("accepting the desired state failed unexpectedly")
                self._broken(mistakes)
            self._missed = ""

    async def _reload(self) -> None:
        loaded, origin = await self._with_origin()
        # Already reported; a state that can't be stored now is accepted by the next reload.
        with contextlib.suppress(WriteRefused):
            await self._accept(loaded, origin.author, origin.reason, commit=origin.commit)

    def _not_now(self, why: str) -> None:
        if why != self._missed:
            self._missed = why
            log.warning("the desired state can't be read at the moment", extra={"error": why})
        self._loop.report_mistakes((*self._rejected, *self._tree.mistakes()), (*self._warnings(), why))

    async def _with_origin(self) -> tuple[LoadedState, ChangeOrigin]:
        """Read the files and their origin; both of the same commit, even if a push arrives in between."""
        head = await self._tree.look()
        for _ in range(_LOOKS):
            loaded = await self._store.load()
            before, head = head, await self._tree.look()
            if before == head:
                break
        return loaded, await self._tree.origin(loaded)

    async def write(self, edit: Edit) -> WriteResult:
        """See ``writes.Writer.write``."""
        self._may_write()
        async with self._turn:
            written = await self._store.write(edit)
            # Only now: a group that does not exist may be a key that was pasted into the address.
            log.debug("edit written", extra={"edit": str(edit)})
            _, accepted = await self._kept(written, edit.author, edit.reason, edit.source)
            recorded = self._recorded
        if accepted.fresh:
            await _done(recorded)
        return self._receipt(accepted, written.groups, changed=written.changed)

    async def restore(self, then: RestoreSet, *, author: str, reason: str, source: str = "") -> WriteResult:
        """Restore earlier files as a new generation; raises as ``Store.restore``."""
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
        """Return the current content of the files of ``then``; blocks."""
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
        """Accept the state before a write and the state after it; undo the write if it can't be stored.

        After a refusal nothing has changed, neither in memory nor on disk.
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
        """Accept the state before a write; an unread edit of the files gets its own generation."""
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
            # Wait before the loop adopts the change: its actions must come later in the log, and they compete
            # with the log's thread for the interpreter. The timeout keeps a full disk from delaying them.
            wait([recorded], timeout=_HEAD_START)
            return accepted, recorded

        try:
            accepted, recorded = await asyncio.to_thread(kept)
        except OSError as error:
            problem = f"the state directory can't be written: {error.strerror}"
            self._loop.report_mistakes((), (problem,))
            raise WriteRefused(
                "state_not_writable", problem, "free space, or check the file system and its permissions"
            ) from error
        if accepted.fresh:
            self._recorded = recorded
            changes = "; ".join(accepted.changes)
            log.info(
                "desired state accepted",
                extra={"generation": accepted.desired.generation, "author": author, "changes": changes},
            )
        self._rejected = ()
        # The store returns the identical object for unchanged files, until it reads an invalid state.
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
        # The lock is free here; entries are still written in the order of generations.
        await asyncio.wrap_future(recorded)


def _meant(accepted: AcceptedState) -> events.Target:
    return accepted.stack, accepted.desired
