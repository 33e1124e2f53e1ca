"""Tracks the progress of a generation: its steps, their attempts, and its outcome.

The loop owns the tracker; the values that it returns are immutable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from reconciler.planning.planner import Plan, Step
from reconciler.planning.status import Phase, ServiceStatus, outcome

KEPT_STEPS = 500

TRIAL = 60.0
"""Seconds in which a crash loop of a started service still degrades a converged generation.

This is Docker's longest pause between restarts. A service without a health check counts as ready while it
runs, also just before its first exit.
"""

_ENDS = frozenset({"crash_looping", "exited", "out_of_memory"})
# Reasons of the process itself; any other problem after the end of a generation is drift.


class StepRecord(NamedTuple):
    """One step of a generation; ``state`` is running, done, failed or waiting. Wall times, 0: not yet."""

    service: str
    action: str
    state: str
    attempts: int = 1
    error: str = ""
    started_at: float = 0.0
    finished_at: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The progress of one generation. ``state``: progressing, converged, degraded or superseded.

    ``done`` of ``total`` counts the services that this generation changes. ``expected_at`` is the expected
    end as wall time, estimated from recorded starts, in tenths of a second; None if unknown.
    """

    generation: int
    state: str = "progressing"
    reason: str = ""
    message: str = ""
    done: int = 0
    total: int = 0
    expected_at: float | None = None
    began_at: float = 0.0
    ended_at: float = 0.0
    steps: tuple[StepRecord, ...] = ()

    @property
    def percent(self) -> int:
        """Whole percent; 100 only after the end."""
        if self.state in {"converged", "superseded"}:
            return 100
        return min(99, round(100 * self.done / self.total)) if self.total else 0


@dataclass(slots=True)
class Tracker:
    """Follows one generation from its acceptance to its end and beyond (repairs are recorded too).

    ``converged_at``: since when the generation is converged, wall time; a service that fails every few
    minutes seems to recover every time.
    """

    current: Progress
    touched: set[str] = field(default_factory=set)
    records: dict[tuple[str, str], StepRecord] = field(default_factory=dict)
    converged_at: float = 0.0

    def __post_init__(self) -> None:
        # Restore the steps that an earlier run of the daemon recorded.
        for record in self.current.steps:
            if record.state != "waiting":
                self.records[record.service, record.action] = record

    def started(self, step: Step, wall: float) -> None:
        """Record that a step was sent to the engine."""
        key = (step.key, str(step.action))
        before = self.records.get(key)
        attempts = before.attempts + 1 if before and before.state == "failed" else 1
        self.records.pop(key, None)
        self.records[key] = StepRecord(
            step.service, str(step.action), "running", attempts, "", wall, 0.0, step.cause
        )
        while len(self.records) > KEPT_STEPS:
            del self.records[next(iter(self.records))]

    def finished(self, step: Step, wall: float, error: str = "") -> None:
        """Record the result of a step; an empty ``error`` means success."""
        key = (step.key, str(step.action))
        before = self.records.get(key)
        if before is not None:
            state = "failed" if error else "done"
            self.records[key] = before._replace(state=state, error=error, finished_at=wall)

    def update(
        self,
        plan: Plan,
        summaries: Mapping[str, ServiceStatus],
        eta: float | None,
        wall: float,
        *,
        fresh: bool = True,
    ) -> Progress:
        """Update from one pass. The end is set once; later changes are repairs, not progress.

        Exception: a service that the generation started and that crash-loops within ``TRIAL`` seconds
        degrades it after all (CONTRACT section 4: crash looping ends a generation as degraded).

        ``fresh`` False: the plan rests on an observation from before the generation, which can't end it.
        """
        unsettled = {n for n, s in summaries.items() if s.phase not in {Phase.CONVERGED, Phase.SUSPENDED}}
        over = self.current.state != "progressing"
        if not over:
            self.touched |= unsettled
        waiting = tuple(
            StepRecord(n, _next_action(plan, n), "waiting", 0, "", 0.0, 0.0, summaries[n].message)
            for n in summaries
            if n in unsettled
            and not any(r.service == n and r.state == "running" for r in self.records.values())
        )
        state = outcome(summaries.values()) if fresh and not over else self.current.state
        reason, message = _worst(summaries) if state == "degraded" else ("", "")
        if over:
            reason, message = self.current.reason, self.current.message
            # A degraded generation that recovers later counts as converged.
            if state == "degraded" and outcome(summaries.values()) == "converged":
                state, reason, message = "converged", "", ""
            elif state == "converged" and 0 <= wall - self.converged_at <= TRIAL:
                reason, message = self._proven_wrong(summaries)
                state = "degraded" if reason else state
        if state == "converged" and self.current.state != "converged":
            self.converged_at = wall
        self.current = replace(
            self.current,
            state=state,
            reason=reason,
            message=message,
            done=len(self.touched - unsettled) if self.touched else self.current.done,
            total=len(self.touched) or self.current.total,
            expected_at=None if eta is None or state != "progressing" else round(wall + eta, 1),
            ended_at=self.current.ended_at or (wall if state != "progressing" else 0.0),
            steps=(*self.records.values(), *waiting),
        )
        return self.current

    def _proven_wrong(self, summaries: Mapping[str, ServiceStatus]) -> tuple[str, str]:
        failing = {
            n: s
            for n, s in summaries.items()
            if n in self.touched and s.phase is Phase.DEGRADED and s.reason in _ENDS
        }
        return _worst(failing)


def _next_action(plan: Plan, name: str) -> str:
    verdict = plan.verdicts[name]
    if verdict.step:
        return str(verdict.step.action)
    return "start" if verdict.wanted else "stop"


def _worst(summaries: Mapping[str, ServiceStatus]) -> tuple[str, str]:
    ranked = [(n, s) for n, s in summaries.items() if s.phase is Phase.DEGRADED]
    ranked += [(n, s) for n, s in summaries.items() if s.phase is Phase.BLOCKED]
    ranked += [(n, s) for n, s in summaries.items() if s.stuck and s.phase is Phase.WAITING]
    if not ranked:
        return "", ""
    name, summary = ranked[0]
    return summary.reason, f"{name}: {summary.message}"
