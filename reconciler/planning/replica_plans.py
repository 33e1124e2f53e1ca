"""Combine the plans of replicas and of surplus containers into one plan per service. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from reconciler.model.observed import ALIVE, Action, Container, State
from reconciler.model.stack import UNIT, Service, Stack
from reconciler.planning.drift import Drift, DriftKind, crash_loops, desired_fingerprint, is_ready, join_names
from reconciler.planning.gates import GroupGate
from reconciler.planning.ordering import ACCEPT_TOLERANCE, PlanningContext
from reconciler.planning.plan_types import REPLICA_FIRST, Block, ServicePlan, Step, Wait
from reconciler.planning.replicas import Units
from reconciler.planning.step_factory import step_or_backoff, wait_for_removal

_RECREATE_CAUSES = frozenset({DriftKind.DEFINITION, DriftKind.IMAGE, DriftKind.MOUNTS, DriftKind.ALTERED})


def replace_one_by_one(context: PlanningContext, units: Units, verdicts: dict[str, ServicePlan]) -> None:
    """Recreate ready replicas one at a time.

    One is stopped while all others are ready: if the new definition does not work, the rest keep running the
    old one. A replica that is not ready is recreated at once.
    """
    for names in units.of.values():
        leaving = [name for name in names if _is_replaced_while_ready(context, verdicts[name])]
        if not leaving:
            continue
        others = tuple(n for n in names if n not in leaving and not (verdicts[n].ready or verdicts[n].done))
        for name in leaving if others else leaving[1:]:
            first = others or (leaving[0],)
            message = f"waits for {join_names(first)} to be recreated and ready"
            wait = Wait(REPLICA_FIRST, message, first)
            verdicts[name] = verdicts[name]._replace(step=None, wait=wait, ready=True)


def _is_replaced_while_ready(context: PlanningContext, verdict: ServicePlan) -> bool:
    """Whether a ready replica would be stopped to be recreated."""
    step, container = verdict.step, verdict.container
    return (
        step is not None
        and step.action is Action.STOP
        and step.cause in _RECREATE_CAUSES
        and container is not None
        and step.container == container.id
        and is_ready(container)
        and crash_loops(context.ledger, container, context.now) is None
    )


def merge_units(
    context: PlanningContext,
    stack: Stack,
    units: Units,
    verdicts: Mapping[str, ServicePlan],
    seen: Mapping[str, Container],
) -> dict[str, ServicePlan]:
    """Return plans by service, in the order of ``stack``; ``seen`` are the observed containers by id."""
    found: dict[str, ServicePlan] = {}
    for name in stack.order:
        names = units.of.get(name, (name,))
        beyond = units.surplus.get(name, ())
        if names == (name,) and not beyond:
            found[name] = _by_service(verdicts[name], name, units, seen)
            continue
        service, gate = stack.services[name], context.gates[stack.group_of[name]]
        own = tuple(_by_service(verdicts[unit], name, units, seen) for unit in names)
        more = tuple(_surplus(context, gate, service, beyond))
        found[name] = _sum_units(context, gate, service, own, more)
    return found


def _by_service(verdict: ServicePlan, name: str, units: Units, seen: Mapping[str, Container]) -> ServicePlan:
    """Return a unit's plan with containers, steps and waits that name services."""
    container, step, wait = verdict.container, verdict.step, verdict.wait
    unit = verdict.service if verdict.service != name else ""
    if wait is not None and wait.on:
        wait = wait._replace(on=tuple(dict.fromkeys(on.partition(UNIT)[0] for on in wait.on)))
    drifts = verdict.drifts
    if unit:
        number = unit.partition(UNIT)[2]
        drifts = tuple(d._replace(service=name, detail=f"replica {number} {d.detail}") for d in drifts)
    return verdict._replace(
        container=None if container is None else seen[container.id],
        step=None if step is None else step._replace(service=name, unit=unit),
        wait=wait,
        drifts=drifts,
        replicas=units.stack.services[verdict.service].replicas,
    )


def _sum_units(
    context: PlanningContext,
    gate: GroupGate,
    service: Service,
    own: tuple[ServicePlan, ...],
    more: tuple[ServicePlan, ...],
) -> ServicePlan:
    every = (*own, *more)
    on = gate.state.on
    first = own[0] if own else None
    alive = (v.container for v in own if v.container is not None and v.container.state in ALIVE)
    shown = next(alive, first.container if first else None)
    step = next((v.step for v in every if v.step), None)
    return ServicePlan(
        service.name,
        gate.group,
        on and bool(own),
        bool(own) and all(v.ready for v in own),
        all(v.settled for v in every),
        shown,
        desired_fingerprint(service, gate.state),
        first.inputs if first else "",
        bool(own) and all(v.done for v in own),
        step,
        None if step else next((v.wait for v in every if v.wait), None),
        next((v.block for v in every if v.block), None),
        tuple(drift for v in every for drift in v.drifts),
        every,
        service.replicas,
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
        verdict = ServicePlan(
            unit,
            gate.group,
            False,
            False,
            container.state not in ALIVE,
            container,
            wants,
            "surplus",
            drifts=(Drift(service.name, DriftKind.DUPLICATE, pending, why, container.id),),
        )
        if isinstance(gate.hold, Wait):
            yield verdict._replace(wait=None if verdict.settled else gate.hold)
        elif container.state is State.REMOVING:
            yield verdict._replace(settled=False, wait=wait_for_removal())
        elif accepted_now and gate.hold is None:
            action = Action.STOP if container.state in ALIVE else Action.REMOVE
            action = Action.UNPAUSE if container.state is State.PAUSED else action
            grace = service.stop_grace if container.grace is None else container.grace
            step = Step(service.name, action, "duplicate", why, container.id, grace=grace, unit=unit)
            yield step_or_backoff(context, verdict._replace(settled=False), step)
        elif verdict.settled:
            yield verdict
        else:
            message = f"{why}: waits to be accepted (`service-manager accept {gate.group}`)"
            yield verdict._replace(block=Block("held_back", message))
