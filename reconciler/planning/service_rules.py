"""A service whose group is on: what differs, and the one thing to do about it now.

``plan`` calls ``plan_service`` in start order. Whatever takes several actions (a remake, a restart) is a row
of phases, each of which any pass can pick up: no step knows of the one before it.
"""

from __future__ import annotations

from collections.abc import Sequence

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
from reconciler.planning.health_policy import crash_loop_wait, unhealthy_action
from reconciler.planning.mounts import changed_mounts
from reconciler.planning.ordering import (
    GroupGate,
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
    project_renamed,
    pull_step,
    start_blocked_by,
    state_unknown,
    step_for,
    step_or_backoff,
    stop_for,
    stop_for_recreate,
    suspended_wait,
    wait_for_name,
    wait_for_removal,
)

BEYOND_STARTING = frozenset({"network_missing", "start_left_over"})
"""Reasons why a container never starts, or never again, while another one would (PITFALLS row 25)."""


def plan_service(scratch: PlanningContext, gate: GroupGate, service: Service) -> ServicePlan:
    """All there is to say of a service whose group is on."""
    name = service.name
    containers = scratch.found.get(name, ())
    container = scratch.kept.get(name)
    wants = desired_fingerprint(service, gate.state)
    ready = (
        container is not None
        and is_ready(container)
        and not (scratch.ledger.hooks and hooks_due(scratch.ledger, container))
        and name not in scratch.stack.one_shots
        and (
            name not in scratch.ledger.restarts or crash_loops(scratch.ledger, container, scratch.now) is None
        )
    )
    if (
        container is not None
        and ready
        and len(containers) == 1
        and _is_as_wanted(scratch, gate, service, container)
    ):
        return ServicePlan(name, gate.group, True, True, True, container, wants)
    inputs = attempt_fingerprint(service, gate.state, scratch.observed, wants)
    done = container is not None and has_completed(scratch.stack, scratch.ledger, service, container)
    renaming = scratch.ledger.renaming
    pending = scratch.ledger.settled.get(service_of(name)) != wants or (
        renaming is not None and renaming.held and renaming.name == scratch.stack.name
    )
    drifts = differences(
        scratch.stack,
        scratch.observed,
        scratch.ledger,
        service,
        containers,
        scratch.kept,
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
    if gate.suspended:
        return verdict._replace(wait=suspended_wait(gate), settled=not drifts and (done or verdict.ready))
    if gate.block:
        return verdict._replace(block=gate.block, settled=False)
    verdict = _repair(scratch, gate, service, verdict, containers)
    if verdict.settled and container is not None and awaits_acceptance(scratch, service, container):
        return verdict._replace(settled=False, block=_held_back(gate, verdict))
    return verdict


def _held_back(gate: GroupGate, verdict: ServicePlan) -> Block:
    changes = [
        d for d in verdict.drifts if d.kind in {DriftKind.DEFINITION, DriftKind.IMAGE, DriftKind.MOUNTS}
    ]
    message = f"{verdict.service}: {'; '.join(d.detail for d in changes)}: waits to be accepted"
    return Block("held_back", f"{message} (`service-manager accept {gate.group}`)")


def _is_as_wanted(scratch: PlanningContext, gate: GroupGate, service: Service, container: Container) -> bool:
    # The path of nearly every service in nearly every pass, so it builds nothing.
    if gate.block or gate.suspended:
        return False
    made = scratch.ledger.made.get(container.id)
    return (
        (
            container.name == service.container_name
            if container.number < 2
            else container.name == service.name_of(container.number)
        )
        and container.networks == service.networks
        and container.restart == wanted_policy(scratch.stack, service)
        and same_definition(service, container, made)
        and same_image(container, scratch.observed.images.get(service.image), made)
        and not (service.mounts and changed_mounts(service, container, scratch.observed, made))
        and not (gate.restart_at is not None and is_restart_due(scratch, gate, service.name))
        and parent_restarted(scratch, service, container) is None
        and not (
            (container.joins or container.borrowed) and stale_namespaces(service, container, scratch.kept)
        )
    )


def _repair(
    scratch: PlanningContext,
    gate: GroupGate,
    service: Service,
    verdict: ServicePlan,
    containers: Sequence[Container],
) -> ServicePlan:
    """What to do now about a service that is on and not, or not yet, as wanted. First match wins."""
    container = verdict.container
    if (container is None or container.state not in ALIVE) and not verdict.done:
        renamed = project_renamed(scratch, gate)
        if renamed is not None:
            return verdict._replace(block=renamed)
    if container is None:
        return _create(scratch, service, verdict)
    if container.state is State.REMOVING:
        return verdict._replace(wait=wait_for_removal())
    if container.state is State.DEAD:
        return step_or_backoff(
            scratch, verdict, step_for(scratch, service, Action.REMOVE, "stopped", "is dead", container)
        )
    remade = recreated_externally(scratch, service)
    if remade is not None:
        return verdict._replace(wait=remade)
    if len(containers) > 1:
        return _thin_out(scratch, service, verdict, container, containers)
    if can_stop_for_restart(scratch, gate, service.name):
        held = blocked_by_dependents(scratch, service)
        if held:
            return verdict._replace(wait=held, ready=False)
        return stop_for_recreate(scratch, service, verdict, container, "restart", "a restart was asked for")
    kinds = {drift.kind for drift in verdict.drifts}
    if must_recreate(scratch, service, container):
        cause = next(
            k
            for k in (DriftKind.DEFINITION, DriftKind.IMAGE, DriftKind.MOUNTS, DriftKind.ALTERED)
            if k in kinds
        )
        why = next(drift.detail for drift in verdict.drifts if drift.kind is cause)
        return _remake(scratch, service, verdict._replace(done=False), container, cause, why)
    if DriftKind.ALTERED in kinds:
        mended = _mend(scratch, service, verdict, container)
        if mended is not None:
            return mended
    if container.state is State.PAUSED:
        step = step_for(scratch, service, Action.UNPAUSE, "paused", "is paused", container)
        return step_or_backoff(scratch, verdict, step)
    if container.state is State.RESTARTING:
        return verdict._replace(wait=crash_loop_wait(scratch, container, None))
    if container.state is State.RUNNING:
        return _running(scratch, service, verdict, container)
    if verdict.done:
        return verdict._replace(settled=True)
    return _start(scratch, service, verdict, container)


def _create(scratch: PlanningContext, service: Service, verdict: ServicePlan) -> ServicePlan:
    # Made ahead of being needed: all that is missing goes into one Compose call, and only starting
    # has to wait for others.
    absent = pull_step(scratch, service, verdict)
    if absent is not None:
        return absent
    if service.container_name in scratch.observed.foreign:
        return verdict._replace(wait=wait_for_name(service))
    if service.mounts:
        missing = missing_mount(scratch, service, None)
        if missing is not None:
            return verdict._replace(block=missing)
        moving = mount_unstable(scratch, service)
        if moving is not None:
            return verdict._replace(wait=moving)
    for parent in service.shares:
        if parent not in scratch.stack.group_of and scratch.stack.services[parent].replicas == 0:
            message = f"shares the network or processes of {parent}, which is scaled to zero"
            return verdict._replace(block=Block("dependency_scaled_to_zero", message))
        if scratch.kept.get(parent) is None and parent not in scratch.creating:
            wait = Wait(
                "dependency_not_ready", f"waits for {parent}, whose network or processes it shares", (parent,)
            )
            return verdict._replace(wait=wait)
    return step_or_backoff(
        scratch, verdict, step_for(scratch, service, Action.CREATE, "missing", "has no container", None)
    )


def _thin_out(
    scratch: PlanningContext,
    service: Service,
    verdict: ServicePlan,
    container: Container,
    containers: Sequence[Container],
) -> ServicePlan:
    """One container of a service is enough: stop what else runs, then remove it. Volumes stay."""
    others = sorted((c for c in containers if c.id != container.id), key=lambda c: (c.created_at, c.id))
    other = next((c for c in others if c.state in ALIVE), None)
    if other is None:
        other = next((c for c in others if c.state is not State.REMOVING), None)
        if other is None:
            return verdict._replace(wait=wait_for_removal())
        why = f"{other.name} is a second container"
        return step_or_backoff(
            scratch, verdict, step_for(scratch, service, Action.REMOVE, "duplicate", why, other)
        )
    waits = None if container.state in ALIVE else unmet_dependency(scratch, service)
    if waits:
        # What runs is stopped only when the one that is to stay could be started at once.
        return verdict._replace(wait=waits)
    why = f"{other.name} is a second container"
    return step_or_backoff(scratch, verdict, stop_for(scratch, service, other, "duplicate", why))


def _remake(
    scratch: PlanningContext,
    service: Service,
    verdict: ServicePlan,
    container: Container,
    cause: DriftKind,
    why: str,
) -> ServicePlan:
    """Replace the container, one phase per pass: fetch, wait, stop, recreate. Never worse than before.

    Nothing that runs is stopped before its successor could be made and started at once.
    """
    missing = missing_mount(scratch, service, container)
    if missing is not None:
        return verdict._replace(block=missing)
    absent = pull_step(scratch, service, verdict)
    if absent is not None:
        return absent
    moving = mount_unstable(scratch, service)
    if moving is not None:
        return verdict._replace(wait=moving)
    if container.state not in ALIVE:
        return step_or_backoff(
            scratch, verdict, step_for(scratch, service, Action.RECREATE, cause, why, container)
        )
    waits = unmet_dependency(scratch, service)
    if waits:
        return verdict._replace(wait=waits)
    return stop_for_recreate(scratch, service, verdict, container, cause, why)


def _mend(
    scratch: PlanningContext, service: Service, verdict: ServicePlan, container: Container
) -> ServicePlan | None:
    """Undo by hand what was done by hand, without a restart; None where a name is not to be had."""
    why = next(drift.detail for drift in verdict.drifts if drift.kind is DriftKind.ALTERED)
    proper = service.name_of(container.number)
    if container.name != proper:
        if proper in scratch.observed.foreign:
            return verdict._replace(wait=wait_for_name(service))
        step = step_for(scratch, service, Action.RENAME, "altered", why, container, proper)
        return step_or_backoff(scratch, verdict, step)
    policy = wanted_policy(scratch.stack, service)
    if container.restart != policy:
        step = step_for(scratch, service, Action.UPDATE, "altered", why, container, policy)
        return step_or_backoff(scratch, verdict, step)
    return None


def _running(
    scratch: PlanningContext, service: Service, verdict: ServicePlan, container: Container
) -> ServicePlan:
    hooked = run_hooks(scratch, service, verdict, container)
    if hooked is not None:
        return hooked
    parent = parent_restarted(scratch, service, container)
    if parent is not None:
        hindrance = start_blocked_by(scratch, service, verdict, container)
        if hindrance is not None:
            return hindrance
        return stop_for_recreate(scratch, service, verdict, container, "follows", f"{parent} was restarted")
    calm = crash_loops(scratch.ledger, container, scratch.now)
    if calm is not None:
        return verdict._replace(wait=crash_loop_wait(scratch, container, calm))
    if container.health is Health.UNHEALTHY:
        return unhealthy_action(scratch, service, verdict, container)
    if not is_ready(container):
        return verdict._replace(wait=Wait("starting", "waits for its own health check to succeed"))
    if not verdict.ready:
        return verdict._replace(wait=Wait("completing", "runs until it has done its work"))
    return verdict._replace(settled=True)


def _start(
    scratch: PlanningContext, service: Service, verdict: ServicePlan, container: Container
) -> ServicePlan:
    hindrance = start_blocked_by(scratch, service, verdict, container)
    if hindrance is not None:
        return hindrance
    failure = scratch.ledger.failures.get(service.name)
    if (
        failure is not None
        and failure.inputs == verdict.inputs
        and failure.reason in BEYOND_STARTING
        and failure.container == container.id
        # What Compose does not make (`network_mode: missing`), it makes no more with another container.
        and (service.networks or failure.reason != "network_missing" or container.state is not State.CREATED)
    ):
        why = f"can't be started any more: {failure.error}"
        if awaits_acceptance(scratch, service, container):
            return verdict._replace(block=Block("held_back", f"{why}; another one waits to be accepted"))
        return _remake(scratch, service, verdict, container, DriftKind.STOPPED, why)
    why = stop_reason(container)
    return step_or_backoff(
        scratch, verdict, step_for(scratch, service, Action.START, "stopped", why, container)
    )


def plan_orphan(scratch: PlanningContext, name: str, containers: Sequence[Container]) -> ServicePlan:
    """A service that is in the files no more, with ``prune``: stop its containers, then remove them.

    Volumes stay, as ever.
    """
    nowhere = "belongs to no service of the files"
    drifts = tuple(Drift(name, DriftKind.ORPHAN, True, f"{c.name} {nowhere}", c.id) for c in containers)
    verdict = ServicePlan(name, "", False, False, False, containers[0], "gone", inputs="gone", drifts=drifts)
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
    return step_or_backoff(scratch, verdict, Step(name, action, "orphan", why, container.id, grace=grace))
