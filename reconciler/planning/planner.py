"""The decision: the next step of every service, or why it has no step.

``plan`` is a pure function of desired state, observed state and ledger. One call returns at most one step
per service; the next pass starts from a fresh observation, so no step is ever resumed.

It has two phases. The first (``context.compare_services``) compares every container once. The second plans
the services in start order: each rule gets the comparison and the plans of the services before its own.
The parts: ``plan_types`` (the values), ``gates`` (what holds a group back), ``comparison`` and ``drift``
(differences), ``ordering`` (dependencies), ``rules`` (the next step of one service), ``replicas`` and
``replica_plans`` (services with several or no containers).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from reconciler.model.desired import Desired
from reconciler.model.ledger import Clock, Ledger
from reconciler.model.observed import Container, ObservedState
from reconciler.model.stack import Stack
from reconciler.planning.context import Earlier, PlanningContext, compare_services
from reconciler.planning.gates import PlanInputs
from reconciler.planning.plan_types import Block, Plan, ServicePlan, Step, Wait
from reconciler.planning.replica_plans import merge_units, replace_one_by_one
from reconciler.planning.replicas import Units, units_of
from reconciler.planning.rules.off import plan_off, plan_orphan, plan_unknown
from reconciler.planning.rules.service import plan_service

__all__ = ["Block", "Plan", "ServicePlan", "Step", "Wait", "plan"]


def plan(stack: Stack, desired: Desired, observed: ObservedState, ledger: Ledger, now: Clock) -> Plan:
    """Return the steps that bring the stack closer to desired state.

    Pure: equal arguments give equal plans, whatever the order of their mappings. Linear in the number of
    services and dependencies.
    """
    if not observed.complete:
        return Plan(complete=False)
    containers = _by_service(observed.containers)
    units = None
    if stack.replicated or len(containers) != len(observed.containers):
        units = units_of(stack, desired, observed, ledger, containers)
    if units is None:
        context = compare_services(PlanInputs(stack, desired, observed, ledger, now), containers, {})
    else:
        by_unit = PlanInputs(units.stack, desired, observed, ledger, now)
        context = compare_services(by_unit, units.containers, units.compared)
    plans = plan_in_order(context, context.stack.order)
    if units is not None:
        plans = replace_one_by_one(context, units, plans)
        plans = merge_units(context, stack, units, plans, {c.id: c for c in observed.containers})
    return _whole_plan(stack, context, units, plans)


def _by_service(containers: Iterable[Container]) -> dict[str, list[Container]]:
    by_service: dict[str, list[Container]] = {}
    for container in containers:
        by_service.setdefault(container.service, []).append(container)
    for several in by_service.values():
        if len(several) > 1:
            several.sort(key=lambda container: container.id)
    return by_service


def plan_in_order(context: PlanningContext, order: Iterable[str]) -> dict[str, ServicePlan]:
    """Plan each service after those that it depends on.

    ``order`` is a start order. Only which service fetches an image for several depends on its choice.
    """
    plans: dict[str, ServicePlan] = {}
    fetching: dict[str, str] = {}
    earlier = Earlier(MappingProxyType(plans), MappingProxyType(fetching))
    services, gates, group_of = context.stack.services, context.gates, context.stack.group_of
    for name in order:
        gate = gates[group_of[name]]
        if name in context.unread:
            one = plan_unknown(context, gate, services[name])
        elif gate.state.on:
            one = plan_service(context, earlier, gate, services[name])
        else:
            one = plan_off(context, gate, services[name])
        plans[name] = one
        if one.fetches:
            fetching[one.fetches] = name
    return plans


def _whole_plan(
    stack: Stack, context: PlanningContext, units: Units | None, plans: Mapping[str, ServicePlan]
) -> Plan:
    """Return the plan with orphans and the next timed wake-up."""
    known = stack.services.keys() if units is None else stack.services.keys() | context.stack.services.keys()
    gone = sorted(context.containers.keys() - known)
    if stack.prune:
        plans = {**plans, **{name: plan_orphan(context, name, context.containers[name]) for name in gone}}
    waits = [one.wait for one in plans.values() if one.wait is not None]
    if units is not None:
        waits += [one.wait for service in plans.values() for one in service.units if one.wait is not None]
    times = [wait.until for wait in waits if wait.until is not None]
    now = context.now
    times += [now.mono + gate.due - now.wall for gate in context.gates.values() if gate.due is not None]
    return Plan(
        services=plans,
        orphans=tuple(container for name in gone for container in context.containers[name]),
        due=min(times, default=None),
        stack=None if units is None else context.stack,
    )
