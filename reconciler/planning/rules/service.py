"""Rules for a service whose group is on. Pure.

``plan`` calls ``plan_service`` in start order. A change of several actions (recreate, restart) is a sequence
of phases that any pass can continue: no step depends on memory of the previous one.
"""

from __future__ import annotations

from reconciler.model.fingerprint import DesiredFingerprint
from reconciler.model.observed import ALIVE, Action, Container, Health, State
from reconciler.model.stack import Service, service_of
from reconciler.planning.comparison import Comparison
from reconciler.planning.completed import has_completed_before
from reconciler.planning.container_state import crash_loop_end, has_completed, is_ready, stop_reason
from reconciler.planning.context import Earlier, PlanningContext
from reconciler.planning.drift import DriftKind, differences
from reconciler.planning.fingerprints import attempt_fingerprint, desired_fingerprint
from reconciler.planning.gates import GroupGate
from reconciler.planning.ordering import blocked_by_dependents, given_by, recreated_externally
from reconciler.planning.plan_types import Block, ServicePlan, Wait
from reconciler.planning.rules.decision import (
    Decision,
    Unit,
    attempt,
    hold,
    start_blocked_by,
    stop_for_recreate,
    wait_for_removal,
)
from reconciler.planning.rules.health_policy import crash_loop_wait, unhealthy_action
from reconciler.planning.rules.recreation import create, recreate, remove_duplicate, repair_in_place
from reconciler.planning.rules.start_hooks import hooks_due, run_hooks

NEVER_STARTS = frozenset({"network_missing", "start_left_over"})
"""Failure reasons of a container that never starts again, while a new one would (PITFALLS row 25)."""

PAUSE_SECONDS = 30.0
"""Seconds for which a container may be paused: snapshots and file-system checks pause it for moments."""

_HELD_KINDS = frozenset({DriftKind.DEFINITION, DriftKind.IMAGE, DriftKind.MOUNTS})
"""Differences that wait to be accepted with ``on_change: report``."""


_RECREATE_KINDS = _HELD_KINDS | {DriftKind.ALTERED}
"""Differences that recreation removes. ``Unit.drifts`` lists them in order of precedence."""


def plan_service(
    context: PlanningContext, earlier: Earlier, gate: GroupGate, service: Service
) -> ServicePlan:
    """Return the plan of a service whose group is on."""
    name, stack, ledger = service.name, context.stack, context.ledger
    comparison = context.comparisons.get(name)
    wants = stack.fingerprints[name]
    if gate.state.restarted_at is not None:
        wants = desired_fingerprint(service, gate.state)
    ready = (
        comparison is not None
        and is_ready(comparison.container)
        and not (ledger.hooks and hooks_due(ledger, comparison.container))
        and name not in stack.one_shots
        and not (name in ledger.restarts and _crash_loops(context, comparison.container))
    )
    if (
        comparison is not None
        and ready
        and not comparison.differs
        and gate.hold is None
        and name not in context.restarting
        and len(context.containers[name]) == 1
    ):
        # Nearly every service takes this path in nearly every pass.
        return ServicePlan(name, gate.group, True, True, True, comparison.container, wants, comparison)
    unit = _unit(context, gate, service, comparison, wants, ready=ready)
    step, wait, block, settled, still_ready, still_done, fetches = _decide(context, earlier, unit)
    return ServicePlan(
        name,
        gate.group,
        True,
        ready and still_ready,
        settled,
        None if comparison is None else comparison.container,
        wants,
        comparison,
        unit.inputs,
        unit.done and still_done,
        step,
        wait,
        block,
        unit.drifts,
        fetches=service.image if fetches else "",
    )


def _crash_loops(context: PlanningContext, container: Container) -> bool:
    return crash_loop_end(context.ledger, container, context.now) is not None


def _unit(
    context: PlanningContext,
    gate: GroupGate,
    service: Service,
    comparison: Comparison | None,
    wants: DesiredFingerprint,
    *,
    ready: bool,
) -> Unit:
    """Return what the rules read of a unit."""
    stack, ledger = context.stack, context.ledger
    containers = context.containers.get(service.name, ())
    done = (
        has_completed(stack, ledger, service, comparison.container)
        if comparison is not None
        else not containers and has_completed_before(stack, context.observed, ledger, service)
    )
    # Differences since a change of desired state that is not carried out yet are not drift.
    renaming = ledger.renaming
    pending = ledger.settled.get(service_of(service.name)) != wants or (
        renaming is not None and renaming.held and renaming.name == stack.name
    )
    drifts = differences(stack, service, comparison, containers, done=done, pending=pending)
    inputs = attempt_fingerprint(service, gate.state, context.observed, wants)
    return Unit(service, gate, containers, comparison, inputs, drifts, ready, done)


def _decide(context: PlanningContext, earlier: Earlier, unit: Unit) -> Decision:
    gate = unit.gate
    if gate.hold is not None:
        # A block is reported even if nothing differs; a wait only delays what differs.
        settled = isinstance(gate.hold, Wait) and not unit.drifts and (unit.done or unit.ready)
        return hold(gate.hold, settled=settled)
    decision = _next_action(context, earlier, unit)
    if decision.settled and unit.comparison is not None and unit.comparison.held:
        return hold(_held_back_block(unit))
    return decision


