"""Derive phase, reason and message of services, groups and generations from a plan. Pure.

A phase is derived for each snapshot, never stored and never an input to a decision.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

from reconciler.model.backoff import TRIES, Failure
from reconciler.model.ledger import Clock, Ledger
from reconciler.model.ledger_updates import expected_start_time
from reconciler.model.observed import Action
from reconciler.model.stack import UNIT
from reconciler.planning.plan_types import REPLICA_FIRST, orphan_remedy
from reconciler.planning.planner import Plan, ServicePlan

DEGRADED_AT_ONCE = frozenset(
    {
        "image_unavailable",
        "name_conflict",
        "crash_looping",
        "unhealthy",
        "dependency_ended",
        "mount_missing",
        "state_unknown",
    }
)
"""Reasons that make a service degraded at the first attempt: another attempt alone does not help."""


_OWN_PROGRESS = frozenset({"starting", "completing"})
"""Wait reasons of a service whose own container makes progress."""


class Phase(StrEnum):
    """The phases of CONTRACT section 4, from best to worst, then suspended."""

    CONVERGED = "converged"
    PROGRESSING = "progressing"
    WAITING = "waiting"
    BLOCKED = "blocked"
    DEGRADED = "degraded"
    SUSPENDED = "suspended"


class ServiceStatus(NamedTuple):
    """A phase with its stable reason and a sentence for people.

    ``stuck``: no later pass changes it, unless a person or the engine changes something.
    """

    phase: Phase
    reason: str
    message: str
    stuck: bool = False


CONVERGED = ServiceStatus(Phase.CONVERGED, "as_desired", "")
SCALED_TO_ZERO = ServiceStatus(Phase.CONVERGED, "scaled_to_zero", "scaled to zero in the Compose file")


def summarise(plan: Plan, ledger: Ledger, in_flight: Mapping[str, Action]) -> dict[str, ServiceStatus]:
    """Return a status per service, in start order: a wait for a stuck service is stuck as well."""
    statuses: dict[str, ServiceStatus] = {}
    for name, one in plan.services.items():
        if one.units:
            statuses[name] = _of_units(one, ledger, in_flight, statuses)
        elif one.settled and name not in in_flight:
            statuses[name] = CONVERGED if one.replicas else SCALED_TO_ZERO
        else:
            statuses[name] = _summary(one, ledger.failures.get(name), in_flight.get(name), statuses)
        if plan.orphans and statuses[name].phase is not Phase.CONVERGED:
            statuses[name] = _with_orphan(plan, statuses[name])
    return statuses


def _with_orphan(plan: Plan, status: ServiceStatus) -> ServiceStatus:
    """Add the remedy if the message names a container of a service that is no longer in the files.

    Such a container holds a port: after a rename of a service, the old container keeps running.
    """
    for orphan in plan.orphans:
        held = re.search(rf"is taken by container {re.escape(orphan.name)}(?![\w.-])", status.message)
        if held and orphan.service not in plan.services:
            return status._replace(message=f"{status.message}; {orphan_remedy(orphan.name, orphan.service)}")
    return status


def _of_units(
    one: ServicePlan,
    ledger: Ledger,
    in_flight: Mapping[str, Action],
    before: Mapping[str, ServiceStatus],
) -> ServiceStatus:
    """Return the status of the worst replica of a service, with its number."""
    each = {
        unit.service: CONVERGED
        if unit.settled and unit.service not in in_flight
        else _summary(unit, ledger.failures.get(unit.service), in_flight.get(unit.service), before)
        for unit in one.units
    }
    worst = max(each, key=lambda key: _SEVERITY[each[key].phase])
    status = each[worst]
    if status.phase is Phase.CONVERGED:
        return CONVERGED if one.replicas else SCALED_TO_ZERO
    # If the first replica to be recreated is stuck, so are those that wait for it.
    unsettled = [s for s in each.values() if s.phase is not Phase.CONVERGED]
    stuck = all(s.stuck for s in unsettled if s.reason != REPLICA_FIRST or len(unsettled) == 1)
    number = worst.partition(UNIT)[2]
    message = (
        f"replica {number}: {status.message}" if number and status.reason != "held_back" else status.message
    )
    return status._replace(message=message, stuck=stuck)


def _summary(
    one: ServicePlan,
    failure: Failure | None,
    action: Action | None,
    before: Mapping[str, ServiceStatus],
) -> ServiceStatus:
    wait, block = one.wait, one.block
    if wait and wait.reason == "suspended":
        return ServiceStatus(Phase.SUSPENDED, wait.reason, wait.message, stuck=True)
    if block:
        phase = Phase.DEGRADED if block.reason in DEGRADED_AT_ONCE else Phase.BLOCKED
        return ServiceStatus(phase, block.reason, block.message, stuck=True)
    if wait and wait.reason in DEGRADED_AT_ONCE:
        return ServiceStatus(Phase.DEGRADED, wait.reason, wait.message, stuck=True)
    current = failure is not None and failure.inputs == one.inputs
    if failure and current and (failure.attempts >= TRIES or failure.reason in DEGRADED_AT_ONCE):
        return ServiceStatus(Phase.DEGRADED, failure.reason, failure.error, stuck=True)
    if action:
        return ServiceStatus(Phase.PROGRESSING, str(action), f"{_doing(action)} now")
    if one.step:
        return ServiceStatus(Phase.PROGRESSING, one.step.cause, f"{one.step.action}: {one.step.why}")
    if wait is None:
        return CONVERGED
    if wait.reason in _OWN_PROGRESS:
        return ServiceStatus(Phase.PROGRESSING, wait.reason, wait.message)
    stuck = any(before[name].stuck for name in wait.on if name in before)
    return ServiceStatus(Phase.WAITING, wait.reason, wait.message, stuck)


def _doing(action: Action) -> str:
    return {
        Action.STOP: "stopping",
        Action.POST_START: "running post_start hooks",
        Action.UPDATE: "updating",
        Action.CREATE: "creating",
        Action.REMOVE: "removing",
        Action.RENAME: "renaming",
        Action.RECREATE: "recreating",
        Action.UNPAUSE: "unpausing",
    }.get(action, f"{action}ing")


def of_group(summaries: Iterable[tuple[str, ServiceStatus]], *, suspended: bool) -> ServiceStatus:
    """Return the status of a group: that of its worst service, prefixed with the service's name."""
    if suspended:
        differing = [name for name, s in summaries if s.phase is not Phase.CONVERGED]
        verb = "differs" if len(differing) == 1 else "differ"
        message = f"suspended; {', '.join(differing)} {verb}" if differing else "suspended"
        return ServiceStatus(Phase.SUSPENDED, "suspended", message, stuck=True)
    worst = max(summaries, key=lambda pair: _SEVERITY[pair[1].phase], default=None)
    if worst is None or worst[1].phase is Phase.CONVERGED:
        return CONVERGED
    name, summary = worst
    if summary.phase is Phase.BLOCKED:
        return summary
    return summary._replace(message=f"{name}: {summary.message}")


