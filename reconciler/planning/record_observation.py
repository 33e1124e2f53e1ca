"""Update the ledger from one observation. Pure: returns another ledger.

Separate from ``plan``, which only reads the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from reconciler.model.desired import Desired, GroupState
from reconciler.model.ledger import (
    BuiltFrom,
    Clock,
    ContainerExit,
    HeldChange,
    Ledger,
    ParentRuns,
    ReadySince,
    Restarts,
)
from reconciler.model.ledger_updates import forget_recovered, omit, record_exit, record_start_time
from reconciler.model.observed import ALIVE, LABEL_UNKNOWN, Container, Health, ObservedState, State
from reconciler.model.stack import UNIT, Service, Stack, service_of
from reconciler.planning.comparison import change_fingerprint, compare, select_container
from reconciler.planning.container_state import is_one_shot, is_ready, stopped_by_us
from reconciler.planning.fingerprints import attempt_fingerprint
from reconciler.planning.mounts import current_mounts, mounts_to_learn
from reconciler.planning.planner import Plan
from reconciler.planning.replicas import Units, units_of

MAX_RESTART_TIMES = 5

CREATE_CLOCK_SKEW = 2.0
"""Seconds by which a container may seem older than the command to create it. An older one existed before, and
the engine kept it."""


def record_observation(
    stack: Stack, desired: Desired, observed: ObservedState, ledger: Ledger, now: Clock, *, chance: float
) -> Ledger:
    """Record one complete observation; ignore an incomplete one. ``chance`` in [0, 1) is the jitter."""
    if not observed.complete:
        return ledger
    by_service: dict[str, list[Container]] = {}
    for container in observed.containers:
        by_service.setdefault(container.service, []).append(container)
    found: Mapping[str, list[Container]] = by_service
    units = None
    if stack.replicated or len(by_service) != len(observed.containers):
        units = units_of(stack, desired, observed, ledger, found)
    ledger = _record_surplus(ledger, units, now)
    whole = stack
    if units is not None:
        # Entries of a removed replica would apply to a later one with the same number.
        ledger = _forget_removed_units(ledger, units)
        stack, found = units.stack, units.found
    for name, group in stack.group_of.items():
        service = stack.services[name]
        state = desired.groups[group]
        if any(c.state is State.UNKNOWN for c in found.get(name, ())):
            # An unreadable container neither adds to the ledger nor contradicts it.
            continue
        selected = select_container(whole, service, found.get(name, ()), observed, ledger)
        if not state.on:
            down = not any(c.state in ALIVE for c in found.get(name, ()))
            ledger = _forget_stopped(ledger, name, down=down)
            if selected is not None:
                ledger = _record_build(stack, ledger, observed, service, selected)
        elif selected is not None:
            ledger = _record_container(stack, state, observed, ledger, service, selected, now, chance)
            if name in stack.follows and selected.state in ALIVE:
                parents = {
                    p: select_container(whole, stack.services[p], found.get(p, ()), observed, ledger)
                    for p in stack.follows[name]
                }
                ledger = _record_parents(ledger, selected, parents)
    return forget_recovered(
        _forget_removed_containers(_adopt_new_compose(whole, observed, ledger), observed), now
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


def _forget_removed_units(ledger: Ledger, units: Units) -> Ledger:
    """Return the ledger without entries of removed units."""
    known = {unit for names in units.of.values() for unit in names}
    for name, containers in units.surplus.items():
        known |= {f"{name}{UNIT}{c.number}" for c in containers}
    fields = ("making", "live", "failures", "restarted", "followed", "tied", "ready", "exits")
    changed: dict[str, Any] = {}
    for field in (*fields, "changes", "unhealthy", "healed", "restarts"):
        entries = getattr(ledger, field)
        lost = [key for key in entries if UNIT in key and key not in known]
        if lost:
            changed[field] = omit(entries, lost)
    return replace(ledger, **changed) if changed else ledger


def _adopt_new_compose(stack: Stack, observed: ObservedState, ledger: Ledger) -> Ledger:
    """Adopt the definitions of another Compose version if the input files are the same.

    A new version writes other hashes, and even other fields, for the same bytes. No file changed, so nothing
    must be recreated (PITFALLS row 4).
    """
    if not stack.inputs:
        return ledger
    new = {}
    for container in observed.containers:
        made, service = ledger.made.get(container.id), stack.services.get(container.service)
        if made is None or service is None or (made.inputs, made.compose) == (stack.inputs, stack.compose):
            continue
        same_files = made.inputs == stack.inputs and made.compose != stack.compose
        if made.definition == service.definition or same_files:
            new[container.id] = made._replace(
                definition=service.definition,
                fields=service.fields,
                inputs=stack.inputs,
                compose=stack.compose,
            )
    return replace(ledger, made={**ledger.made, **new}) if new else ledger


def _made_by_other_compose(stack: Stack, container: Container) -> bool:
    """Whether the container's label is of another Compose version: then it is adopted, not recreated."""
    return bool(container.compose and stack.compose) and container.compose != stack.compose


