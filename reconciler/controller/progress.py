"""How far a generation is: which steps it took, how often each was tried, and how it ended.

The tracker belongs to the loop; what it hands out are immutable values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from reconciler.planning.planner import Plan, Step
from reconciler.planning.status import Phase, ServiceStatus, outcome

KEPT_STEPS = 500

TRIAL = 60.0
"""Seconds for which what a generation started may prove it wrong: Docker's longest pause between restarts.

A service with no health check is ready when running, also in the instant before it ends for the first time.
"""

_ENDS = frozenset({"crash_looping", "exited", "out_of_memory"})
# Reasons that tell of the process itself; whatever else happens after the end of a generation is drift.


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
    """How far one generation is. ``state``: progressing, converged, degraded or superseded.

    ``done`` of ``total`` counts services that had, or have, something to do in this generation.
    ``expected_at`` is the wall time at which it should be over, by what starts took before, in
    tenths of a second; None where nobody can know.
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
        """Whole percent; 100 only when it is over."""
        if self.state in {"converged", "superseded"}:
            return 100
        return min(99, round(100 * self.done / self.total)) if self.total else 0


def progress_to_json(progress: Progress) -> dict[str, Any]:
    """A plain value for the state directory, so that progress survives a restart."""
    return {
        "state": progress.state,
        "reason": progress.reason,
        "message": progress.message,
        "done": progress.done,
        "total": progress.total,
        "began_at": progress.began_at,
        "ended_at": progress.ended_at,
        "steps": [list(step) for step in progress.steps],
    }


def progress_from_json(generation: int, value: Mapping[str, Any]) -> Progress:
    """What ``progress_to_json`` wrote.

    Raises:
        ValueError, TypeError, KeyError: the value is not one of ours.
    """
    return Progress(
        generation=generation,
        state=str(value["state"]),
        reason=str(value["reason"]),
        message=str(value["message"]),
        done=int(value["done"]),
        total=int(value["total"]),
        began_at=float(value["began_at"]),
        ended_at=float(value["ended_at"]),
        steps=tuple(StepRecord(*step) for step in value["steps"]),
    )


@dataclass(slots=True)
class Tracker:
    """Follows one generation from its acceptance to its end, and past it (repairs are counted in).

    ``converged_at``: since when all is as it should be, wall time; what fails every few minutes seems to
    recover every time.
    """

    current: Progress
    touched: set[str] = field(default_factory=set)
    records: dict[tuple[str, str], StepRecord] = field(default_factory=dict)
    converged_at: float = 0.0

    def __post_init__(self) -> None:
        # Of a generation that an earlier run of the daemon brought to its end, or some way there.
        for record in self.current.steps:
            if record.state != "waiting":
                self.records[record.service, record.action] = record

    def started(self, step: Step, wall: float) -> None:
        """A step was sent to the engine."""
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
        """A step came back; ``error`` empty means success."""
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
        """Take in one pass. The generation's end is set once; what comes later is repair, not progress.

        But what it started and what then ends again and again, within ``TRIAL`` seconds, never converged
        (CONTRACT section 4: a generation ends as degraded also when crash looping).

        ``fresh`` False: the plan rests on a look from before the generation, which can't end it.
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
            # A degraded generation that recovers by itself has converged after all.
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
