"""Rules for a service whose group is on: its drift and the next step.

``plan`` calls ``plan_service`` in start order. A change of several actions (recreate, restart) is a sequence
of phases that any pass can continue: no step depends on memory of the previous one.
"""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.model.fingerprint import OFF
from reconciler.model.observed import ALIVE, Action, Container, Health, State
from reconciler.model.stack import Service, service_of
from reconciler.planning.drift import (
    Drift,
    DriftKind,
    attempt_fingerprint,
    crash_loops,
    desired_fingerprint,
    differences,
    has_completed,
    is_ready,
    same_definition,
    same_image,
    stale_namespaces,
    stop_reason,
    wanted_policy,
)
from reconciler.planning.gates import GroupGate
from reconciler.planning.health_policy import crash_loop_wait, unhealthy_action
from reconciler.planning.mounts import changed_mounts
from reconciler.planning.ordering import (
    PlanningContext,
    awaits_acceptance,
    blocked_by_dependents,
    can_stop_for_restart,
    is_restart_due,
    missing_mount,
    mount_unstable,
    must_recreate,
    parent_restarted,
    recreated_externally,
    unmet_dependency,
)
from reconciler.planning.plan_types import Block, ServicePlan, Step, Wait
from reconciler.planning.start_hooks import hooks_due, run_hooks
from reconciler.planning.step_factory import (
    held_back,
    pull_step,
    start_blocked_by,
    state_unknown,
    step_for,
    step_or_backoff,
    stop_for,
    stop_for_recreate,
    wait_for_name,
    wait_for_removal,
)

NEVER_STARTS = frozenset({"network_missing", "start_left_over"})
"""Failure reasons of a container that never starts again, while a new one would (PITFALLS row 25)."""


def plan_service(context: PlanningContext, gate: GroupGate, service: Service) -> ServicePlan:
    """Return the plan of a service whose group is on."""
    name = service.name
    containers = context.containers.get(name, ())
    container = context.selected.get(name)
    wants = desired_fingerprint(service, gate.state)
    ready = (
        container is not None
        and is_ready(container)
        and not (context.ledger.hooks and hooks_due(context.ledger, container))
        and name not in context.stack.one_shots
        and (
            name not in context.ledger.restarts or crash_loops(context.ledger, container, context.now) is None
        )
    )
    if (
        container is not None
        and ready
        and len(containers) == 1
        and _is_settled(context, gate, service, container)
    ):
        return ServicePlan(name, gate.group, True, True, True, container, wants)
    inputs = attempt_fingerprint(service, gate.state, context.observed, wants)
    done = container is not None and has_completed(context.stack, context.ledger, service, container)
    renaming = context.ledger.renaming
    pending = context.ledger.settled.get(service_of(name)) != wants or (
        renaming is not None and renaming.held and renaming.name == context.stack.name
    )
    drifts = differences(
        context.stack,
        context.observed,
        context.ledger,
        service,
        containers,
        context.selected,
        done=done,
        pending=pending,
    )
    verdict = ServicePlan(
        name,
        gate.group,
        True,
        ready,
        False,
        container,
        wants,
        inputs,
        done,
        drifts=drifts,
    )
    if gate.hold is not None:
        # A block is reported even if nothing differs; a wait only delays what differs.
        settled = isinstance(gate.hold, Wait) and not drifts and (done or ready)
        return held_back(verdict._replace(settled=settled), gate.hold)
    verdict = _next_action(context, gate, service, verdict, containers)
    if verdict.settled and container is not None and awaits_acceptance(context, service, container):
        return verdict._replace(settled=False, block=_held_back_block(gate, verdict))
    return verdict


def _held_back_block(gate: GroupGate, verdict: ServicePlan) -> Block:
    changes = [
        d for d in verdict.drifts if d.kind in {DriftKind.DEFINITION, DriftKind.IMAGE, DriftKind.MOUNTS}
    ]
    message = f"{verdict.service}: {'; '.join(d.detail for d in changes)}: waits to be accepted"
    return Block("held_back", f"{message} (`service-manager accept {gate.group}`)")


def _is_settled(context: PlanningContext, gate: GroupGate, service: Service, container: Container) -> bool:
    # Nearly every service takes this path in nearly every pass, so it allocates nothing.
    if gate.hold is not None:
        return False
    made = context.ledger.made.get(container.id)
    return (
        (
            container.name == service.container_name
            if container.number < 2
            else container.name == service.name_of(container.number)
        )
        and container.networks == service.networks
        and container.restart == wanted_policy(context.stack, service)
        and same_definition(service, container, made)
        and same_image(container, context.observed.images.get(service.image), made)
        and not (service.mounts and changed_mounts(service, container, context.observed, made))
        and not (gate.restart_at is not None and is_restart_due(context, gate, service.name))
        and parent_restarted(context, service, container) is None
        and not (
            (container.joins or container.borrowed) and stale_namespaces(service, container, context.selected)
        )
    )


