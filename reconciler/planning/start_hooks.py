"""Plan post_start hooks: when they are due and what follows a failure. Pure.

A service is not ready before its hooks succeed. A failed hook fails the start: the container is stopped and
started again after the back-off.
"""

from __future__ import annotations

from reconciler.model.ledger import Ledger
from reconciler.model.observed import Action, Container, State
from reconciler.model.stack import Service
from reconciler.planning.ordering import PlanningContext
from reconciler.planning.plan_types import ServicePlan
from reconciler.planning.step_factory import step_for, step_or_backoff, stop_for

FAILED = "hook_failed"
"""The failure reason of a step whose hook failed."""


def hooks_due(ledger: Ledger, container: Container) -> bool:
    """Whether this daemon started the container and its post_start hooks have not succeeded yet."""
    return container.id in ledger.hooks


def run_hooks(
    context: PlanningContext, service: Service, verdict: ServicePlan, container: Container
) -> ServicePlan | None:
    """Return the service plan with the step for post_start hooks; None when no hook is due."""
    if container.state is not State.RUNNING or not hooks_due(context.ledger, container):
        return None
    if not context.ledger.hooks[container.id]:
        why = "its post_start hooks have to run"
        return step_or_backoff(
            context, verdict, step_for(context, service, Action.POST_START, "hook", why, container)
        )
    failure = context.ledger.failures.get(service.name)
    stop = stop_for(context, service, container, "hook", "a post_start hook failed, so the start failed")
    if failure is not None and failure.reason == FAILED:
        # Stop at once: the next start waits for the back-off of the failed hook.
        return verdict.with_step(stop)
    return step_or_backoff(context, verdict, stop)