_SEVERITY = {
    Phase.CONVERGED: 0,
    Phase.WAITING: 1,
    Phase.PROGRESSING: 2,
    Phase.BLOCKED: 3,
    Phase.SUSPENDED: 4,
    Phase.DEGRADED: 5,
}


def outcome(summaries: Collection[ServiceStatus]) -> str:
    """Return a generation's outcome: ``converged``, ``degraded`` (all others stuck) or ``progressing``."""
    unsettled = [s for s in summaries if s.phase not in {Phase.CONVERGED, Phase.SUSPENDED}]
    if not unsettled:
        return "converged"
    return "degraded" if all(s.stuck for s in unsettled) else "progressing"


def time_left(plan: Plan, ledger: Ledger, summaries: Mapping[str, ServiceStatus], now: Clock) -> float | None:
    """Return seconds until everything is ready, estimated from earlier starts; None without a measurement.

    The longest chain counts, not the sum: independent services start in parallel.
    """
    left: dict[str, float] = {}
    for name, one in plan.services.items():
        summary = summaries[name]
        if summary.phase in {Phase.CONVERGED, Phase.SUSPENDED} or summary.stuck:
            continue
        if not one.wanted:
            left[name] = 0.0
            continue
        takes = expected_start_time(ledger, name)
        if takes is None:
            return None
        if one.wait and one.wait.reason in _OWN_PROGRESS and one.container:
            takes = max(0.0, takes - (now.wall - one.container.started_at))
        waits = one.wait.on if one.wait else ()
        left[name] = takes + max((left.get(other, 0.0) for other in waits), default=0.0)
    return max(left.values(), default=0.0)