def _next_action(
    context: PlanningContext,
    gate: GroupGate,
    service: Service,
    verdict: ServicePlan,
    containers: Sequence[Container],
) -> ServicePlan:
    """Return the next step, wait or block of a service that differs from desired state. First match wins."""
    container = verdict.container
    if (
        gate.start_hold is not None
        and (container is None or container.state not in ALIVE)
        and not verdict.done
    ):
        return held_back(verdict, gate.start_hold)
    if container is None:
        return _create(context, service, verdict)
    if container.state is State.REMOVING:
        return verdict._replace(wait=wait_for_removal())
    if container.state is State.DEAD:
        return step_or_backoff(
            context, verdict, step_for(context, service, Action.REMOVE, "stopped", "is dead", container)
        )
    remade = recreated_externally(context, service)
    if remade is not None:
        return verdict._replace(wait=remade)
    if len(containers) > 1:
        return _remove_duplicate(context, service, verdict, container, containers)
    if can_stop_for_restart(context, gate, service.name):
        held = blocked_by_dependents(context, service)
        if held:
            return verdict._replace(wait=held, ready=False)
        return stop_for_recreate(context, service, verdict, container, "restart", "a restart was requested")
    kinds = {drift.kind for drift in verdict.drifts}
    if must_recreate(context, service, container):
        cause = next(
            k
            for k in (DriftKind.DEFINITION, DriftKind.IMAGE, DriftKind.MOUNTS, DriftKind.ALTERED)
            if k in kinds
        )
        why = next(drift.detail for drift in verdict.drifts if drift.kind is cause)
        return _recreate(context, service, verdict._replace(done=False), container, cause, why)
    if DriftKind.ALTERED in kinds:
        mended = _repair_in_place(context, service, verdict, container)
        if mended is not None:
            return mended
    if container.state is State.PAUSED:
        step = step_for(context, service, Action.UNPAUSE, "paused", "is paused", container)
        return step_or_backoff(context, verdict, step)
    if container.state is State.RESTARTING:
        return verdict._replace(wait=crash_loop_wait(context, container, None))
    if container.state is State.RUNNING:
        return _running(context, service, verdict, container)
    if verdict.done:
        return verdict._replace(settled=True)
    return _start(context, service, verdict, container)


def _create(context: PlanningContext, service: Service, verdict: ServicePlan) -> ServicePlan:
    # Created before dependencies are ready: one Compose call creates all missing containers, and only
    # starts wait.
    pull = pull_step(context, service, verdict)
    if pull is not None:
        return pull
    if service.container_name in context.observed.foreign:
        return verdict._replace(wait=wait_for_name(service))
    if service.mounts:
        missing = missing_mount(context, service, None)
        if missing is not None:
            return verdict._replace(block=missing)
        moving = mount_unstable(context, service)
        if moving is not None:
            return verdict._replace(wait=moving)
    for parent in service.shares:
        if parent not in context.stack.group_of and context.stack.services[parent].replicas == 0:
            message = f"shares the network or processes of {parent}, which is scaled to zero"
            return verdict._replace(block=Block("dependency_scaled_to_zero", message))
        if context.selected.get(parent) is None and parent not in context.creating:
            wait = Wait(
                "dependency_not_ready", f"waits for {parent}, whose network or processes it shares", (parent,)
            )
            return verdict._replace(wait=wait)
    return step_or_backoff(
        context, verdict, step_for(context, service, Action.CREATE, "missing", "has no container", None)
    )


def _remove_duplicate(
    context: PlanningContext,
    service: Service,
    verdict: ServicePlan,
    container: Container,
    containers: Sequence[Container],
) -> ServicePlan:
    """Stop, then remove a duplicate container of a service. Volumes stay."""
    others = sorted((c for c in containers if c.id != container.id), key=lambda c: (c.created_at, c.id))
    other = next((c for c in others if c.state in ALIVE), None)
    if other is None:
        other = next((c for c in others if c.state is not State.REMOVING), None)
        if other is None:
            return verdict._replace(wait=wait_for_removal())
        why = f"{other.name} is a second container"
        return step_or_backoff(
            context, verdict, step_for(context, service, Action.REMOVE, "duplicate", why, other)
        )
    waits = None if container.state in ALIVE else unmet_dependency(context, service)
    if waits:
        # A running container is stopped only if the selected one could start now.
        return verdict._replace(wait=waits)
    why = f"{other.name} is a second container"
    return step_or_backoff(context, verdict, stop_for(context, service, other, "duplicate", why))


