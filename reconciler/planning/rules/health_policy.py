"""Plan for services that run but fail: unhealthy for too long, or crash looping. Pure."""

from __future__ import annotations

from reconciler.model.observed import Action, Container, State
from reconciler.planning.comparison import Comparison
from reconciler.planning.context import Earlier, PlanningContext
from reconciler.planning.drift import DriftKind
from reconciler.planning.plan_types import Wait
from reconciler.planning.rules.decision import (
    Decision,
    Unit,
    attempt,
    hold,
    pull_step,
    start_blocked_by,
    stop_for_recreate,
)

_FAILS = "runs, but its health check fails"


def crash_loop_wait(context: PlanningContext, container: Container, stable_at: float | None) -> Wait:
    """Return the wait of a crash loop; ``stable_at`` is the monotonic second at which it would end."""
    known = context.ledger.exits.get(container.service)
    code = container.exit_code
    if container.state is State.RUNNING and known is not None and known.container == container.id:
        code = known.code
    last = f", last with code {code}" if code or container.state is State.RESTARTING else ""
    return Wait("crash_looping", f"ends again and again{last}", until=stable_at)


def unhealthy_action(
    context: PlanningContext, earlier: Earlier, unit: Unit, comparison: Comparison
) -> Decision:
    """Apply the group's policy to a service that stays unhealthy, up to the policy's limit."""
    name, now, container = unit.service.name, context.now.mono, comparison.container
    policy = context.stack.groups[unit.gate.group].unhealthy
    since = context.ledger.unhealthy.get(name)
    if policy.action == "report":
        return hold(Wait("unhealthy", _FAILS))
    due = (since.since if since else now) + policy.after
    if now < due:
        return hold(Wait("unhealthy", _FAILS, until=due))
    recent = [at for at in context.ledger.healed.get(name, ()) if now - at < policy.window]
    if len(recent) >= policy.limit:
        tried = f"{len(recent)} attempts to repair it in the last {policy.window / 60:g} minutes"
        until = min(recent) + policy.window if recent else None
        return hold(Wait("unhealthy", f"{_FAILS} still, after {tried}", until=until))
    blocked = start_blocked_by(context, earlier, unit)
    if blocked is not None:
        return blocked
    why = f"its health check has failed for more than {policy.after:g} s"
    if policy.action != "recreate" or comparison.held:
        return stop_for_recreate(context, unit, container, DriftKind.UNHEALTHY, why)
    pull = pull_step(context, earlier, unit)
    if pull is not None:
        return pull
    decision = attempt(context, unit, Action.RECREATE, DriftKind.UNHEALTHY, why, container)
    return decision._replace(ready=decision.step is None)
