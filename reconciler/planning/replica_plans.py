"""Combine the plans of replicas and of surplus containers into one plan per service. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from reconciler.model.desired import ACCEPT_TOLERANCE
from reconciler.model.observed import ALIVE, Action, Container, State
from reconciler.model.stack import UNIT, Service, Stack
from reconciler.planning.container_state import crash_loop_end, is_ready
from reconciler.planning.context import PlanningContext
from reconciler.planning.drift import Drift, DriftKind, join_names
from reconciler.planning.fingerprints import desired_fingerprint
from reconciler.planning.gates import GroupGate
from reconciler.planning.plan_types import REPLICA_FIRST, Block, ServicePlan, Step, Wait
from reconciler.planning.replicas import Units
from reconciler.planning.rules.decision import Decision, hold, step_or_backoff, stop_action, wait_for_removal

_RECREATE_CAUSES = frozenset({DriftKind.DEFINITION, DriftKind.IMAGE, DriftKind.MOUNTS, DriftKind.ALTERED})


def replace_one_by_one(
    context: PlanningContext, units: Units, plans: Mapping[str, ServicePlan]
) -> dict[str, ServicePlan]:
    """Return the plans with ready replicas recreated one at a time.

    A ready replica is stopped only while all others are ready. If the new definition does not work, the other
    replicas keep running with the old one. A replica that is not ready is recreated at once.
    """
    result = dict(plans)
    for names in units.of.values():
        leaving = [name for name in names if _is_replaced_while_ready(context, plans[name])]
        if not leaving:
            continue
        others = tuple(n for n in names if n not in leaving and not (plans[n].ready or plans[n].done))
        for name in leaving if others else leaving[1:]:
            first = others or (leaving[0],)
            message = f"waits for {join_names(first)} to be recreated and ready"
            wait = Wait(REPLICA_FIRST, message, first)
            result[name] = plans[name]._replace(step=None, wait=wait, ready=True)
    return result


def _is_replaced_while_ready(context: PlanningContext, plan: ServicePlan) -> bool:
    """Whether a ready replica would be stopped to be recreated."""
    step, container = plan.step, plan.container
    return (
        step is not None
        and step.action is Action.STOP
        and step.cause in _RECREATE_CAUSES
        and container is not None
        and step.container == container.id
        and is_ready(container)
        and crash_loop_end(context.ledger, container, context.now) is None
    )


def merge_units(
    context: PlanningContext,
    stack: Stack,
    units: Units,
    plans: Mapping[str, ServicePlan],
    seen: Mapping[str, Container],
) -> dict[str, ServicePlan]:
    """Return plans by service, in the order of ``stack``; ``seen`` are the observed containers by id."""
    merged: dict[str, ServicePlan] = {}
    for name in stack.order:
        names = units.of.get(name, (name,))
        beyond = units.surplus.get(name, ())
        if names == (name,) and not beyond:
            merged[name] = _by_service(plans[name], name, units, seen)
            continue
        service, gate = stack.services[name], context.gates[stack.group_of[name]]
        own = tuple(_by_service(plans[unit], name, units, seen) for unit in names)
        more = tuple(_surplus(context, gate, service, beyond))
        merged[name] = _sum_units(context, gate, service, own, more)
    return merged


def _by_service(plan: ServicePlan, name: str, units: Units, seen: Mapping[str, Container]) -> ServicePlan:
    """Return a unit's plan with containers, steps and waits that name services."""
    container, step, wait = plan.container, plan.step, plan.wait
    unit = plan.service if plan.service != name else ""
    if wait is not None and wait.on:
        wait = wait._replace(on=tuple(dict.fromkeys(on.partition(UNIT)[0] for on in wait.on)))
    drifts = plan.drifts
    if unit:
        number = unit.partition(UNIT)[2]
        drifts = tuple(d._replace(service=name, detail=f"replica {number} {d.detail}") for d in drifts)
    return plan._replace(
        container=None if container is None else seen[container.id],
        step=None if step is None else step._replace(service=name, unit=unit),
        wait=wait,
        drifts=drifts,
        replicas=units.stack.services[plan.service].replicas,
    )


def _sum_units(
    context: PlanningContext,
    gate: GroupGate,
    service: Service,
    own: tuple[ServicePlan, ...],
    more: tuple[ServicePlan, ...],
) -> ServicePlan:
    """Return the plan of a service that summarises those of its replicas and of surplus containers."""
    every = (*own, *more)
    first = own[0] if own else None
    alive = (one.container for one in own if one.container is not None and one.container.state in ALIVE)
    step = next((one.step for one in every if one.step), None)
    return ServicePlan(
        service=service.name,
        group=gate.group,
        wanted=gate.state.on and bool(own),
        ready=bool(own) and all(one.ready for one in own),
        settled=all(one.settled for one in every),
        container=next(alive, first.container if first else None),
        wants=desired_fingerprint(service, gate.state),
        inputs=first.inputs if first else "",
        done=bool(own) and all(one.done for one in own),
        step=step,
        wait=None if step else next((one.wait for one in every if one.wait), None),
        block=next((one.block for one in every if one.block), None),
        drifts=tuple(drift for one in every for drift in one.drifts),
        units=every,
        replicas=service.replicas,
    )


def _surplus(
    context: PlanningContext, gate: GroupGate, service: Service, beyond: tuple[Container, ...]
) -> Iterator[ServicePlan]:
    """Report containers beyond the number in the Compose file; stop and remove them once accepted."""
    if not beyond:
        return
    wants = desired_fingerprint(service, gate.state)
    known, accepted = context.ledger.surplus.get(service.name), gate.accept_at
    accepted_now = known is not None and accepted is not None and known.since <= accepted + ACCEPT_TOLERANCE
    here = service.replicas + len(beyond)
    numbers = f"{here} container{'s' if here > 1 else ''} here, {service.replicas} in the Compose file"
    pending = context.ledger.settled.get(service.name) != wants
    names: set[str] = set()
    for container in beyond:
        why = f"{container.name} is more than wanted: {numbers}"
        unit = f"{service.name}{UNIT}{container.number}"
        unit = unit if unit not in names else f"{unit}{UNIT}{container.id}"
        names.add(unit)
        decision = _remove_surplus(context, gate, service, unit, container, why, accepted=accepted_now)
        yield ServicePlan(
            service=unit,
            group=gate.group,
            wanted=False,
            ready=False,
            settled=decision.settled,
            container=container,
            wants=wants,
            inputs="surplus",
            step=decision.step,
            wait=decision.wait,
            block=decision.block,
            drifts=(Drift(service.name, DriftKind.DUPLICATE, pending, why, container.id),),
        )


def _remove_surplus(
    context: PlanningContext,
    gate: GroupGate,
    service: Service,
    unit: str,
    container: Container,
    why: str,
    *,
    accepted: bool,
) -> Decision:
    """Return the step that stops or removes a surplus container; a stopped one is settled until accepted."""
    stopped = container.state not in ALIVE
    if isinstance(gate.hold, Wait):
        return Decision(settled=True) if stopped else hold(gate.hold)
    if container.state is State.REMOVING:
        return hold(wait_for_removal())
    if accepted and gate.hold is None:
        action = Action.REMOVE if stopped else stop_action(container)
        grace = service.stop_grace if container.grace is None else container.grace
        step = Step(service.name, action, "duplicate", why, container.id, grace=grace, unit=unit)
        return step_or_backoff(context, unit, "surplus", step)
    if stopped:
        return Decision(settled=True)
    message = f"{why}: waits to be accepted (`service-manager accept {gate.group}`)"
    return hold(Block("held_back", message))
