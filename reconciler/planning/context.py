"""The two values that rules read: the result of the comparison, and the plans made so far. Pure.

``compare_services`` is the first phase of a plan. It compares every container once and answers every
question that needs no plan of another service. The second phase, ``planner``, plans the services in start
order; each rule gets the plans of the services before its own (``Earlier``) and changes neither value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

from reconciler.model.desired import ACCEPT_TOLERANCE, Desired
from reconciler.model.ledger import Clock, Ledger
from reconciler.model.observed import ALIVE, Action, Container, ObservedState, State
from reconciler.model.stack import Service, Stack, service_of
from reconciler.planning.comparison import (
    Comparison,
    change_fingerprint,
    compare,
    select,
    stale_namespaces,
)
from reconciler.planning.gates import GroupGate, PlanInputs, group_gate
from reconciler.planning.mounts import missing_source
from reconciler.planning.plan_types import ServicePlan

CLOCK_SKEW = 60.0
"""Seconds by which the clock of a remote engine may be ahead of the daemon's."""


@dataclass(frozen=True, slots=True)
class PlanningContext:
    """The inputs of a plan, and all that is known before any service is planned.

    A unit is a service, or one replica of a service. ``containers`` are those of each unit, ``selected`` is
    the container of each unit that the plan acts on. A unit in ``unread`` has a container whose state can't
    be read, and none is selected. ``comparisons`` has the selected container of each unit whose group is on.
    ``stopping`` are the units to be stopped or restarted, ``restarting`` only those to be restarted.
    """

    stack: Stack
    desired: Desired
    observed: ObservedState
    ledger: Ledger
    now: Clock
    gates: Mapping[str, GroupGate]
    containers: Mapping[str, Sequence[Container]]
    unread: Set[str]
    selected: Mapping[str, Container]
    comparisons: Mapping[str, Comparison]
    stopping: Set[str]
    restarting: Set[str]


class Earlier(NamedTuple):
    """The plans of the services that come before one in start order.

    ``fetching`` maps an image to the service that fetches it for all services that use it.

    A rule reads the plans of services that its own depends on. These are planned before it in every start
    order, so its decision does not depend on when it runs.
    """

    plans: Mapping[str, ServicePlan]
    fetching: Mapping[str, str]

    def creates(self, name: str) -> bool:
        """Whether a step creates the service's container now."""
        plan = self.plans.get(name)
        return plan is not None and plan.step is not None and plan.step.action is Action.CREATE

    def stops(self, name: str) -> bool:
        """Whether a step stops the service's container now."""
        plan = self.plans[name]
        step, container = plan.step, plan.container
        return (
            step is not None
            and container is not None
            and step.action is Action.STOP
            and step.container == container.id
        )


def compare_services(
    inputs: PlanInputs, containers: Mapping[str, Sequence[Container]], known: Mapping[str, Comparison]
) -> PlanningContext:
    """Compare every unit with desired state. ``known`` are comparisons made before, by container id."""
    stack, desired, observed, ledger, now = inputs
    gates = {name: group_gate(inputs, name) for name in stack.groups}
    services, follows = stack.services, stack.follows
    on = {name for gate in gates.values() if gate.state.on for name in stack.groups[gate.group].services}
    unread: set[str] = set()
    selected: dict[str, Container] = {}
    comparisons: dict[str, Comparison] = {}
    related: list[str] = []
    for name, several in containers.items():
        if len(several) == 1:
            container = several[0]
            unknown = container.state is State.UNKNOWN
        else:
            unknown = any(one.state is State.UNKNOWN for one in several)
        if unknown:
            unread.add(name)
            continue
        service = services.get(name)
        if service is None or not several:
            continue
        if len(several) > 1 or (known and name in on):
            comparison = _compare_several(stack, service, several, observed, ledger, known)
            container = comparison.container
        elif name in on:
            comparison = compare(stack, service, container, observed, ledger)
        selected[name] = container
        if name in on:
            comparisons[name] = comparison
            if comparison.differs or container.joins or container.borrowed or name in follows:
                related.append(name)
    for name in related:
        comparisons[name] = _with_relations(inputs, gates[stack.group_of[name]], comparisons[name], selected)
    stopping, restarting = set(), set()
    for gate in gates.values():
        names = stack.groups[gate.group].services
        if gate.hold is not None:
            continue
        if not gate.state.on:
            # A service without a selected container gets no step.
            stopping |= {n for n in names if n in selected and any(c.state in ALIVE for c in containers[n])}
        elif gate.restart_at is not None:
            restarting |= {n for n in names if _can_stop_for_restart(inputs, gate, comparisons.get(n))}
    return PlanningContext(
        stack,
        desired,
        observed,
        ledger,
        now,
        gates,
        containers,
        unread,
        selected,
        comparisons,
        stopping | restarting,
        restarting,
    )