def _forget_removed_containers(ledger: Ledger, observed: ObservedState) -> Ledger:
    """Drop entries of removed containers and of their earlier runs."""
    started = {container.id: container.started_at for container in observed.containers}
    unread = {container.id for container in observed.containers if container.state is State.UNKNOWN}
    lost = [id_ for id_ in ledger.made if id_ not in started]
    if lost:
        ledger = replace(ledger, made=omit(ledger.made, lost))
    over = [n for n, failure in ledger.failures.items() if failure.inputs == "gone"]
    gone = set(over) - {container.service for container in observed.containers}
    if gone:
        ledger = replace(ledger, failures=omit(ledger.failures, gone))
    hooks = {id_: failed for id_, failed in ledger.hooks.items() if id_ in started}
    if hooks != ledger.hooks:
        ledger = replace(ledger, hooks=hooks)
    cut = {id_: at for id_, at in ledger.cut.items() if id_ in unread or started.get(id_) == at}
    if cut != ledger.cut:
        ledger = replace(ledger, cut=cut)
    if ledger.at_work:
        alive = {c.id: c.started_at for c in observed.containers if c.state in ALIVE}
        at_work = {
            id_: alive.get(id_, at) for id_, at in ledger.at_work.items() if id_ in alive or id_ in unread
        }
        if at_work != ledger.at_work:
            ledger = replace(ledger, at_work=at_work)
    past = [id_ for id_, at in ledger.stopped.items() if id_ not in unread and started.get(id_) != at]
    return replace(ledger, stopped=omit(ledger.stopped, past)) if past else ledger


def _forget_stopped(ledger: Ledger, name: str, *, down: bool) -> Ledger:
    """Reset a service that is off: once switched on, it starts without earlier failures."""
    failure = ledger.failures.get(name)
    if failure is not None and (down or failure.inputs != "off"):
        ledger = replace(ledger, failures=omit(ledger.failures, [name]))
    if name in ledger.live or name in ledger.ready:
        ledger = replace(ledger, live=omit(ledger.live, [name]), ready=omit(ledger.ready, [name]))
    if name in ledger.unhealthy or name in ledger.healed or name in ledger.restarts:
        ledger = replace(
            ledger,
            unhealthy=omit(ledger.unhealthy, [name]),
            healed=omit(ledger.healed, [name]),
            restarts=omit(ledger.restarts, [name]),
        )
    return ledger


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
    ledger = _record_build(stack, ledger, observed, service, container)
    if stack.groups[stack.group_of[name]].on_change == "report":
        ledger = _record_held_change(stack, ledger, observed, service, container, now)
    if container.state in ALIVE:
        if ledger.live.get(name) != container.id:
            ledger = replace(ledger, live={**ledger.live, name: container.id})
        ledger = _record_health(_record_restarts(ledger, container, now), container, now)
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
    if container.exit_code == 0 and is_one_shot(stack, service):
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
    name, known = container.service, ledger.unhealthy.get(container.service)
    if container.state is not State.RUNNING or container.health is not Health.UNHEALTHY:
        return replace(ledger, unhealthy=omit(ledger.unhealthy, [name])) if known else ledger
    if known is not None and (known.container, known.started_at) == (container.id, container.started_at):
        return ledger
    entry = ReadySince(container.id, container.started_at, now.mono)
    return replace(ledger, unhealthy={**ledger.unhealthy, name: entry})


