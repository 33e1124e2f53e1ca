"""Plan post_start hooks: when they are due and what follows a failure. Pure.

A service is not ready before its hooks succeed. A failed hook fails the start: the container is stopped and
started again after the back-off.
"""

from __future__ import annotations

from reconciler.model.ledger import Ledger
from reconciler.model.observed import Action, Container, State
from reconciler.planning.context import PlanningContext
from reconciler.planning.rules.decision import Decision, Unit, attempt, step_for, stop_action

FAILED = "hook_failed"
"""The failure reason of a step whose hook failed."""


def hooks_due(ledger: Ledger, container: Container) -> bool:
    """Whether this daemon started the container and its post_start hooks have not succeeded yet."""
    return container.id in ledger.hooks


def run_hooks(context: PlanningContext, unit: Unit, container: Container) -> Decision | None:
    """Return the step for post_start hooks; None when no hook is due."""
    if container.state is not State.RUNNING or not hooks_due(context.ledger, container):
        return None
    if not context.ledger.hooks[container.id]:
        return attempt(
            context, unit, Action.POST_START, "hook", "its post_start hooks have to run", container
        )
    action, why = stop_action(container), "a post_start hook failed, so the start failed"
    failure = context.ledger.failures.get(unit.service.name)
    if failure is not None and failure.reason == FAILED:
        # Stop at once: the next start waits for the back-off of the failed hook.
        return Decision(step_for(context, unit.service, action, "hook", why, container))
    return attempt(context, unit, action, "hook", why, container)
