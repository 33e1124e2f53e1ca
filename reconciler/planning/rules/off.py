"""Rules for services that get no start: off, unreadable, or no longer in the files. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.model.capabilities import Capability
from reconciler.model.fingerprint import OFF
from reconciler.model.observed import ALIVE, Action, Container, State
from reconciler.model.stack import Service, service_of
from reconciler.planning.context import PlanningContext
from reconciler.planning.drift import Drift, DriftKind
from reconciler.planning.fingerprints import attempt_fingerprint, desired_fingerprint
from reconciler.planning.gates import GroupGate
from reconciler.planning.ordering import blocked_by_dependents
from reconciler.planning.plan_types import ServicePlan, Step, Wait
from reconciler.planning.rules.decision import (
    Decision,
    hold,
    state_unknown,
    step_for,
    step_or_backoff,
    stop_action,
    wait_for_removal,
)


def plan_off(context: PlanningContext, gate: GroupGate, service: Service) -> ServicePlan:
    """Stop the containers of a service whose group is off, after its dependents."""
    name = service.name
    alive = [c for c in context.containers.get(name, ()) if c.state in ALIVE]
    if not alive:
        return _plan_stopped(context, gate, service)
    pending = context.ledger.settled.get(service_of(name)) != OFF
    drifts = tuple(
        Drift(name, DriftKind.UNWANTED, pending, f"{c.name} is {c.state} though {gate.group} is off", c.id)
        for c in alive
    )
    decision = _stop(context, gate, service, alive[0])
    return _plan(context, gate.group, name, decision, drifts, inputs="off")


def _stop(context: PlanningContext, gate: GroupGate, service: Service, container: Container) -> Decision:
    if gate.hold is not None:
        return hold(gate.hold)
    blocked = blocked_by_dependents(context, service)
    if blocked is not None:
        return hold(blocked)
    why = f"{gate.group} is off"
    step = step_for(context, service, stop_action(container), "unwanted", why, container)
    return step_or_backoff(context, service.name, "off", step)


def _plan_stopped(context: PlanningContext, gate: GroupGate, service: Service) -> ServicePlan:
    """Leave a stopped service alone, unless its restart policy would let the engine start it again."""
    name, revived = service.name, None
    holder = _holder_of_needed_name(context, service)
    if holder is not None and gate.hold is None:
        return _plan(context, gate.group, name, _free_name(context, service, holder), (), inputs="off")
    # An engine without UPDATE may start the container at its next boot; the pass after that stops it.
    can_update = Capability.UPDATE in context.observed.capabilities
    if context.stack.restart == "managed" and gate.hold is None and can_update:
        containers = context.containers.get(name, ())
        revived = next(
            (c for c in containers if c.restart != "no" and c.state in {State.CREATED, State.EXITED}), None
        )
    if revived is None:
        return _plan(context, gate.group, name, Decision(settled=True), ())
    why = f"has the restart policy {revived.restart}, but `restart: managed` wants no"
    drift = Drift(name, DriftKind.ALTERED, False, why, revived.id, ("restart",))
    step = step_for(context, service, Action.UPDATE, "altered", why, revived, "no")
    decision = step_or_backoff(context, name, "off", step)
    return _plan(context, gate.group, name, decision, (drift,), inputs="off")


def _holder_of_needed_name(context: PlanningContext, service: Service) -> Container | None:
    """Return the stopped container whose name an alternative that is on needs; None: there is none."""
    stack = context.stack
    for other in stack.alternatives.get(service.name, ()):
        other_gate = context.gates[stack.group_of[other]]
        if other_gate.state.on and other_gate.hold is None:
            containers = context.containers.get(service.name, ())
            return next((c for c in containers if c.name == service.container_name), None)
    return None


def _free_name(context: PlanningContext, service: Service, container: Container) -> Decision:
    """Rename the stopped container, so that it keeps its data; it gets its name back when it is on again."""
    if container.state is State.REMOVING:
        return hold(wait_for_removal())
    why = f"{container.name} is the container name of an alternative that is on"
    can_rename = Capability.RENAME in context.observed.capabilities
    action = Action.RENAME if can_rename else Action.REMOVE
    spare = f"{container.id[:12]}_{container.name}" if can_rename else ""
    step = step_for(context, service, action, "alternative", why, container, spare)
    return step_or_backoff(context, service.name, "off", step)


def _plan(
    context: PlanningContext,
    group: str,
    name: str,
    decision: Decision,
    drifts: tuple[Drift, ...],
    *,
    inputs: str = "",
) -> ServicePlan:
    return ServicePlan(
        service=name,
        group=group,
        wanted=False,
        ready=False,
        settled=decision.settled,
        container=context.selected.get(name),
        wants=OFF,
        inputs=inputs,
        step=decision.step,
        wait=decision.wait,
        block=decision.block,
        drifts=drifts,
    )


def plan_unknown(context: PlanningContext, gate: GroupGate, service: Service) -> ServicePlan:
    """Plan no step for a service with a container whose state can't be read.

    The container may run, so a second one must not be started. Dependents do not count it as ready.
    """
    unreadable = next(c for c in context.containers[service.name] if c.state is State.UNKNOWN)
    wants = desired_fingerprint(service, gate.state)
    decision = hold(gate.hold if isinstance(gate.hold, Wait) else state_unknown(unreadable))
    return ServicePlan(
        service=service.name,
        group=gate.group,
        wanted=gate.state.on,
        ready=False,
        settled=False,
        container=unreadable,
        wants=wants,
        inputs=attempt_fingerprint(service, gate.state, context.observed, wants),
        wait=decision.wait,
        block=decision.block,
    )


def plan_orphan(context: PlanningContext, name: str, containers: Sequence[Container]) -> ServicePlan:
    """Stop, then remove the containers of a service that left the files, with ``prune``. Volumes stay."""
    why = "belongs to no service in the files"
    decision = _remove_orphan(context, name, containers, why)
    return ServicePlan(
        service=name,
        group="",
        wanted=False,
        ready=False,
        settled=False,
        container=containers[0],
        wants=OFF,
        inputs="gone",
        step=decision.step,
        wait=decision.wait,
        block=decision.block,
        drifts=tuple(Drift(name, DriftKind.ORPHAN, True, f"{c.name} {why}", c.id) for c in containers),
    )


def _remove_orphan(
    context: PlanningContext, name: str, containers: Sequence[Container], why: str
) -> Decision:
    unreadable = next((c for c in containers if c.state is State.UNKNOWN), None)
    if unreadable is not None:
        return hold(state_unknown(unreadable))
    container = next((c for c in containers if c.state in ALIVE), None)
    action = Action.REMOVE
    if container is not None:
        action = stop_action(container)
    else:
        container = next((c for c in containers if c.state is not State.REMOVING), None)
    if container is None:
        return hold(wait_for_removal())
    grace = 10.0 if container.grace is None else container.grace
    step = Step(name, action, "orphan", f"{container.name} {why}", container.id, grace=grace)
    return step_or_backoff(context, name, "gone", step)
