"""Reads, edits and restores the files of desired state, one operation at a time.

Changed files and write requests take the same path; both end in ``Acceptor.accept``. Invalid files stop
nothing: the loop continues with the last valid state, and the mistakes are reported.

A write is durable in the file before it is accepted, and accepted before the caller gets its result. After a
crash in between, the next run accepts the file as an edit without an author.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping

from reconciler.audit.events import changed_groups
from reconciler.desired_state.store import LoadedState, Store, StoredWrite
from reconciler.errors import EngineError, InvalidDesiredState, Mistake, NotReadableNow, WriteRefused
from reconciler.generations.acceptance import Acceptance, Acceptor
from reconciler.generations.origin import ChangeOrigin, NullWorkTree, RestoreSet, WorkTree
from reconciler.generations.writes import WriteResult
from reconciler.host.untrusted import is_transient
from reconciler.model.change_reason import ChangeReason
from reconciler.model.edit import Edit

log = logging.getLogger(__name__)

_MOST_READS = 5
"""Maximum number of reads while pushes keep moving the commit that is checked out."""


class DesiredStateFiles:
    """The files behind the accepted state. Implements ``writes.Writer``.

    ``turn`` is locked while files are read or written, when desired state may be about to change.
    """

    def __init__(
        self,
        store: Store,
        acceptor: Acceptor,
        *,
        tree: WorkTree | None = None,
        turn: asyncio.Lock | None = None,
    ) -> None:
        self._store = store
        self._acceptor = acceptor
        self._tree = tree or NullWorkTree()
        self._delayed_by = ""
        self._turn = turn or asyncio.Lock()

    @property
    def delayed(self) -> bool:
        """Whether the last reload failed for a temporary reason, so that it should be retried soon."""
        return bool(self._delayed_by)

    async def restore_last(self) -> None:
        """See ``Acceptor.restore_last``."""
        await self._acceptor.restore_last()

    async def reload(self) -> None:
        """Read and accept the files on disk. Never raises: on any error the last valid state stays."""
        async with self._turn:
            try:
                loaded, origin = await self._with_origin()
                # Already reported; a state that can't be stored now is accepted by the next reload.
                with contextlib.suppress(WriteRefused):
                    await self._acceptor.accept(loaded, origin)
            except InvalidDesiredState as error:
                self._acceptor.reject(error.mistakes)
            except NotReadableNow as error:
                self._delay(str(error))
                return
            except EngineError as error:
                # Without Compose no file can be resolved, so its absence is reported like a mistake.
                self._acceptor.reject((self._mistake(str(error)),))
            except Exception as error:
                if isinstance(error, OSError) and is_transient(error):
                    self._delay(str(error))
                    return
                mistake = self._mistake(f"could not be accepted: {type(error).__name__}: {error}"[:500])
                if not self._acceptor.is_rejected((mistake,)):
                    log.exception("accepting the desired state failed unexpectedly")
                self._acceptor.reject((mistake,))
            self._delayed_by = ""

    async def write(self, edit: Edit) -> WriteResult:
        """See ``writes.Writer.write``."""
        self._check_writable()
        async with self._turn:
            written = await self._store.write(edit)
            # Log after the write only: an unknown group may be an API key pasted into the address.
            log.debug("edit written", extra={"edit": str(edit)})
            origin = ChangeOrigin(edit.author, edit.reason, source=edit.source)
            _, after = await self._accept(written, origin)
        await after.durable()
        return WriteResult(after.accepted, written.changed and after.fresh, written.groups)

    async def restore(
        self, restored: RestoreSet, *, author: str, reason: ChangeReason, source: str = ""
    ) -> WriteResult:
        """Restore earlier files as a new generation; raises as ``Store.restore``."""
        self._check_writable()
        async with self._turn:
            written = await self._store.restore(restored.sources, gone=restored.gone, whole=restored.whole)
            origin = ChangeOrigin(author, reason, source=source)
            before, after = await self._accept(written, origin)
        await after.durable()
        changed = changed_groups(before.accepted, after.accepted)
        groups = tuple(name for name in after.accepted.stack.groups if name in changed)
        return WriteResult(after.accepted, written.changed and after.fresh, groups)

    def on_disk(self, restored: RestoreSet) -> Mapping[str, bytes]:
        """Return the current content of the files that a restore would write or delete; blocks."""
        return self._store.on_disk({*restored.sources, *restored.gone})

    def is_below(self, name: str) -> bool:
        """Return whether a restore may write a file: it is below the directory, with links followed."""
        return self._store.is_below(name)

    async def _accept(self, written: StoredWrite, origin: ChangeOrigin) -> tuple[Acceptance, Acceptance]:
        """Accept the state before a write and the state after it; undo the write if it can't be stored.

        After a refusal nothing has changed, neither in memory nor on disk.
        """
        try:
            before = after = await self._accept_unread(written.before)
            if written.changed:
                after = await self._acceptor.accept(written.after, origin)
        except WriteRefused:
            if written.changed:
                with contextlib.suppress(WriteRefused):
                    await self._store.restore(written.before.sources)
            raise
        return before, after

    async def _accept_unread(self, loaded: LoadedState) -> Acceptance:
        """Accept the state before a write; an unread edit of the files gets its own generation."""
        known = await self._acceptor.accept_known(loaded)
        if known is not None:
            return known
        await self._tree.look()
        return await self._acceptor.accept(loaded, await self._tree.origin(loaded))

    async def _with_origin(self) -> tuple[LoadedState, ChangeOrigin]:
        """Read the files and their origin; both of the same commit, even if a push arrives in between."""
        head = await self._tree.look()
        for _ in range(_MOST_READS):
            loaded = await self._store.load()
            before, head = head, await self._tree.look()
            if before == head:
                break
        return loaded, await self._tree.origin(loaded)

    def _check_writable(self) -> None:
        refused = self._tree.refused()
        if refused is not None:
            raise refused

    def _delay(self, why: str) -> None:
        if why != self._delayed_by:
            self._delayed_by = why
            log.warning("the desired state can't be read at the moment", extra={"error": why})
        self._acceptor.report_delay(why)

    def _mistake(self, message: str) -> Mistake:
        return Mistake(str(self._store.directory), 0, 0, message)
