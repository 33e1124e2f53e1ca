"""The decision: what to do now about every service, and why not more.

``plan`` is a pure function of what is wanted, what was seen and what is remembered. One call yields at
most one step per service; the next pass starts from what is there then, so no step is ever resumed.
The parts: ``plan_types`` (the values), ``ordering`` (what comes first), ``service_rules`` (a service that is
on), ``replicas`` and ``replica_verdicts`` (a service with any other number of containers than one).
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from reconciler.model.desired import Desired
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
from reconciler.planning.ordering import (
    GroupGate,
    PlanningContext,
    blocked_by_dependents,
    group_gate,
    stopping_services,
)
from reconciler.planning.plan_types import Block, Plan, ServicePlan, Step, Wait
from reconciler.planning.replica_verdicts import merged, one_by_one
from reconciler.planning.replicas import Units, units_of
from reconciler.planning.service_rules import plan_orphan, plan_service
from reconciler.planning.step_factory import (
    state_unknown,
    step_for,
    step_or_backoff,
    stop_for,
    suspended_wait,
)

__all__ = ["Block", "Plan", "ServicePlan", "Step", "Wait", "plan"]


def plan(stack: Stack, desired: Desired, observed: ObservedState, ledger: Ledger, now: Clock) -> Plan:
    """What to do now so that the stack comes nearer to what is desired.

    Pure: same arguments, same plan, in whatever order their mappings were built. Linear in the
    number of services and dependencies.
    """
    if not observed.complete:
        return Plan(complete=False)
    with _not_collecting():
        return _plan(stack, desired, observed, ledger, now)


@contextmanager
def _not_collecting() -> Iterator[None]:
    # A plan is many small values and no cycles. The cyclic collector, woken by their number, would walk
    # everything else again and again, and that grows with the square of the stack.
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
        return _decide(stack, desired, observed, ledger, now, found, None)
    units = units_of(stack, desired, observed, ledger, found)
    return _decide(stack, desired, observed, ledger, now, found, units)


def _decide(
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
    kept = {
        name: group[0] if len(group) == 1 else select_container(services[name], group, observed, ledger)
        for name, group in found.items()
        if name in services and name not in unread
    }
    gates = {name: group_gate(stack, desired, name, now) for name in stack.groups}
    scratch = PlanningContext(stack, desired, observed, ledger, now, gates, found, kept, set())
    scratch.going = stopping_services(scratch)
    verdicts: dict[str, ServicePlan] = {}
    group_of = stack.group_of
    for name in stack.order:
        gate = gates[group_of[name]]
        verdict = (
            _unread(scratch, gate, services[name])
            if name in unread
            else plan_service(scratch, gate, services[name])
            if gate.state.on
            else _off(scratch, gate, services[name])
        )
        if verdict.ready:
            scratch.ready.add(name)
        if verdict.done:
            scratch.done.add(name)
        step, own = verdict.step, verdict.container
        if step and step.action is Action.CREATE:
            scratch.creating.add(name)
        if step and own and step.action is Action.STOP and step.container == own.id:
            scratch.going.add(name)
        verdicts[name] = verdict
    leaves: list[ServicePlan] = []
    if units is not None:
        one_by_one(scratch, units, verdicts)
        verdicts = merged(scratch, whole, units, verdicts, {c.id: c for c in observed.containers})
        leaves += [unit for verdict in verdicts.values() for unit in verdict.units]
    if stack.prune:
        verdicts |= {name: plan_orphan(scratch, name, found[name]) for name in gone}
    orphans = tuple(c for name in gone for c in found[name])
    return Plan(
        verdicts=verdicts,
        orphans=orphans,
        due=_due(scratch, (*verdicts.values(), *leaves)),
        stack=None if units is None else stack,
    )


def _unread(scratch: PlanningContext, gate: GroupGate, service: Service) -> ServicePlan:
    """A service with a container whose state can't be read: nothing is done to it or for it.

    It may run, so a second one must not be started; it stands for the service for nobody who depends on it.
    """
    containers = scratch.found[service.name]
    odd = next(c for c in containers if c.state is State.UNKNOWN)
    wants = desired_fingerprint(service, gate.state)
    inputs = attempt_fingerprint(service, gate.state, scratch.observed, wants)
    verdict = ServicePlan(service.name, gate.group, gate.state.on, False, False, odd, wants, inputs)
    if gate.suspended:
        return verdict._replace(wait=suspended_wait(gate))
    return verdict._replace(block=state_unknown(odd))


def _off(scratch: PlanningContext, gate: GroupGate, service: Service) -> ServicePlan:
    name = service.name
    alive = [c for c in scratch.found.get(name, ()) if c.state in ALIVE]
    kept = scratch.kept.get(name)
    if not alive:
        return _down(scratch, gate, service, ServicePlan(name, gate.group, False, False, True, kept, "off"))
    pending = scratch.ledger.settled.get(service_of(name)) != "off"
    drifts = tuple(
        Drift(name, DriftKind.UNWANTED, pending, f"{c.name} is {c.state} though {gate.group} is off", c.id)
        for c in alive
    )
    verdict = ServicePlan(name, gate.group, False, False, False, kept, "off", inputs="off", drifts=drifts)
    if gate.suspended:
        return verdict._replace(wait=suspended_wait(gate))
    held = blocked_by_dependents(scratch, service)
    if held:
        return verdict._replace(wait=held)
    return step_or_backoff(
        scratch, verdict, stop_for(scratch, service, alive[0], "unwanted", f"{gate.group} is off")
    )


def _down(scratch: PlanningContext, gate: GroupGate, service: Service, verdict: ServicePlan) -> ServicePlan:
    """What is off and down is left alone, but for a policy by which the engine would start it again."""
    if scratch.stack.restart != "managed" or gate.suspended:
        return verdict
    there = {State.CREATED, State.EXITED}
    containers = scratch.found.get(service.name, ())
    revived = next((c for c in containers if c.restart != "no" and c.state in there), None)
    if revived is None:
        return verdict
    why = f"has the restart policy {revived.restart}, and restarting is ours here"
    drift = Drift(service.name, DriftKind.ALTERED, False, why, revived.id, ("restart",))
    verdict = verdict._replace(settled=False, inputs="off", drifts=(drift,))
    return step_or_backoff(
        scratch, verdict, step_for(scratch, service, Action.UPDATE, "altered", why, revived, "no")
    )


def _due(scratch: PlanningContext, verdicts: Iterable[ServicePlan]) -> float | None:
    times = [v.wait.until for v in verdicts if v.wait and v.wait.until is not None]
    for gate in scratch.gates.values():
        suspend = gate.state.suspend
        moments = [suspend.until if suspend else None, gate.state.restarted_at, gate.state.accepted_at]
        times += [
            scratch.now.mono + moment - scratch.now.wall
            for moment in moments
            if moment is not None and moment > scratch.now.wall
        ]
    return min(times, default=None)
