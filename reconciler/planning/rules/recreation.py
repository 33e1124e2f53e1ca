"""Rules that create, replace, remove or repair the container of a service that is on. Pure."""

from __future__ import annotations

from reconciler.model.observed import ALIVE, Action, Container, State
from reconciler.planning.comparison import Comparison, wanted_policy
from reconciler.planning.context import Earlier, PlanningContext
from reconciler.planning.drift import DriftKind
from reconciler.planning.ordering import unmet_dependency
from reconciler.planning.plan_types import Block, Wait
from reconciler.planning.rules.decision import (
    Decision,
    Unit,
    attempt,
    hold,
    missing_mount,
    mount_unstable,
    name_conflict,
    pull_step,
    step_for,
    step_or_backoff,
    stop_action,
    stop_for_recreate,
    wait_for_removal,
)


def create(context: PlanningContext, earlier: Earlier, unit: Unit) -> Decision:
    """Create the missing container, after its image and mounts are present."""
    # Created before dependencies are ready: one Compose call creates all missing containers, and only
    # starts wait.
    service = unit.service
    pull = pull_step(context, earlier, unit)
    if pull is not None:
        return pull
    taken = name_conflict(context, service, service.container_name)
    if taken is not None:
        return hold(taken)
    if service.mounts:
        blocked = missing_mount(context, unit) or mount_unstable(context, unit)
        if blocked is not None:
            return blocked
    for parent in service.shares:
        if parent not in context.stack.group_of and context.stack.services[parent].replicas == 0:
            message = f"shares the network or processes of {parent}, which is scaled to zero"
            return hold(Block("dependency_scaled_to_zero", message))
        if parent not in context.selected and not earlier.creates(parent):
            message = f"waits for {parent}, whose network or processes it shares"
            return hold(Wait("dependency_not_ready", message, (parent,)))
    step = step_for(context, service, Action.CREATE, "missing", "has no container", None)
    return step_or_backoff(context, service.name, unit.inputs, step)


def remove_duplicate(
    context: PlanningContext, earlier: Earlier, unit: Unit, container: Container
) -> Decision:
    """Stop, then remove a duplicate container of a service. Volumes stay."""
    others = sorted((c for c in unit.containers if c.id != container.id), key=lambda c: (c.created_at, c.id))
    other = next((c for c in others if c.state in ALIVE), None)
    if other is None:
        other = next((c for c in others if c.state is not State.REMOVING), None)
        if other is None:
            return hold(wait_for_removal())
        why = f"{other.name} is a second container"
        return attempt(context, unit, Action.REMOVE, "duplicate", why, other)
    unmet = None if container.state in ALIVE else unmet_dependency(context, earlier, unit.service)
    if unmet is not None:
        # A running container is stopped only if the selected one could start now.
        return hold(unmet)
    why = f"{other.name} is a second container"
    return attempt(context, unit, stop_action(other), "duplicate", why, other)


def recreate(
    context: PlanningContext, earlier: Earlier, unit: Unit, container: Container, cause: DriftKind, why: str
) -> Decision:
    """Return the next step of a recreation, one per pass: fetch the image, stop, recreate.

    Stops a running container only when its successor can be created and started at once.
    """
    comparison, name = unit.comparison, unit.service.name_of(container.number)
    renames = comparison is not None and comparison.immutable and comparison.name
    taken = name_conflict(context, unit.service, name) if renames else None
    if taken is not None:
        return hold(taken)
    blocked = (
        missing_mount(context, unit) or pull_step(context, earlier, unit) or mount_unstable(context, unit)
    )
    if blocked is not None:
        return blocked
    if container.state not in ALIVE:
        return attempt(context, unit, Action.RECREATE, cause, why, container)
    unmet = unmet_dependency(context, earlier, unit.service)
    if unmet is not None:
        return hold(unmet)
    return stop_for_recreate(context, unit, container, cause, why)


def repair_in_place(context: PlanningContext, unit: Unit, comparison: Comparison) -> Decision:
    """Undo a manual change of the name or restart policy without a restart."""
    service, container = unit.service, comparison.container
    why = next(drift.detail for drift in unit.drifts if drift.kind is DriftKind.ALTERED)
    if comparison.name:
        name = service.name_of(container.number)
        taken = name_conflict(context, service, name)
        if taken is not None:
            return hold(taken)
        return attempt(context, unit, Action.RENAME, "altered", why, container, name)
    policy = wanted_policy(context.stack, service)
    return attempt(context, unit, Action.UPDATE, "altered", why, container, policy)