def _held_back_block(unit: Unit) -> Block:
    changes = "; ".join(drift.detail for drift in unit.drifts if drift.kind in _HELD_KINDS)
    message = f"{unit.service.name}: {changes}: waits to be accepted"
    return Block("held_back", f"{message} (`service-manager accept {unit.gate.group}`)")


def _next_action(context: PlanningContext, earlier: Earlier, unit: Unit) -> Decision:
    """Return the next step, wait or block of a service that may differ. The first match wins."""
    service, gate, comparison = unit.service, unit.gate, unit.comparison
    alive = comparison is not None and comparison.container.state in ALIVE
    if gate.start_hold is not None and not alive and not unit.done:
        return hold(gate.start_hold)
    if comparison is None and unit.done:
        return Decision(settled=True)
    if comparison is None and service.provider:
        return hold(Block("provider_unsupported", f"{service.name} is {given_by(service)}"))
    if comparison is None:
        return create(context, earlier, unit)
    container = comparison.container
    if container.state is State.REMOVING:
        return hold(wait_for_removal())
    if container.state is State.DEAD:
        return attempt(context, unit, Action.REMOVE, "stopped", "is dead", container)
    recreated = recreated_externally(context, service)
    if recreated is not None:
        return hold(recreated)
    if len(unit.containers) > 1:
        return remove_duplicate(context, earlier, unit, container)
    if service.name in context.restarting:
        blocked = blocked_by_dependents(context, service)
        if blocked is not None:
            return hold(blocked)._replace(ready=False)
        return stop_for_recreate(context, unit, container, "restart", "a restart was requested")
    if comparison.must_recreate:
        drift = next(one for one in unit.drifts if one.kind in _RECREATE_KINDS)
        decision = recreate(context, earlier, unit, container, drift.kind, drift.detail)
        return decision._replace(done=False) if unit.done else decision
    if comparison.name or comparison.policy:
        return repair_in_place(context, unit, comparison)
    return _by_state(context, earlier, unit, comparison)


def _by_state(context: PlanningContext, earlier: Earlier, unit: Unit, comparison: Comparison) -> Decision:
    """Return the next step of a container that is as desired, by its state."""
    container = comparison.container
    if container.state is State.PAUSED:
        return _unpause(context, unit, container)
    if container.state is State.RESTARTING:
        return hold(crash_loop_wait(context, container, None))
    if container.state is State.RUNNING:
        return _running(context, earlier, unit, comparison)
    if unit.done:
        return Decision(settled=True)
    return _start(context, earlier, unit, comparison)


def _unpause(context: PlanningContext, unit: Unit, container: Container) -> Decision:
    """Unpause a container, once it has been paused for a while."""
    known = context.ledger.paused.get(unit.service.name)
    due = known.since + PAUSE_SECONDS if known is not None and known.container == container.id else 0.0
    if context.now.mono < due:
        message = f"is paused; unpaused after {PAUSE_SECONDS:.0f} s, unless its group is suspended"
        return hold(Wait("paused", message, until=due))
    return attempt(context, unit, Action.UNPAUSE, "paused", "is paused", container)


def _running(context: PlanningContext, earlier: Earlier, unit: Unit, comparison: Comparison) -> Decision:
    container = comparison.container
    hooks = run_hooks(context, unit, container)
    if hooks is not None:
        return hooks
    if comparison.restarted_parent:
        blocked = start_blocked_by(context, earlier, unit)
        if blocked is not None:
            return blocked
        why = f"{comparison.restarted_parent} was restarted"
        return stop_for_recreate(context, unit, container, "follows", why)
    stable_at = crash_loop_end(context.ledger, container, context.now)
    if stable_at is not None:
        return hold(crash_loop_wait(context, container, stable_at))
    if container.health is Health.UNHEALTHY:
        return unhealthy_action(context, earlier, unit, comparison)
    if not is_ready(container):
        return hold(Wait("starting", "waits for its own health check to succeed"))
    if not unit.ready:
        return hold(Wait("completing", "runs until its work is complete"))
    return Decision(settled=True)


def _start(context: PlanningContext, earlier: Earlier, unit: Unit, comparison: Comparison) -> Decision:
    container = comparison.container
    blocked = start_blocked_by(context, earlier, unit)
    if blocked is not None:
        return blocked
    failure = context.ledger.failures.get(unit.service.name)
    if (
        failure is not None
        and failure.inputs == unit.inputs
        and failure.reason in NEVER_STARTS
        and failure.container == container.id
        # Compose does not create a network of `network_mode: missing`, with a new container neither.
        and (
            unit.service.networks
            or failure.reason != "network_missing"
            or container.state is not State.CREATED
        )
    ):
        why = f"can't be started any more: {failure.error}"
        if comparison.held:
            return hold(Block("held_back", f"{why}; its replacement waits to be accepted"))
        return recreate(context, earlier, unit, container, DriftKind.STOPPED, why)
    return attempt(context, unit, Action.START, "stopped", stop_reason(container), container)
