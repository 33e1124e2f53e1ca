"""Tracks the progress of a generation: its steps, their attempts, and its outcome.

The loop owns the tracker; the values that it returns are immutable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
"""Reasons of the process itself: crash looping ends a generation as degraded (CONTRACT section 4)."""


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


class Outcome(NamedTuple):
    """The state of a generation with its reason. ``converged_at``: since when it is, or was, converged."""

    state: str
    reason: str = ""
    message: str = ""
    converged_at: float = 0.0


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
        """Count what one pass changed. The end is set once; later changes are repairs, not progress.

        ``eta`` is the expected number of seconds to the end. ``fresh`` False: the plan rests on an
        observation from before the generation, which can't end it. ``wall`` is the time of the pass.
        """
        unsettled = {n for n, s in summaries.items() if s.phase not in {Phase.CONVERGED, Phase.SUSPENDED}}
        if self.current.state == "progressing":
            self.touched |= unsettled
        before = Outcome(self.current.state, self.current.reason, self.current.message, self.converged_at)
        after = next_outcome(before, summaries, self.touched, fresh=fresh, wall=wall)
        self.converged_at = after.converged_at
        self.current = replace(
            self.current,
            state=after.state,
            reason=after.reason,
            message=after.message,
            done=len(self.touched - unsettled) if self.touched else self.current.done,
            total=len(self.touched) or self.current.total,
            expected_at=None if eta is None or after.state != "progressing" else round(wall + eta, 1),
            ended_at=self.current.ended_at or (wall if after.state != "progressing" else 0.0),
            steps=(*self.records.values(), *self._waiting(plan, summaries, unsettled)),
        )
        return self.current

    def _waiting(
        self, plan: Plan, summaries: Mapping[str, ServiceStatus], unsettled: set[str]
    ) -> Iterator[StepRecord]:
        """Return the next step of each service that has work left and no step in flight."""
        running = {record.service for record in self.records.values() if record.state == "running"}
        for name, summary in summaries.items():
            if name in unsettled and name not in running:
                yield StepRecord(name, _next_action(plan, name), "waiting", 0, reason=summary.message)


def next_outcome(
    before: Outcome, summaries: Mapping[str, ServiceStatus], touched: set[str], *, fresh: bool, wall: float
) -> Outcome:
    """Return the outcome of a generation after one pass. Pure.

    From ``progressing``, only a ``fresh`` plan leads on: to ``converged`` when every service is settled, to
    ``degraded`` when all that is left needs outside help. A ``degraded`` generation that recovers counts as
    converged. A ``converged`` one is degraded after all if a service that it started (``touched``) ends
    again and again within ``TRIAL`` seconds. Any other difference after the end is drift.
    """
    match before.state, outcome(summaries.values()):
        case "progressing", _ if not fresh:
            return before
        case "progressing" | "degraded", "converged":
            return Outcome("converged", converged_at=wall)
        case "progressing", "degraded":
            return Outcome("degraded", *_worst(summaries), before.converged_at)
        case "converged", _ if 0 <= wall - before.converged_at <= TRIAL:
            looping = {name: one for name, one in summaries.items() if name in touched and _is_looping(one)}
            return Outcome("degraded", *_worst(looping), before.converged_at) if looping else before
    return before


def _is_looping(summary: ServiceStatus) -> bool:
    return summary.phase is Phase.DEGRADED and summary.reason in _ENDS


def _next_action(plan: Plan, name: str) -> str:
    service_plan = plan.services[name]
    if service_plan.step:
        return str(service_plan.step.action)
    return "start" if service_plan.wanted else "stop"


def _worst(summaries: Mapping[str, ServiceStatus]) -> tuple[str, str]:
    ranked = [(n, s) for n, s in summaries.items() if s.phase is Phase.DEGRADED]
    ranked += [(n, s) for n, s in summaries.items() if s.phase is Phase.BLOCKED]
    ranked += [(n, s) for n, s in summaries.items() if s.stuck and s.phase is Phase.WAITING]
    if not ranked:
        return "", ""
    name, summary = ranked[0]
    return summary.reason, f"{name}: {summary.message}"
