"""Follows the generations in turn: the progress of the current one, and the number of the last that ended."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

from reconciler.controller.progress import Progress, Tracker
from reconciler.model.accepted_state import AcceptedState
from reconciler.model.ledger import Clock, Ledger
from reconciler.model.observed import Action
from reconciler.planning import status
from reconciler.planning.planner import Plan

log = logging.getLogger(__name__)

_ENDS = frozenset({"converged", "degraded"})


class GenerationProgress:
    """The progress of the current generation. ``on_end`` is called when a generation ends.

    ``tracker`` records its steps; ``observed_generation`` is the last generation that ended, converged or
    degraded.
    """

    def __init__(self, on_end: Callable[[Progress], None]) -> None:
        self._on_end = on_end
        self.tracker = Tracker(Progress(generation=0))
        self.observed_generation = 0

    @property
    def current(self) -> Progress:
        """The progress of the current generation."""
        return self.tracker.current

    def begin(self, target: AcceptedState, ended: Progress | None) -> None:
        """Begin a generation; ``ended`` is its final progress, if an earlier run of the daemon ended it."""
        self.tracker = Tracker(
            ended or Progress(generation=target.desired.generation, began_at=target.accepted_at)
        )
        if ended is not None and ended.state in _ENDS:
            self.observed_generation = target.desired.generation

    def supersede(self, wall: float) -> Progress | None:
        """End the current generation, which a newer one replaces; None if it has ended already."""
        if self.current.state != "progressing":
            return None
        return replace(self.current, state="superseded", ended_at=wall)

    def update(
        self, plan: Plan, ledger: Ledger, in_flight: Mapping[str, Action], now: Clock, *, fresh: bool
    ) -> None:
        """Update the progress from the plan; only a ``fresh`` plan can end the generation."""
        summaries = status.summarise(plan, ledger, in_flight)
        left = status.time_left(plan, ledger, summaries, now)
        before = self.current.state
        progress = self.tracker.update(plan, summaries, left, now.wall, fresh=fresh)
        if progress.state in _ENDS:
            self.observed_generation = progress.generation
        if progress.state != before:
            log.info("generation", extra={"generation": progress.generation, "state": progress.state})
            self._on_end(progress)
