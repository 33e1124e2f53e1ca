"""What the hooks after a start mean for the plan: when they are due, and what follows if they fail. Pure.

A service is not ready before they have succeeded. If one fails, the start failed: the container is stopped,
and started again after the back-off.
"""

from __future__ import annotations

from reconciler.model.ledger import Ledger
from reconciler.model.observed import Action, Container, State
from reconciler.model.stack import Service
from reconciler.planning.ordering import PlanningContext
from reconciler.planning.plan_types import ServicePlan
from reconciler.planning.step_factory import step_for, step_or_backoff, stop_for

FAILED = "hook_failed"
"""The reason of a step that failed because a hook did."""


def hooks_due(ledger: Ledger, container: Container) -> bool:
    """Whether this daemon started the container and its post_start hooks have not succeeded yet."""
    return container.id in ledger.hooks


def run_hooks(
    scratch: PlanningContext, service: Service, verdict: ServicePlan, container: Container
) -> ServicePlan | None:
    """The step that is due because of post_start hooks; None where they are none of it."""
    if container.state is not State.RUNNING or not hooks_due(scratch.ledger, container):
        return None
    if not scratch.ledger.hooks[container.id]:
        why = "its post_start hooks have to run"
        return step_or_backoff(
            scratch, verdict, step_for(scratch, service, Action.POST_START, "hook", why, container)
        )
    failure = scratch.ledger.failures.get(service.name)
    stop = stop_for(scratch, service, container, "hook", "a post_start hook failed, so that the start failed")
    if failure is not None and failure.reason == FAILED:
        # At once: the back-off of the failed hook is waited out by the start that follows.
        return verdict.with_step(stop)
    return step_or_backoff(scratch, verdict, stop)