def _compare_several(
    stack: Stack,
    service: Service,
    containers: Sequence[Container],
    observed: ObservedState,
    ledger: Ledger,
    known: Mapping[str, Comparison],
) -> Comparison:
    """Return the comparison of the selected container of one unit."""
    return select(
        [
            known[one.id]._replace(service=service, container=one)
            if one.id in known
            else compare(stack, service, one, observed, ledger)
            for one in containers
        ]
    )


def _with_relations(
    inputs: PlanInputs, gate: GroupGate, comparison: Comparison, selected: Mapping[str, Container]
) -> Comparison:
    """Add what depends on other services and on requests."""
    service, container = comparison.service, comparison.container
    joined = container.joins or container.borrowed
    parents = stale_namespaces(service, container, selected) if joined else ()
    restarted = _restarted_parent(inputs, service, container, selected)
    reports = inputs.stack.groups[gate.group].on_change == "report"
    held = reports and comparison.outdated and _awaits_acceptance(inputs, gate, comparison)
    if not (parents or restarted or held):
        return comparison
    return comparison._replace(differs=True, parents=parents, restarted_parent=restarted, held=held)


def _restarted_parent(
    inputs: PlanInputs, service: Service, container: Container, selected: Mapping[str, Container]
) -> str:
    """Return the parent service that was started after this container; empty: none. Each start counts once.

    The order in which the runs were observed decides. Start times decide only if that order is unknown, since
    the clock may have been set.
    """
    ledger = inputs.ledger
    for name in inputs.stack.follows.get(service.name, ()):
        parent = selected.get(name)
        if parent is None or not parent.started_at or ledger.followed.get(service.name) == parent.run:
            continue
        tie = ledger.tied.get(service.name)
        known = tie.parents.get(name) if tie is not None and tie.run == container.run else None
        later = parent.started_at > container.started_at if known is None else known != parent.run
        if later:
            return name
    return ""


def _awaits_acceptance(inputs: PlanInputs, gate: GroupGate, comparison: Comparison) -> bool:
    """Whether the change that would recreate the container waits for acceptance."""
    known, accepted = inputs.ledger.changes.get(comparison.service.name), gate.accept_at
    if known is None or accepted is None or known.mark != change_fingerprint(comparison, inputs.observed):
        return True
    return known.since > accepted + ACCEPT_TOLERANCE


def _can_stop_for_restart(inputs: PlanInputs, gate: GroupGate, comparison: Comparison | None) -> bool:
    """Whether the service can be stopped for the requested restart: mounts and image must be present."""
    if comparison is None or not _is_restart_due(inputs, gate, comparison):
        return False
    service, observed = comparison.service, inputs.observed
    if missing_source(service, observed, comparison.made):
        return False
    return not service.image or service.image in observed.images or not comparison.must_recreate


def _is_restart_due(inputs: PlanInputs, gate: GroupGate, comparison: Comparison) -> bool:
    """Whether the service has run since before the requested restart and was not restarted for it yet."""
    name, container, ledger = comparison.service.name, comparison.container, inputs.ledger
    if (
        gate.restart_at is None
        or container.state not in ALIVE
        or ledger.restarted.get(name) == gate.restart_at
    ):
        return False
    if container.started_at <= inputs.now.wall + CLOCK_SKEW:
        return container.started_at < gate.restart_at
    # The start time is in the future: the clock was set back, so times do not order start and request.
    # A request that was not part of the last settled state came after the start.
    settled = ledger.settled.get(service_of(name))
    return settled is not None and settled.restarted_at != gate.restart_at
