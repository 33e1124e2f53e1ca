"""What one look adds to the ledger. Pure: takes a ledger and what was seen, returns another ledger.

Kept apart from ``plan`` so that the plan only reads what is remembered and never changes it.
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
    forget_recovered,
    omit,
    record_exit,
    record_start_time,
)
from reconciler.model.observed import ALIVE, LABEL_UNKNOWN, Container, Health, ObservedState, State
from reconciler.model.stack import UNIT, Service, Stack, service_of
from reconciler.planning.drift import (
    attempt_fingerprint,
    change_fingerprint,
    is_one_shot,
    is_ready,
    select_container,
    stopped_by_us,
)
from reconciler.planning.mounts import current_mounts, mounts_to_learn
from reconciler.planning.planner import Plan
from reconciler.planning.replicas import Units, units_of

MOST_TIMES = 5

CLOCKS_DIFFER = 2.0
"""Seconds by which a container may seem older than the order to make it. What is older still was there
before, and an engine that was told to make it let it be."""


def record_observation(
    stack: Stack, desired: Desired, observed: ObservedState, ledger: Ledger, now: Clock, *, chance: float
) -> Ledger:
    """Take in one complete look; an incomplete one teaches nothing. ``chance`` in [0, 1) is the jitter."""
    if not observed.complete:
        return ledger
    by_service: dict[str, list[Container]] = {}
    for container in observed.containers:
        by_service.setdefault(container.service, []).append(container)
    found: Mapping[str, list[Container]] = by_service
    units = None
    if stack.replicated or len(by_service) != len(observed.containers):
        units = units_of(stack, desired, observed, ledger, found)
    ledger = _surplus(ledger, units, now)
    whole = stack
    if units is not None:
        # What is remembered of a replica that is gone would be taken for that of a later one.
        ledger = _of_units(ledger, units)
        stack, found = units.stack, units.found
    for name, group in stack.group_of.items():
        service = stack.services[name]
        state = desired.groups[group]
        if any(c.state is State.UNKNOWN for c in found.get(name, ())):
            # What can't be read says nothing new, and contradicts nothing that is remembered.
            continue
        kept = select_container(service, found.get(name, ()), observed, ledger)
        if not state.on:
            down = not any(c.state in ALIVE for c in found.get(name, ()))
            ledger = _forget(ledger, name, down=down)
            if kept is not None:
                ledger = _made(stack, ledger, observed, service, kept)
        elif kept is not None:
            ledger = _look(stack, state, observed, ledger, service, kept, now, chance)
            if name in stack.follows and kept.state in ALIVE:
                parents = {
                    p: select_container(stack.services[p], found.get(p, ()), observed, ledger)
                    for p in stack.follows[name]
                }
                ledger = _tied(ledger, kept, parents)
    return forget_recovered(_pruned(_same_inputs(whole, observed, ledger), observed), now)


def _surplus(ledger: Ledger, units: Units | None, now: Clock) -> Ledger:
    """Since when there are more containers than the file says: more of them have to be accepted anew."""
    here = {} if units is None else units.surplus
    if not here and not ledger.surplus:
        return ledger
    new = {}
    for name, containers in here.items():
        ids, known = sorted(c.id for c in containers), ledger.surplus.get(name)
        fewer = known is not None and set(ids) <= set(known.mark.split())
        new[name] = HeldChange(" ".join(ids), known.since if known is not None and fewer else now.wall)
    return ledger if new == ledger.surplus else replace(ledger, surplus=new)


def _of_units(ledger: Ledger, units: Units) -> Ledger:
    """The ledger without entries of units that are no more."""
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


def _same_inputs(stack: Stack, observed: ObservedState, ledger: Ledger) -> Ledger:
    """Take as defined what was so in the same files, where only Compose is another one by now.

    A new version writes other hashes, and even other fields, for the same bytes; that is no change of
    anything that a person wrote, and must remake nothing (PITFALLS row 4).
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


def _of_another_compose(stack: Stack, container: Container) -> bool:
    """Whether its label can't be compared with our hashes: then it is taken as it is, not made anew."""
    return bool(container.compose and stack.compose) and container.compose != stack.compose


def _pruned(ledger: Ledger, observed: ObservedState) -> Ledger:
    """Without what is remembered of containers that are gone, or of an earlier run of theirs."""
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


def _forget(ledger: Ledger, name: str, *, down: bool) -> Ledger:
    """A service that is off starts afresh when it is switched on; one that is down has failed at nothing."""
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


