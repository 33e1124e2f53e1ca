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
"""Seconds after convergence in which a crash loop of a started service still degrades the generation.

A service without a health check counts as ready while it runs, so a generation can converge just before the
first exit. The value is Docker's longest pause between restarts.
"""

_EXIT_REASONS = frozenset({"crash_looping", "exited", "out_of_memory"})
"""Reasons that come from exits of the process: they end a generation as degraded (CONTRACT section 4)."""


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
    """Follows one generation from its acceptance; after its end, records repairs.

    ``converged_at`` is the wall time of the last convergence, and starts ``TRIAL``. ``touched`` are the
    services that the generation changes, ``records`` its steps by unit and action.
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
        """Update the progress after one pass and return it. ``ended_at`` is set once, at the first end.

        ``eta`` is the expected number of seconds to the end. ``fresh`` False: the plan uses an observation
        from before the generation, which can't end it. ``wall`` is the time of the pass.
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

    A ``progressing`` generation ends only with a ``fresh`` plan: as ``converged`` when every service is
    settled, as ``degraded`` when all other services need outside help. A ``degraded`` generation becomes
    ``converged`` when it recovers. A ``converged`` generation becomes ``degraded`` if a service that it
    started (``touched``) is in a crash loop within ``TRIAL`` seconds. Any other difference is drift.
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
    return summary.phase is Phase.DEGRADED and summary.reason in _EXIT_REASONS


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
