"""Observes the engine for the loop: its containers, its events, and whether it can be reached."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, Protocol

from reconciler.controller.loop_hooks import AddHostState
from reconciler.controller.snapshot import EngineView
from reconciler.engine import Engine
from reconciler.errors import EngineError, EngineUnavailable
from reconciler.model.ledger import Ledger
from reconciler.model.observed import EngineInfo, LeftBehind, ObservedState
from reconciler.model.stack import Stack
from reconciler.planning import project_rename

log = logging.getLogger(__name__)

RECONNECT = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds between attempts to reach an unreachable engine; the last one repeats."""

MAX_OBSERVE_ERRORS = 100
"""Distinct errors of failed observations to remember; an ever-changing text must not grow the set."""

LASTING = 1.0
"""Seconds after which an event stream counts as working."""

_NOT_CONTACTED = "not contacted yet"


class Observation(NamedTuple):
    """The result of one attempt. ``outcome``: ``observed``, ``incomplete`` or ``unreachable``."""

    outcome: str
    state: ObservedState = ObservedState(complete=False)


class Wake(Protocol):
    """Requests a pass of the loop; ``full``: one that inspects everything."""

    def __call__(self, why: str, *, full: bool = False) -> None:
        """Request it."""


def retry_delay(failures: int) -> float:
    """Return the seconds to wait after so many failures in a row, at least one."""
    return RECONNECT[min(failures, len(RECONNECT)) - 1]


class EngineObserver:
    """Observes one engine. ``wall`` returns the time of day in seconds since the epoch.

    ``view`` is the engine as readers see it, ``failures`` the number of failed observations in a row.
    """

    def __init__(
        self, engine: Engine, *, wall: Callable[[], float], add_host_state: AddHostState | None = None
    ) -> None:
        self._engine = engine
        self._wall = wall
        self._add_host_state = add_host_state
        self._logged_errors: set[str] = set()
        self._event_error = ""
        self.view = EngineView(error=_NOT_CONTACTED, since=wall())
        self.failures = 0

    async def observe(self, stack: Stack, ledger: Ledger, last: ObservedState, *, full: bool) -> Observation:
        """Observe the engine once; errors are logged. ``last`` is the last complete observation."""
        try:
            state = await self._engine.observe(stack, full=full)
            if project_rename.is_new_name(stack, ledger):
                state = replace(state, left=await self._left_behind(stack, ledger, last, full=full))
            if self._add_host_state is not None:
                state = await self._add_host_state(state, stack)
        except EngineUnavailable as error:
            self.failures += 1
            self._note_unreachable(str(error))
            return Observation("unreachable")
        except EngineError as error:
            if self._is_new_error(error):
                log.warning("observing the engine failed", extra={"error": str(error)})
            state = ObservedState(complete=False)
        except Exception as error:
            # An adapter's bug must not end the loop.
            if self._is_new_error(error):
                log.exception("observing the engine failed unexpectedly")
            state = ObservedState(complete=False)
        self._note_reachable()
        if not state.complete:
            self.failures += 1
            return Observation("incomplete")
        self.failures = 0
        self._logged_errors.clear()
        return Observation("observed", state)

    def _is_new_error(self, error: Exception) -> bool:
        """Return whether to log the error: once for each distinct one until an observation succeeds."""
        if len(self._logged_errors) >= MAX_OBSERVE_ERRORS:
            self._logged_errors.clear()
        before = len(self._logged_errors)
        self._logged_errors.add(f"{type(error).__name__}: {error}")
        return len(self._logged_errors) > before

    async def _left_behind(
        self, stack: Stack, ledger: Ledger, last: ObservedState, *, full: bool
    ) -> tuple[LeftBehind, ...]:
        known = ledger.renaming
        if known is not None and not known.held and last.complete and not full:
            # The search only feeds a warning, which may last long: repeat it only at a resync.
            return last.left
        return await self._engine.left_behind(stack, project_rename.former_name(stack, ledger))

    def _note_unreachable(self, error: str) -> None:
        if self.view.reachable or self.view.error == _NOT_CONTACTED:
            log.warning("the engine can't be reached", extra={"error": error})
            self.view = replace(self.view, reachable=False, since=self._wall(), error=error)

    def _note_reachable(self) -> None:
        if not self.view.reachable:
            self.view = replace(self.view, reachable=True, since=self._wall(), error="")
            log.info("the engine answers")

    async def listen(self, current: Callable[[], Stack | None], wake: Wake) -> None:
        """Turn events into wake-ups until cancelled. Resubscribe to a lost stream, then observe.

        ``current`` returns the stack to listen for, None without one.
        """
        attempt = 0
        while True:
            stack = current()
            if stack is None:
                await asyncio.sleep(RECONNECT[0])
                continue
            began = asyncio.get_running_loop().time()
            subscribed = await self._read_events(stack, current, wake)
            if asyncio.get_running_loop().time() - began > LASTING:
                # A stream that ends at once (cut by a proxy) must not cause 200 requests a second.
                attempt = 0
            if subscribed:
                # The engine may have stopped. Observe now, or the loop notices it only at the next resync.
                wake("events lost", full=True)
            await asyncio.sleep(RECONNECT[min(attempt, len(RECONNECT) - 1)])
            attempt += 1

    async def _read_events(self, stack: Stack, current: Callable[[], Stack | None], wake: Wake) -> bool:
        """Wake the loop for each event, until the stream ends or the stack's name changes.

        Returns whether the subscription succeeded.
        """
        subscribed = False
        try:
            async for event in self._engine.events(stack):
                if event == "subscribed":
                    subscribed = True
                    await self._read_info()
                wake(event, full=event == "subscribed")
                now = current()
                if now is not None and now.name != stack.name:
                    break
        except EngineError as error:
            log.debug("no events", extra={"error": str(error)})
        except Exception as error:
            if str(error) != self._event_error:
                log.exception("the engine's events can't be read")
            self._event_error = str(error)
        return subscribed

    async def _read_info(self) -> None:
        try:
            info: EngineInfo = await self._engine.info()
        except EngineError:
            return
        self.view = replace(
            self.view, kind=info.kind, version=info.version, compose=info.compose, memory=info.memory
        )