def _look(
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
    ledger = _made(stack, ledger, observed, service, container)
    if stack.groups[stack.group_of[name]].on_change == "report":
        ledger = _change(ledger, observed, service, container, now)
    if container.state in ALIVE:
        if ledger.live.get(name) != container.id:
            ledger = replace(ledger, live={**ledger.live, name: container.id})
        ledger = _unhealthy(_restarted(ledger, container, now), container, now)
        if container.id not in ledger.at_work and is_one_shot(stack, service):
            ledger = replace(ledger, at_work={**ledger.at_work, container.id: container.started_at})
        return _ready(stack, ledger, service, container, now)
    if name in ledger.ready:
        ledger = replace(ledger, ready=omit(ledger.ready, [name]))
    if ledger.live.get(name) != container.id or container.state not in {State.EXITED, State.DEAD}:
        return ledger
    ledger = replace(ledger, live=omit(ledger.live, [name]))
    if stopped_by_us(ledger, container):
        return ledger
    if container.exit_code == 0 and is_one_shot(stack, service):
        return _completed(stack, ledger, service, container)
    end = ContainerExit(container.id, container.finished_at, container.exit_code, container.oom_killed)
    inputs = attempt_fingerprint(service, state, observed)
    return record_exit(ledger, name, end, inputs=inputs, now=now, chance=chance)


def _tied(ledger: Ledger, container: Container, parents: Mapping[str, Container | None]) -> Ledger:
    """On which runs of the services that it follows this run began; told by what was seen before."""
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
    # One that was seen to run before is older than this run. Of two new ones the clock has to be asked.
    return parent.run if known == parent.run or parent.started_at <= container.started_at else ""


def _restarted(ledger: Ledger, container: Container, now: Clock) -> Ledger:
    """What the engine restarted by its own policy, and the end that made it do so."""
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
        # The first one was just now; more of them may be of long ago.
        entry = Restarts(container.id, count, (now.mono,) if count == 1 else ())
    elif count > known.total:
        times = (*known.times, *[now.mono] * (count - known.total))
        entry = Restarts(container.id, count, times[-MOST_TIMES:])
    else:
        return ledger
    return replace(ledger, restarts={**ledger.restarts, name: entry})


def _unhealthy(ledger: Ledger, container: Container, now: Clock) -> Ledger:
    name, known = container.service, ledger.unhealthy.get(container.service)
    if container.state is not State.RUNNING or container.health is not Health.UNHEALTHY:
        return replace(ledger, unhealthy=omit(ledger.unhealthy, [name])) if known else ledger
    if known is not None and (known.container, known.started_at) == (container.id, container.started_at):
        return ledger
    entry = ReadySince(container.id, container.started_at, now.mono)
    return replace(ledger, unhealthy={**ledger.unhealthy, name: entry})


def _completed(stack: Stack, ledger: Ledger, service: Service, container: Container) -> Ledger:
    """A one-shot did its work: what failed before is over, and how long it took is worth knowing."""
    name = service.name
    if name in ledger.failures:
        ledger = replace(ledger, failures=omit(ledger.failures, [name]))
    if name in stack.one_shots:
        took = max(0.0, container.finished_at - container.started_at)
        ledger = record_start_time(ledger, service_of(name), not_at=0.0, at=took)
    return ledger


def _made(
    stack: Stack, ledger: Ledger, observed: ObservedState, service: Service, container: Container
) -> Ledger:
    """Record what the container was made from: what we made it from, or what its label says."""
    known = ledger.made.get(container.id)
    label = observed.labels.get(container.id)
    if known is not None:
        if known.definition != service.definition and label == container.config_hash:
            # Written down by a version of ours that digested the same definition differently.
            known = known._replace(definition=service.definition, fields=service.fields)
            ledger = replace(ledger, made={**ledger.made, container.id: known})
        return _mounts_learned(ledger, observed, service, container, known)
    made = ledger.making.get(service.name)
    if made is not None and container.created_at >= made.at - CLOCKS_DIFFER:
        ledger = replace(ledger, making=omit(ledger.making, [service.name]))
        # What its predecessor lacked, and it lacks as well, another remake would not bring.
        made = made._replace(lacks=tuple(n for n in made.lacks if n not in container.networks))
    elif (
        container.config_hash == service.config_hash
        or label in {container.config_hash, LABEL_UNKNOWN}
        or _of_another_compose(stack, container)
    ):
        mounts = current_mounts(service, observed)
        made = BuiltFrom(service.definition, service.fields, container.image, mounts=mounts)
    else:
        return ledger
    return replace(ledger, made={**ledger.made, container.id: made})


def _change(
    ledger: Ledger, observed: ObservedState, service: Service, container: Container, now: Clock
) -> Ledger:
    """Since when a change is there to be accepted: a later one has to be accepted on its own."""
    name, known = service.name, ledger.changes.get(service.name)
    mark = change_fingerprint(service, container, observed, ledger.made.get(container.id))
    if mark == (known.mark if known else ""):
        return ledger
    changes = {**ledger.changes, name: HeldChange(mark, now.wall)} if mark else omit(ledger.changes, [name])
    return replace(ledger, changes=changes)


def _mounts_learned(
    ledger: Ledger, observed: ObservedState, service: Service, container: Container, made: BuiltFrom
) -> Ledger:
    """Take what is mounted now as what it was made with, where nobody had looked at that before."""
    if not service.mounts or made.definition != service.definition:
        return ledger
    new = mounts_to_learn(service, observed, made)
    if not new:
        return ledger
    made = made._replace(mounts={**made.mounts, **new})
    return replace(ledger, made={**ledger.made, container.id: made})


def _ready(stack: Stack, ledger: Ledger, service: Service, container: Container, now: Clock) -> Ledger:
    name = service.name
    since = ledger.ready.get(name)
    if not is_ready(container):
        return replace(ledger, ready=omit(ledger.ready, [name])) if since is not None else ledger
    if (
        container.health is Health.NONE
        and service_of(name) not in ledger.durations
        and name not in stack.one_shots
    ):
        # Ready as soon as it runs: known without ever measuring it.
        ledger = record_start_time(ledger, service_of(name), not_at=0.0, at=0.0)
    if since is not None and (since.container, since.started_at) == (container.id, container.started_at):
        return ledger
    entry = ReadySince(container.id, container.started_at, now.mono)
    return replace(ledger, ready={**ledger.ready, name: entry})


def mark_settled(ledger: Ledger, plan: Plan) -> Ledger:
    """Remember what was wanted of every service that is as wanted: from now on, a difference is drift."""
    new = {
        name: verdict.wants
        for name, verdict in plan.verdicts.items()
        if verdict.settled and ledger.settled.get(name) != verdict.wants
    }
    return replace(ledger, settled={**ledger.settled, **new}) if new else ledger
