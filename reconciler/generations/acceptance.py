"""Accepts a loaded desired state: numbers it, makes it durable, publishes it and hands it to the loop.

Each step is durable before the next one begins: the record of the generation, the audit entry, then
``Loop.set_target``. After a crash before the audit entry, the next run adds the entry
(``daemon.audit_session``). After a later crash nothing is missing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import NamedTuple

from reconciler.audit import events
from reconciler.audit.event_stream import AuditEventStream
from reconciler.controller.loop import Loop
from reconciler.desired_state.assemble import LoadedState
from reconciler.errors import Mistake, WriteRefused
from reconciler.generations.origin import BY_FILE, ChangeOrigin, NullWorkTree, WorkTree
from reconciler.generations.outcomes import final_progress
from reconciler.generations.store import Generations, Recorded
from reconciler.model.accepted_state import AcceptedState
from reconciler.model.change_reason import COMMIT, EDITED

log = logging.getLogger(__name__)

_ENDS = frozenset({"converged", "degraded"})

_HEAD_START = 0.1
"""Maximum delay in seconds before the loop adopts a change, to let the audit log write it first."""


class Acceptance(NamedTuple):
    """Result of accepting a state. ``fresh``: it became a new generation.

    ``recorded``: futures that are done once the audit event of a new generation is on disk, or has failed.
    """

    accepted: AcceptedState
    fresh: bool = False
    recorded: tuple[Future[bool], ...] = ()

    async def durable(self) -> None:
        """Wait until the audit event is on disk, or has failed."""
        await asyncio.gather(*map(asyncio.wrap_future, self.recorded))


class Acceptor:
    """Accepts or rejects what was read from the files. ``wall`` returns wall time in seconds since the epoch.

    ``events`` gets an event for each new generation and for each rejection.
    """

    def __init__(
        self,
        generations: Generations,
        loop: Loop,
        *,
        wall: Callable[[], float],
        events: AuditEventStream | None = None,
        tree: WorkTree | None = None,
    ) -> None:
        self._generations = generations
        self._loop = loop
        self._wall = wall
        self._events = events or AuditEventStream()
        self._tree = tree or NullWorkTree()
        self._rejected: tuple[Mistake, ...] = ()
        self._last: tuple[LoadedState, AcceptedState] | None = None

    async def restore_last(self) -> None:
        """Start with the last valid state, so that invalid files or a slow Compose delay nothing."""
        try:
            accepted = await asyncio.to_thread(self._generations.latest)
            if accepted is not None:
                self._adopt(accepted)
        except Exception:
            # The files are read next, and most likely have the same content.
            log.exception("the last valid state can't be restored")

    async def accept(self, loaded: LoadedState, origin: ChangeOrigin) -> Acceptance:
        """Accept a valid state, as a new generation if its meaning has changed.

        Raises:
            WriteRefused: ``state_not_writable``; the mistake is reported, and nothing else has changed.
        """
        before, at = self._loop.target, self._wall()

        def record() -> Acceptance:
            recorded = self._generations.record(
                loaded, author=origin.author, reason=origin.reason, at=at, commit=origin.commit
            )
            return self._published(recorded, before, origin)

        try:
            result = await asyncio.to_thread(record)
        except OSError as error:
            problem = f"the state directory can't be written: {error.strerror}"
            self._loop.report_mistakes((), (problem,))
            raise WriteRefused(
                "state_not_writable", problem, "free space, or check the file system and its permissions"
            ) from error
        accepted = result.accepted
        if result.fresh:
            changes = "; ".join(accepted.changes)
            number = accepted.desired.generation
            log.info(
                "desired state accepted",
                extra={"generation": number, "author": origin.author, "changes": changes},
            )
        self._rejected = ()
        self._last = loaded, accepted
        self._adopt(accepted)
        self._loop.report_mistakes(self._tree.mistakes(), self._warnings())
        self._tree.accepted()
        return result

    async def accept_known(self, loaded: LoadedState) -> Acceptance | None:
        """Accept a state that was accepted before, without an origin; return None for any other state."""
        # The store returns the identical object for unchanged files, until it reads an invalid state.
        if self._last is not None and self._last[0] is loaded:
            return Acceptance(self._last[1])
        current = self._loop.target
        if current is not None and current.desired.revision == loaded.revision:
            return await self.accept(loaded, ChangeOrigin(BY_FILE, EDITED))
        return None

    def reject(self, mistakes: tuple[Mistake, ...]) -> None:
        """Report invalid files; the loop continues with the last valid state."""
        self._last = None
        for mistake in mistakes:
            log.error("the desired state is not valid", extra={"mistake": str(mistake)})
        if mistakes != self._rejected:
            self._rejected = mistakes
            current = self._loop.target
            generation = current.desired.generation if current else 0
            event = events.rejected(mistakes, user=BY_FILE, generation=generation, at=self._wall())
            self._events.publish(event)
        self._loop.report_mistakes((*mistakes, *self._tree.mistakes()), self._warnings())

    def is_rejected(self, mistakes: tuple[Mistake, ...]) -> bool:
        """Return whether these are the mistakes of the last rejection."""
        return mistakes == self._rejected

    def report_delay(self, why: str) -> None:
        """Report that the files can't be read now; earlier mistakes stay."""
        mistakes = (*self._rejected, *self._tree.mistakes())
        self._loop.report_mistakes(mistakes, (*self._warnings(), why))

    def _published(
        self, recorded: Recorded, before: AcceptedState | None, origin: ChangeOrigin
    ) -> Acceptance:
        accepted = recorded.accepted
        if not recorded.fresh:
            return Acceptance(accepted)
        event = events.accepted(
            origin.reason,
            # An author is what the commit claims; no key, and no part of the daemon, has such a name.
            user=f"git:{origin.author}" if origin.reason.action == COMMIT else origin.author,
            source=origin.source,
            generation=accepted.desired.generation,
            groups=events.changed_groups(before, accepted),
            changes=accepted.changes,
            at=accepted.accepted_at,
        )
        futures = self._events.publish(event, durable=True)
        # Wait before the loop adopts the change: its actions must come later in the log, and they compete
        # with the log's thread for the interpreter. The timeout keeps a full disk from delaying them.
        wait(futures, timeout=_HEAD_START)
        return Acceptance(accepted, fresh=True, recorded=futures)

    def _warnings(self) -> tuple[str, ...]:
        return (*self._generations.warnings(), *self._tree.warnings())

    def _adopt(self, accepted: AcceptedState) -> None:
        current = self._loop.target
        if current is not None and current[:2] == accepted[:2]:
            return
        number = accepted.desired.generation
        record = next((r for r in self._generations.history() if r.generation == number), None)
        ended = final_progress(record, number) if record is not None and record.outcome in _ENDS else None
        self._loop.set_target(accepted, ended=ended)
