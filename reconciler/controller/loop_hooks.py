"""How the loop is connected to the rest of the daemon: callbacks and timings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from reconciler.controller.executor import Concurrency
from reconciler.controller.progress import Progress
from reconciler.errors import EngineError
from reconciler.model.ledger import Ledger
from reconciler.model.observed import ObservedState
from reconciler.model.stack import Stack
from reconciler.planning.planner import Step

AddHostState = Callable[[ObservedState, Stack], Awaitable[ObservedState]]
"""Adds the host's state to an observation of the engine; never raises."""


class LoopHooks(NamedTuple):
    """Callbacks of the loop to the rest of the daemon; each returns at once.

    ``on_ledger``: the ledger changed. ``on_generation_end``: a generation ended. ``on_step``: a step was sent
    (error None, third argument False) or returned (True). ``on_pass``: a pass ended (its seconds, its
    outcome) and its snapshot is published. ``on_missed_drift``: a periodic resync found this number of drifts
    that no event reported. ``on_heartbeat``: the loop is alive, after a pass or after ``LoopTimings.beat``
    seconds without one; the watchdog depends on this callback only.

    Outcomes of a pass: ``idle`` (converged), ``acting`` (a step was sent), ``waiting`` (neither),
    ``incomplete`` and ``unreachable`` (nothing was decided), ``observed`` (desired state changed during the
    observation, so the next pass decides).
    """

    on_ledger: Callable[[Ledger], None] = lambda _: None
    on_generation_end: Callable[[Progress], None] = lambda _: None
    on_step: Callable[[Step, EngineError | None, bool], None] = lambda *_: None
    on_pass: Callable[[float, str], None] = lambda *_: None
    on_missed_drift: Callable[[int], None] = lambda _: None
    on_heartbeat: Callable[[], None] = lambda: None


class LoopTimings(NamedTuple):
    """``resync``: seconds between passes that inspect everything. ``probes``: concurrent early probes.

    ``beat``: seconds between heartbeats of an idle loop.
    """

    resync: float = 60.0
    limits: Concurrency = Concurrency()
    probes: int = 2
    beat: float = float("inf")
