"""Update the ledger from one observation. Pure: returns another ledger.

Separate from ``plan``, which only reads the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from reconciler.model.desired import Desired, GroupState
from reconciler.model.ledger import (
    Clock,
    ContainerExit,
    HeldChange,
    Ledger,
    ParentRuns,
    ReadySince,
    Restarts,
)
from reconciler.model.ledger_updates import forget_recovered, omit, record_exit, record_start_time
from reconciler.model.observed import ALIVE, Container, Health, ObservedState, State
from reconciler.model.stack import Service, Stack, service_of
from reconciler.planning.comparison import select_container
from reconciler.planning.completed import record_completed, record_stop
from reconciler.planning.container_state import has_completed, is_one_shot, is_ready, stopped_by_us
from reconciler.planning.fingerprints import attempt_fingerprint
from reconciler.planning.forget_entries import (
    forget_removed_containers,
    forget_removed_services,
    forget_removed_units,
    forget_stopped,
)
from reconciler.planning.planner import Plan
from reconciler.planning.record_builds import adopt_new_compose, record_build, record_held_change
from reconciler.planning.replicas import Units, units_of

MAX_RESTART_TIMES = 5


def record_observation(
    stack: Stack, desired: Desired, observed: ObservedState, ledger: Ledger, now: Clock, *, chance: float
) -> Ledger:
    """Record one complete observation; ignore an incomplete one. ``chance`` in [0, 1) is the jitter."""
    if not observed.complete:
        return ledger
    by_service: dict[str, list[Container]] = {}
    for container in observed.containers:
        by_service.setdefault(container.service, []).append(container)
    containers: Mapping[str, list[Container]] = by_service
    units = None
    if stack.replicated or len(by_service) != len(observed.containers):
        units = units_of(stack, desired, observed, ledger, containers)
    ledger = _record_surplus(ledger, units, now)
    whole = stack
    if units is not None:
        # Entries of a removed replica would apply to a later one with the same number.
        ledger = forget_removed_units(ledger, units)
        stack, containers = units.stack, units.containers
    for name, group in stack.group_of.items():
        service = stack.services[name]
        state = desired.groups[group]
        if any(c.state is State.UNKNOWN for c in containers.get(name, ())):
            # An unreadable container neither adds to the ledger nor contradicts it.
            continue
        selected = select_container(whole, service, containers.get(name, ()), observed, ledger)
        if not state.on:
            down = not any(c.state in ALIVE for c in containers.get(name, ()))
            ledger = forget_stopped(ledger, name, down=down)
            if selected is not None:
                ledger = record_build(stack, ledger, observed, service, selected)
                ledger = record_completed(
                    stack, record_stop(stack, ledger, service, selected), service, selected
                )
        elif selected is not None:
            ledger = _record_container(stack, state, observed, ledger, service, selected, now, chance)
            ledger = record_completed(stack, ledger, service, selected)
            if name in stack.follows and selected.state in ALIVE:
                parents = {
                    p: select_container(whole, stack.services[p], containers.get(p, ()), observed, ledger)
                    for p in stack.follows[name]
                }
                ledger = _record_parents(ledger, selected, parents)
    return forget_recovered(
        forget_removed_containers(
            adopt_new_compose(whole, observed, forget_removed_services(whole, ledger)), observed
        ),
        now,
    )


def _record_surplus(ledger: Ledger, units: Units | None, now: Clock) -> Ledger:
    """Record since when there are surplus containers; additional ones need another acceptance."""
    here = {} if units is None else units.surplus
    if not here and not ledger.surplus:
        return ledger
    new = {}
    for name, containers in here.items():
        ids, known = sorted(c.id for c in containers), ledger.surplus.get(name)
        fewer = known is not None and set(ids) <= set(known.mark.split())
        new[name] = HeldChange(" ".join(ids), known.since if known is not None and fewer else now.wall)
    return ledger if new == ledger.surplus else replace(ledger, surplus=new)


def _record_container(
    stack: Stack,
    state: GroupState,
    observed: ObservedState,
    ledger: Ledger,
    service: Service,
    container: Container,
    now: Clock,
    chance: float,
) -> Ledger:
    name = service.name
    ledger = record_build(stack, ledger, observed, service, container)
    ledger = record_stop(stack, ledger, service, container)
    if stack.groups[stack.group_of[name]].on_change == "report":
        ledger = record_held_change(stack, ledger, observed, service, container, now)
    if container.state in ALIVE:
        if ledger.live.get(name) != container.id:
            ledger = replace(ledger, live={**ledger.live, name: container.id})
        ledger = _record_health(_record_restarts(ledger, container, now), container, now)
        ledger = _record_pause(ledger, container, now)
        if container.id not in ledger.at_work and is_one_shot(stack, service):
            ledger = replace(ledger, at_work={**ledger.at_work, container.id: container.started_at})
        return _record_readiness(stack, ledger, service, container, now)
    if name in ledger.ready:
        ledger = replace(ledger, ready=omit(ledger.ready, [name]))
    if ledger.live.get(name) != container.id or container.state not in {State.EXITED, State.DEAD}:
        return ledger
    ledger = replace(ledger, live=omit(ledger.live, [name]))
    if stopped_by_us(ledger, container):
        return ledger
    if has_completed(stack, ledger, service, container):
        return _record_completion(stack, ledger, service, container)
    end = ContainerExit(container.id, container.finished_at, container.exit_code, container.oom_killed)
    inputs = attempt_fingerprint(service, state, observed)
    return record_exit(ledger, name, end, inputs=inputs, now=now, chance=chance)


def _record_parents(ledger: Ledger, container: Container, parents: Mapping[str, Container | None]) -> Ledger:
    """Record the parent runs that this run started on, from earlier observations."""
    before = ledger.tied.get(container.service)
    known = before.parents if before is not None else {}
    same = before is not None and before.run == container.run
    if same and known.keys() >= parents.keys():
        return ledger
    began_on = {
        name: known[name] if same and name in known else _began_on(container, parent, known.get(name))
        for name, parent in parents.items()
    }
    return replace(ledger, tied={**ledger.tied, container.service: ParentRuns(container.run, began_on)})


def _began_on(container: Container, parent: Container | None, known: str | None) -> str:
    if parent is None or not parent.started_at:
        return ""
    # A parent run that was observed before is older than this run. For two new runs the clock decides.
    return parent.run if known == parent.run or parent.started_at <= container.started_at else ""


def _record_restarts(ledger: Ledger, container: Container, now: Clock) -> Ledger:
    """Record restarts by the engine's policy, and the exit that caused the last one."""
    name, count = container.service, container.restart_count
    if container.state is State.RESTARTING:
        end = ContainerExit(container.id, container.finished_at, container.exit_code, container.oom_killed)
        known_end = ledger.exits.get(name)
        if known_end is None or known_end[:2] != end[:2]:
            ledger = replace(ledger, exits={**ledger.exits, name: end})
    known = ledger.restarts.get(name)
    if known is None and not count:
        return ledger
    if known is None or known.container != container.id or count < known.total:
        # A first restart was just now; several may be old.
        entry = Restarts(container.id, count, (now.mono,) if count == 1 else ())
    elif count > known.total:
        times = (*known.times, *[now.mono] * (count - known.total))
        entry = Restarts(container.id, count, times[-MAX_RESTART_TIMES:])
    else:
        return ledger
    return replace(ledger, restarts={**ledger.restarts, name: entry})


