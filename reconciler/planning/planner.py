"""The decision: the next step of every service, or why it has no step.

``plan`` is a pure function of desired state, observed state and ledger. One call returns at most one step
per service; the next pass starts from a fresh observation, so no step is ever resumed.
The parts: ``plan_types`` (the values), ``gates`` (what holds a group back), ``ordering`` (dependencies),
``service_rules`` (a service that is on), ``replicas`` and ``replica_plans`` (services with several or no
containers).
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from reconciler.model.desired import Desired
from reconciler.model.fingerprint import OFF
from reconciler.model.ledger import Clock, Ledger
from reconciler.model.observed import ALIVE, Action, Container, ObservedState, State
from reconciler.model.stack import Service, Stack, service_of
from reconciler.planning.drift import (
    Drift,
    DriftKind,
    attempt_fingerprint,
    desired_fingerprint,
    select_container,
)
from reconciler.planning.gates import GroupGate, PlanInputs, group_gate
from reconciler.planning.ordering import (
    PlanningContext,
    blocked_by_dependents,
    stopping_services,
)
from reconciler.planning.plan_types import Block, Plan, ServicePlan, Step, Wait
from reconciler.planning.replica_plans import merge_units, replace_one_by_one
from reconciler.planning.replicas import Units, units_of
from reconciler.planning.service_rules import plan_orphan, plan_service
from reconciler.planning.step_factory import (
    held_back,
    state_unknown,
    step_for,
    step_or_backoff,
    stop_for,
)

__all__ = ["Block", "Plan", "ServicePlan", "Step", "Wait", "plan"]


def plan(stack: Stack, desired: Desired, observed: ObservedState, ledger: Ledger, now: Clock) -> Plan:
    """Return the steps that bring the stack closer to desired state.

    Pure: equal arguments give equal plans, whatever the order of their mappings. Linear in the number of
    services and dependencies.
    """
    if not observed.complete:
        return Plan(complete=False)
    with _without_gc():
        return _plan(stack, desired, observed, ledger, now)


@contextmanager
def _without_gc() -> Iterator[None]:
    # A plan is many small values without cycles. Their number triggers the cyclic collector, which walks the
    # whole heap each time: the cost would grow with the square of the stack.
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _plan(stack: Stack, desired: Desired, observed: ObservedState, ledger: Ledger, now: Clock) -> Plan:
    found: dict[str, list[Container]] = {}
    for container in observed.containers:
        found.setdefault(container.service, []).append(container)
    for several in found.values():
        several.sort(key=lambda container: container.id)
    if not stack.replicated and len(found) == len(observed.containers):
        return _plan_services(stack, desired, observed, ledger, now, found, None)
    units = units_of(stack, desired, observed, ledger, found)
    return _plan_services(stack, desired, observed, ledger, now, found, units)


def _plan_services(
    whole: Stack,
    desired: Desired,
    observed: ObservedState,
    ledger: Ledger,
    now: Clock,
    found: Mapping[str, list[Container]],
    units: Units | None,
) -> Plan:
    gone = sorted(found.keys() - whole.services.keys())
    stack = whole
    if units is not None:
        stack, found = units.stack, units.found
    unread = {
        name for name, group in found.items() if any(container.state is State.UNKNOWN for container in group)
    }
    services = stack.services
    selected = {
        name: group[0] if len(group) == 1 else select_container(services[name], group, observed, ledger)
        for name, group in found.items()
        if name in services and name not in unread
    }
    inputs = PlanInputs(stack, desired, observed, ledger, now)
    gates = {name: group_gate(inputs, name) for name in stack.groups}
    context = PlanningContext(stack, desired, observed, ledger, now, gates, found, selected, set())
    context.stopping = stopping_services(context)
    verdicts: dict[str, ServicePlan] = {}
    group_of = stack.group_of
    for name in stack.order:
        gate = gates[group_of[name]]
        verdict = (
            _plan_unknown(context, gate, services[name])
            if name in unread
            else plan_service(context, gate, services[name])
            if gate.state.on
            else _plan_off(context, gate, services[name])
        )
        if verdict.ready:
            context.ready.add(name)
        if verdict.done:
            context.done.add(name)
        step, own = verdict.step, verdict.container
        if step and step.action is Action.CREATE:
            context.creating.add(name)
        if step and own and step.action is Action.STOP and step.container == own.id:
            context.stopping.add(name)
        verdicts[name] = verdict
    leaves: list[ServicePlan] = []
    if units is not None:
        replace_one_by_one(context, units, verdicts)
        verdicts = merge_units(context, whole, units, verdicts, {c.id: c for c in observed.containers})
        leaves += [unit for verdict in verdicts.values() for unit in verdict.units]
    if stack.prune:
        verdicts |= {name: plan_orphan(context, name, found[name]) for name in gone}
    orphans = tuple(c for name in gone for c in found[name])
    return Plan(
        verdicts=verdicts,
        orphans=orphans,
        due=_due(context, (*verdicts.values(), *leaves)),
        stack=None if units is None else stack,
    )


def _plan_unknown(context: PlanningContext, gate: GroupGate, service: Service) -> ServicePlan:
    """Plan no step for a service with a container whose state can't be read.

    The container may run, so a second one must not be started. Dependents do not count it as ready.
    """
    containers = context.containers[service.name]
    odd = next(c for c in containers if c.state is State.UNKNOWN)
    wants = desired_fingerprint(service, gate.state)
    inputs = attempt_fingerprint(service, gate.state, context.observed, wants)
    verdict = ServicePlan(service.name, gate.group, gate.state.on, False, False, odd, wants, inputs)
    if isinstance(gate.hold, Wait):
        return verdict._replace(wait=gate.hold)
    return verdict._replace(block=state_unknown(odd))


def _plan_off(context: PlanningContext, gate: GroupGate, service: Service) -> ServicePlan:
    name = service.name
    alive = [c for c in context.containers.get(name, ()) if c.state in ALIVE]
    selected = context.selected.get(name)
    if not alive:
        return _plan_stopped(
            context, gate, service, ServicePlan(name, gate.group, False, False, True, selected, OFF)
        )
    pending = context.ledger.settled.get(service_of(name)) != OFF
    drifts = tuple(
        Drift(name, DriftKind.UNWANTED, pending, f"{c.name} is {c.state} though {gate.group} is off", c.id)
        for c in alive
    )
    verdict = ServicePlan(name, gate.group, False, False, False, selected, OFF, inputs="off", drifts=drifts)
    if gate.hold is not None:
        return held_back(verdict, gate.hold)
    held = blocked_by_dependents(context, service)
    if held:
        return verdict._replace(wait=held)
    return step_or_backoff(
        context, verdict, stop_for(context, service, alive[0], "unwanted", f"{gate.group} is off")
    )


def _plan_stopped(
    context: PlanningContext, gate: GroupGate, service: Service, verdict: ServicePlan
) -> ServicePlan:
    """Leave a stopped service alone, unless its restart policy would let the engine start it again."""
    if context.stack.restart != "managed" or gate.hold is not None:
        return verdict
    there = {State.CREATED, State.EXITED}
    containers = context.containers.get(service.name, ())
    revived = next((c for c in containers if c.restart != "no" and c.state in there), None)
    if revived is None:
        return verdict
    why = f"has the restart policy {revived.restart}, but `restart: managed` wants no"
    drift = Drift(service.name, DriftKind.ALTERED, False, why, revived.id, ("restart",))
    verdict = verdict._replace(settled=False, inputs="off", drifts=(drift,))
    return step_or_backoff(
        context, verdict, step_for(context, service, Action.UPDATE, "altered", why, revived, "no")
    )


def _due(context: PlanningContext, verdicts: Iterable[ServicePlan]) -> float | None:
    times = [v.wait.until for v in verdicts if v.wait and v.wait.until is not None]
    now = context.now
    times += [now.mono + gate.due - now.wall for gate in context.gates.values() if gate.due is not None]
    return min(times, default=None)
