"""Records steps in the ledger: their reasons and inputs when they are sent, then their results.

Each function takes a ledger and returns a new one. Pure, except that ``StepTracker`` remembers the last steps
until the daemon stops.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from reconciler.errors import ContainerGone, EngineError, EngineUnavailable, OutcomeUnknown, StepFailed
from reconciler.model.desired import Desired
from reconciler.model.ledger import UNKNOWN, BuiltFrom, Clock, Ledger, ParentRuns
from reconciler.model.ledger_updates import omit, record_failure
from reconciler.model.observed import Action, Container, ObservedState
from reconciler.model.stack import Stack
from reconciler.planning.drift import DriftKind
from reconciler.planning.mounts import current_mounts, self_write_counts
from reconciler.planning.planner import Plan, ServicePlan, Step

MOST_HEALED = 100
"""Repairs of an unhealthy service that are recorded; the maximum of a policy's limit."""


class StepContext(NamedTuple):
    """The inputs that a step was planned from, and the plan."""

    stack: Stack
    desired: Desired
    observed: ObservedState
    plan: Plan


@dataclass(frozen=True, slots=True)
class _Sent:
    # A stop responds, once, to a restart request (wall seconds) or to a new run of a parent (empty: unknown).
    mark: tuple[object, ...]
    inputs: str
    restart_request: float | None = None
    parent_run: str | None = None


class StepTracker:
    """The last step sent for each unit, and the last one that the engine reported as done."""

    def __init__(self) -> None:
        self._sent: dict[str, _Sent] = {}
        self._done: dict[str, tuple[object, ...]] = {}

    def had_no_effect(self, step: Step, plan: Plan) -> bool:
        """Return True, once, if the engine reported this step as done but nothing changed."""
        mark = _identity(step, plan)
        if self._done.get(step.key) != mark:
            return False
        del self._done[step.key]
        return True

    def forget(self, plan: Plan) -> None:
        """Forget steps reported as done that the plan no longer contains: if planned again, they are new."""
        for name in list(self._done):
            one = plan.unit(name)
            if one is None or one.step is None or _identity(one.step, plan) != self._done[name]:
                del self._done[name]

    def before_send(self, ledger: Ledger, step: Step, on: StepContext, now: Clock) -> Ledger:
        """Record a step about to be sent, before its effect can be observed."""
        inputs = _plan_of(step, on.plan).inputs
        self._sent[step.key] = _Sent(
            _identity(step, on.plan), inputs, _restart_request(step, on), _parent_run(step, on)
        )
        if step.action in {Action.CREATE, Action.RECREATE}:
            ledger = _record_creation(ledger, step, on, now)
        elif step.action is Action.STOP:
            # This daemon causes the exit: record neither a failure nor evidence.
            runs = {c.id: c.started_at for c in on.observed.containers if c.id == step.container}
            ledger = replace(ledger, stopped={**ledger.stopped, **runs})
        elif step.action is Action.START:
            if step.key in (on.plan.stack or on.stack).follows:
                ledger = _record_parent_runs(ledger, step, on)
            service = on.stack.services.get(step.service)
            if service is not None and service.start.post_start:
                ledger = replace(ledger, hooks={**ledger.hooks, step.container: False})
        if step.cause == DriftKind.UNHEALTHY:
            times = (*ledger.healed.get(step.key, ()), now.mono)[-MOST_HEALED:]
            ledger = replace(ledger, healed={**ledger.healed, step.key: times})
        return ledger

    def after_send(
        self, ledger: Ledger, step: Step, error: EngineError | None, now: Clock, *, chance: float
    ) -> Ledger:
        """Record the result of a step; ``error`` None means success. ``chance`` in [0, 1) is the jitter."""
        name = step.key
        sent = self._sent.get(name, _Sent((), ""))
        self._done.pop(name, None)
        if error is not None:
            if isinstance(error, StepFailed):
                ledger = _record_failed_hook(_revert_record(ledger, step), step)
            # A step with an unknown outcome, or for a container that is gone, says nothing about the
            # service: the next observation decides, and only repeated errors cause a back-off.
            free = 1 if isinstance(error, (EngineUnavailable, OutcomeUnknown, ContainerGone)) else 0
            return record_failure(
                ledger,
                name,
                inputs=sent.inputs,
                reason=error.reason,
                error=str(error),
                now=now,
                chance=chance,
                free=free,
                container=step.container,
            )
        self._done[name] = sent.mark
        if step.action in {Action.POST_START, Action.STOP} and step.container in ledger.hooks:
            ledger = replace(ledger, hooks=omit(ledger.hooks, [step.container]))
        if step.action is Action.START:
            return replace(ledger, live={**ledger.live, name: step.container})
        if sent.parent_run is not None:
            ledger = replace(ledger, followed={**ledger.followed, name: sent.parent_run})
        if sent.restart_request is not None:
            ledger = replace(ledger, restarted={**ledger.restarted, name: sent.restart_request})
        return ledger