def _record_health(ledger: Ledger, container: Container, now: Clock) -> Ledger:
    is_unhealthy = container.state is State.RUNNING and container.health is Health.UNHEALTHY
    unhealthy = _since(ledger.unhealthy, container.service, container, now, holds=is_unhealthy)
    return ledger if unhealthy is ledger.unhealthy else replace(ledger, unhealthy=unhealthy)


def _record_pause(ledger: Ledger, container: Container, now: Clock) -> Ledger:
    paused = _since(ledger.paused, container.service, container, now, holds=container.state is State.PAUSED)
    return ledger if paused is ledger.paused else replace(ledger, paused=paused)


def _since(
    times: Mapping[str, ReadySince], name: str, container: Container, now: Clock, *, holds: bool
) -> Mapping[str, ReadySince]:
    """Return ``times`` with the time since which a condition holds for this run of a container."""
    known = times.get(name)
    if not holds:
        return times if known is None else omit(times, [name])
    if known is not None and (known.container, known.started_at) == (container.id, container.started_at):
        return times
    return {**times, name: ReadySince(container.id, container.started_at, now.mono)}


def _record_completion(stack: Stack, ledger: Ledger, service: Service, container: Container) -> Ledger:
    """Record a completed one-shot: drop earlier failures and measure its duration."""
    name = service.name
    if name in ledger.failures:
        ledger = replace(ledger, failures=omit(ledger.failures, [name]))
    if name in stack.one_shots:
        took = max(0.0, container.finished_at - container.started_at)
        ledger = record_start_time(ledger, service_of(name), not_at=0.0, at=took)
    return ledger


def _record_readiness(
    stack: Stack, ledger: Ledger, service: Service, container: Container, now: Clock
) -> Ledger:
    name = service.name
    holds = is_ready(container)
    if (
        holds
        and container.health is Health.NONE
        and service_of(name) not in ledger.durations
        and name not in stack.one_shots
    ):
        # Without a check it is ready as soon as it runs: no measurement needed.
        ledger = record_start_time(ledger, service_of(name), not_at=0.0, at=0.0)
    ready = _since(ledger.ready, name, container, now, holds=holds)
    return ledger if ready is ledger.ready else replace(ledger, ready=ready)


def mark_settled(ledger: Ledger, plan: Plan) -> Ledger:
    """Record the desired state of every settled service: later differences are drift."""
    new = {
        name: one.wants
        for name, one in plan.services.items()
        if one.settled and ledger.settled.get(name) != one.wants
    }
    return replace(ledger, settled={**ledger.settled, **new}) if new else ledger