def _recreate(
    context: PlanningContext,
    service: Service,
    verdict: ServicePlan,
    container: Container,
    cause: DriftKind,
    why: str,
) -> ServicePlan:
    """Replace the container, one phase per pass: fetch, wait, stop, recreate.

    A running container is not stopped before its successor can be created and started at once.
    """
    missing = missing_mount(context, service, container)
    if missing is not None:
        return verdict._replace(block=missing)
    pull = pull_step(context, service, verdict)
    if pull is not None:
        return pull
    moving = mount_unstable(context, service)
    if moving is not None:
        return verdict._replace(wait=moving)
    if container.state not in ALIVE:
        return step_or_backoff(
            context, verdict, step_for(context, service, Action.RECREATE, cause, why, container)
        )
    waits = unmet_dependency(context, service)
    if waits:
        return verdict._replace(wait=waits)
    return stop_for_recreate(context, service, verdict, container, cause, why)


def _repair_in_place(
    context: PlanningContext, service: Service, verdict: ServicePlan, container: Container
) -> ServicePlan | None:
    """Undo a manual change of name or restart policy without a restart; None if neither differs."""
    why = next(drift.detail for drift in verdict.drifts if drift.kind is DriftKind.ALTERED)
    proper = service.name_of(container.number)
    if container.name != proper:
        if proper in context.observed.foreign:
            return verdict._replace(wait=wait_for_name(service))
        step = step_for(context, service, Action.RENAME, "altered", why, container, proper)
        return step_or_backoff(context, verdict, step)
    policy = wanted_policy(context.stack, service)
    if container.restart != policy:
        step = step_for(context, service, Action.UPDATE, "altered", why, container, policy)
        return step_or_backoff(context, verdict, step)
    return None


def _running(
    context: PlanningContext, service: Service, verdict: ServicePlan, container: Container
) -> ServicePlan:
    hooked = run_hooks(context, service, verdict, container)
    if hooked is not None:
        return hooked
    parent = parent_restarted(context, service, container)
    if parent is not None:
        blocked = start_blocked_by(context, service, verdict, container)
        if blocked is not None:
            return blocked
        return stop_for_recreate(context, service, verdict, container, "follows", f"{parent} was restarted")
    stable_at = crash_loops(context.ledger, container, context.now)
    if stable_at is not None:
        return verdict._replace(wait=crash_loop_wait(context, container, stable_at))
    if container.health is Health.UNHEALTHY:
        return unhealthy_action(context, service, verdict, container)
    if not is_ready(container):
        return verdict._replace(wait=Wait("starting", "waits for its own health check to succeed"))
    if not verdict.ready:
        return verdict._replace(wait=Wait("completing", "runs until its work is complete"))
    return verdict._replace(settled=True)


def _start(
    context: PlanningContext, service: Service, verdict: ServicePlan, container: Container
) -> ServicePlan:
    blocked = start_blocked_by(context, service, verdict, container)
    if blocked is not None:
        return blocked
    failure = context.ledger.failures.get(service.name)
    if (
        failure is not None
        and failure.inputs == verdict.inputs
        and failure.reason in NEVER_STARTS
        and failure.container == container.id
        # Compose does not create a network of `network_mode: missing`, with a new container neither.
        and (service.networks or failure.reason != "network_missing" or container.state is not State.CREATED)
    ):
        why = f"can't be started any more: {failure.error}"
        if awaits_acceptance(context, service, container):
            return verdict._replace(block=Block("held_back", f"{why}; its replacement waits to be accepted"))
        return _recreate(context, service, verdict, container, DriftKind.STOPPED, why)
    why = stop_reason(container)
    return step_or_backoff(
        context, verdict, step_for(context, service, Action.START, "stopped", why, container)
    )


def plan_orphan(context: PlanningContext, name: str, containers: Sequence[Container]) -> ServicePlan:
    """Stop, then remove the containers of a service that left the files, with ``prune``. Volumes stay."""
    nowhere = "belongs to no service in the files"
    drifts = tuple(Drift(name, DriftKind.ORPHAN, True, f"{c.name} {nowhere}", c.id) for c in containers)
    verdict = ServicePlan(name, "", False, False, False, containers[0], OFF, inputs="gone", drifts=drifts)
    odd = next((c for c in containers if c.state is State.UNKNOWN), None)
    if odd is not None:
        return verdict._replace(block=state_unknown(odd))
    container = next((c for c in containers if c.state in ALIVE), None)
    action = Action.STOP
    if container is None:
        action = Action.REMOVE
        container = next((c for c in containers if c.state is not State.REMOVING), None)
    elif container.state is State.PAUSED:
        action = Action.UNPAUSE
    if container is None:
        return verdict._replace(wait=wait_for_removal())
    why = f"{container.name} {nowhere}"
    grace = 10.0 if container.grace is None else container.grace
    return step_or_backoff(context, verdict, Step(name, action, "orphan", why, container.id, grace=grace))