def record_ineffective_step(ledger: Ledger, step: Step, plan: Plan, now: Clock, *, chance: float) -> Ledger:
    """Delay a step that the engine reports as done without effect (PITFALLS row 23)."""
    return record_failure(
        ledger,
        step.key,
        inputs=_plan_of(step, plan).inputs,
        reason="no_effect",
        error=f"the engine reported {step.action} as done, but nothing changed; if this continues, "
        "restart Docker",
        now=now,
        chance=chance,
        free=1,
        container=step.container,
    )


def _plan_of(step: Step, plan: Plan) -> ServicePlan:
    return plan.unit(step.key) or plan.services[step.service]


def _identity(step: Step, plan: Plan) -> tuple[object, ...]:
    """Return the step with the state it acts on. An equal value after a success means: no effect."""
    service_plan = _plan_of(step, plan)
    seen = service_plan.container
    state = (seen.id, seen.state, seen.started_at, seen.finished_at) if seen else ()
    return (step.action, step.container, step.value, service_plan.inputs, state)


def _record_creation(ledger: Ledger, step: Step, on: StepContext, now: Clock) -> Ledger:
    service = on.stack.services.get(step.service)
    if service is None:
        return ledger
    # The plan compared the container that the step replaces; a new service has none.
    replaced = _plan_of(step, on.plan).comparison
    made = BuiltFrom(
        service.definition,
        service.fields,
        on.observed.images.get(service.image, ""),
        replaced.networks if replaced else (),
        now.wall,
        current_mounts(service, on.observed),
        self_write_counts(service, replaced.container, on.observed, replaced.made, replaced.mounts)
        if replaced
        else {},
        on.stack.inputs,
        on.stack.compose,
    )
    # Existing containers are not the result of this step, whatever is observed while it runs.
    existing = (c.id for c in on.observed.containers if c.service == step.service)
    return replace(
        ledger,
        made={**dict.fromkeys(existing, UNKNOWN), **ledger.made},
        making={**ledger.making, step.key: made},
    )


def _record_failed_hook(ledger: Ledger, step: Step) -> Ledger:
    if step.container not in ledger.hooks:
        return ledger
    if step.action is Action.START:
        # The start failed, so no hook has to follow.
        return replace(ledger, hooks=omit(ledger.hooks, [step.container]))
    if step.action is Action.POST_START:
        return replace(ledger, hooks={**ledger.hooks, step.container: True})
    return ledger


def _record_parent_runs(ledger: Ledger, step: Step, on: StepContext) -> Ledger:
    # A parent's run that was observed before this start is older than the run that begins now. The clock may
    # be wrong, so start times are not compared.
    runs = {name: parent.run for name, parent in _parents(step, on).items() if parent.started_at}
    return replace(ledger, tied={**ledger.tied, step.key: ParentRuns("", runs)})


def _parents(step: Step, on: StepContext) -> dict[str, Container]:
    """Return the containers that the unit follows, by unit."""
    names = (on.plan.stack or on.stack).follows.get(step.key, ())
    plans = ((name, on.plan.unit(name)) for name in names)
    return {name: v.container for name, v in plans if v is not None and v.container is not None}


def _restart_request(step: Step, on: StepContext) -> float | None:
    """Return the wall time of the restart request that the step carries out; None if it does not."""
    if step.action is not Action.STOP or step.cause != "restart":
        return None
    return on.desired.groups[on.stack.group_of[step.service]].restarted_at


def _parent_run(step: Step, on: StepContext) -> str | None:
    """Return the parent's run that the step follows; None if it follows none."""
    if step.action is not Action.STOP or step.cause != "follows":
        return None
    parents = _parents(step, on).values()
    return max(parents, key=lambda c: c.started_at).run if parents else ""


def _revert_record(ledger: Ledger, step: Step) -> Ledger:
    # The engine refused, so revert the record made when the step was sent.
    if step.action is Action.STOP:
        return replace(ledger, stopped=omit(ledger.stopped, [step.container]))
    if step.action in {Action.CREATE, Action.RECREATE}:
        return replace(ledger, making=omit(ledger.making, [step.key]))
    return ledger
