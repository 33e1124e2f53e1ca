"""A service that runs and is not well: unhealthy for too long, or ending again and again. Pure."""

from __future__ import annotations

from reconciler.model.observed import Action, Container, State
from reconciler.model.stack import Service
from reconciler.planning.drift import DriftKind
from reconciler.planning.ordering import PlanningContext, awaits_acceptance
from reconciler.planning.plan_types import ServicePlan, Wait
from reconciler.planning.step_factory import (
    pull_step,
    start_blocked_by,
    step_for,
    step_or_backoff,
    stop_for_recreate,
)

_FAILS = "runs, but its health check fails"


def crash_loop_wait(scratch: PlanningContext, container: Container, calm: float | None) -> Wait:
    """The wait of what ends again and again. ``calm``: the monotonic second at which it would be over."""
    known = scratch.ledger.exits.get(container.service)
    code = container.exit_code
    if container.state is State.RUNNING and known is not None and known.container == container.id:
        code = known.code
    last = f", last with code {code}" if code or container.state is State.RESTARTING else ""
    return Wait("crash_looping", f"ends again and again{last}", until=calm)


def unhealthy_action(
    scratch: PlanningContext, service: Service, verdict: ServicePlan, container: Container
) -> ServicePlan:
    """What is done about a service that stays unhealthy, as its group says; not for ever."""
    name, now = service.name, scratch.now.mono
    policy = scratch.stack.groups[verdict.group].unhealthy
    since = scratch.ledger.unhealthy.get(name)
    if policy.action == "report":
        return verdict._replace(wait=Wait("unhealthy", _FAILS))
    due = (since.since if since else now) + policy.after
    if now < due:
        return verdict._replace(wait=Wait("unhealthy", _FAILS, until=due))
    recent = [at for at in scratch.ledger.healed.get(name, ()) if now - at < policy.window]
    if len(recent) >= policy.limit:
        tried = f"{len(recent)} attempts to mend it in the last {policy.window / 60:g} minutes"
        until = min(recent) + policy.window if recent else None
        return verdict._replace(wait=Wait("unhealthy", f"{_FAILS} still, after {tried}", until=until))
    hindrance = start_blocked_by(scratch, service, verdict, container)
    if hindrance is not None:
        return hindrance
    why = f"its health check fails for longer than {policy.after:g} s"
    if policy.action != "recreate" or awaits_acceptance(scratch, service, container):
        return stop_for_recreate(scratch, service, verdict, container, DriftKind.UNHEALTHY, why)
    absent = pull_step(scratch, service, verdict)
    if absent is not None:
        return absent
    step = step_for(scratch, service, Action.RECREATE, DriftKind.UNHEALTHY, why, container)
    tried_verdict = step_or_backoff(scratch, verdict, step)
    return tried_verdict._replace(ready=False) if tried_verdict.step else tried_verdict