def _record_completion(stack: Stack, ledger: Ledger, service: Service, container: Container) -> Ledger:
    """Record a completed one-shot: drop earlier failures and measure its duration."""
    name = service.name
    if name in ledger.failures:
        ledger = replace(ledger, failures=omit(ledger.failures, [name]))
    if name in stack.one_shots:
        took = max(0.0, container.finished_at - container.started_at)
        ledger = record_start_time(ledger, service_of(name), not_at=0.0, at=took)
    return ledger


def _record_build(
    stack: Stack, ledger: Ledger, observed: ObservedState, service: Service, container: Container
) -> Ledger:
    """Record what the container was created from: the daemon's own record, or its label."""
    known = ledger.made.get(container.id)
    label = observed.labels.get(container.id)
    if known is not None:
        if known.definition != service.definition and label == container.config_hash:
            # Recorded by an earlier version that digested the same definition differently.
            known = known._replace(definition=service.definition, fields=service.fields)
            ledger = replace(ledger, made={**ledger.made, container.id: known})
        return _record_mounts(ledger, observed, service, container, known)
    made = ledger.making.get(service.name)
    if made is not None and container.created_at >= made.at - CREATE_CLOCK_SKEW:
        ledger = replace(ledger, making=omit(ledger.making, [service.name]))
        # Networks that both the predecessor and this container lack would stay missing after a recreation.
        made = made._replace(lacks=tuple(n for n in made.lacks if n not in container.networks))
    elif (
        container.config_hash == service.config_hash
        or label in {container.config_hash, LABEL_UNKNOWN}
        or _made_by_other_compose(stack, container)
    ):
        mounts = current_mounts(service, observed)
        made = BuiltFrom(service.definition, service.fields, container.image, mounts=mounts)
    else:
        return ledger
    return replace(ledger, made={**ledger.made, container.id: made})


def _record_held_change(
    stack: Stack, ledger: Ledger, observed: ObservedState, service: Service, container: Container, now: Clock
) -> Ledger:
    """Record since when a change waits for acceptance; a later change needs its own."""
    name, known = service.name, ledger.changes.get(service.name)
    mark = change_fingerprint(compare(stack, service, container, observed, ledger), observed)
    if mark == (known.mark if known else ""):
        return ledger
    changes = {**ledger.changes, name: HeldChange(mark, now.wall)} if mark else omit(ledger.changes, [name])
    return replace(ledger, changes=changes)


def _record_mounts(
    ledger: Ledger, observed: ObservedState, service: Service, container: Container, made: BuiltFrom
) -> Ledger:
    """Record the current mounts as those of the creation if none were recorded before."""
    if not service.mounts or made.definition != service.definition:
        return ledger
    new = mounts_to_learn(service, observed, made)
    if not new:
        return ledger
    made = made._replace(mounts={**made.mounts, **new})
    return replace(ledger, made={**ledger.made, container.id: made})


def _record_readiness(
    stack: Stack, ledger: Ledger, service: Service, container: Container, now: Clock
) -> Ledger:
    name = service.name
    since = ledger.ready.get(name)
    if not is_ready(container):
        return replace(ledger, ready=omit(ledger.ready, [name])) if since is not None else ledger
    if (
        container.health is Health.NONE
        and service_of(name) not in ledger.durations
        and name not in stack.one_shots
    ):
        # Without a check it is ready as soon as it runs: no measurement needed.
        ledger = record_start_time(ledger, service_of(name), not_at=0.0, at=0.0)
    if since is not None and (since.container, since.started_at) == (container.id, container.started_at):
        return ledger
    entry = ReadySince(container.id, container.started_at, now.mono)
    return replace(ledger, ready={**ledger.ready, name: entry})


def mark_settled(ledger: Ledger, plan: Plan) -> Ledger:
    """Record the desired state of every settled service: later differences are drift."""
    new = {
        name: one.wants
        for name, one in plan.services.items()
        if one.settled and ledger.settled.get(name) != one.wants
    }
    return replace(ledger, settled={**ledger.settled, **new}) if new else ledger
