"""What has to happen first: what a group is allowed, what a service waits for, what stops before it.

Pure helpers of one decision. ``PlanningContext`` is the working state of one call of ``plan``; nothing of it
outlives the call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from reconciler.model.backoff import TRIES
from reconciler.model.desired import Desired, GroupState
from reconciler.model.ledger import Clock, Ledger
from reconciler.model.observed import ALIVE, Container, Health, ObservedState, State
from reconciler.model.stack import Condition, Dependency, Service, Stack, Strength, service_of
from reconciler.planning.drift import (
    attempt_fingerprint,
    change_fingerprint,
    crash_loops,
    includes_restart,
    is_ready,
    join_names,
    missing_networks,
    same_definition,
    same_image,
    stale_namespaces,
)
from reconciler.planning.mounts import changed_mounts
from reconciler.planning.plan_types import Block, Wait

REMAKE_TAKES = 5.0
"""Seconds that Compose takes to remake a container, besides stopping the old one."""

ENDED = frozenset({"exited", "out_of_memory"})
"""Reasons of failures that are no failed step of ours: whoever remakes a container also ends the old one."""

SEEN_LATER = 2.0
"""Seconds by which a change may be first seen after it was accepted: whoever saves a file and accepts it at
once is quicker than the look that finds it."""


HOSTS_DIFFER = 60.0
"""Seconds by which the clock of an engine elsewhere may be ahead of ours."""


class GroupGate(NamedTuple):
    """What holds for every service of a group in this pass.

    ``restart_at`` and ``accept_at`` are wall times, never future ones.
    """

    group: str
    state: GroupState
    suspended: bool
    block: Block | None
    ready_groups: tuple[str, ...]
    restart_at: float | None
    accept_at: float | None


@dataclass(slots=True)
class PlanningContext:
    """What is known at the start of a call, and what the services judged so far add to it.

    ``kept`` is the container that stands for each service, ``stopping_services`` the services that go down,
    for good or to come back, ``claimed`` which service fetches an image for all that use it.
    """

    stack: Stack
    desired: Desired
    observed: ObservedState
    ledger: Ledger
    now: Clock
    gates: Mapping[str, GroupGate]
    found: Mapping[str, Sequence[Container]]
    kept: dict[str, Container | None]
    going: set[str]
    ready: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)
    claimed: dict[str, str] = field(default_factory=dict)
    creating: set[str] = field(default_factory=set)


def group_gate(stack: Stack, desired: Desired, name: str, now: Clock) -> GroupGate:
    """What the group is allowed now: whether hands are off, what blocks it, which groups it waits for."""
    group, state = stack.groups[name], desired.groups[name]
    suspended = state.suspended(now.wall)
    block = None
    ready_groups: tuple[str, ...] = ()
    if state.on and group.depends_on and not state.force:
        off = [needed for needed in group.depends_on if not desired.groups[needed].on]
        if off:
            names = " and ".join(off)
            verb = "is" if len(off) == 1 else "are"
            block = Block("dependency_off", f"needs {names}, which {verb} off")
        ready_groups = tuple(n for n, strength in group.depends_on.items() if strength is Strength.READY)
    restart_at, accept_at = (
        None if at is None or at > now.wall else at for at in (state.restarted_at, state.accepted_at)
    )
    return GroupGate(name, state, suspended, block, ready_groups, restart_at, accept_at)


def stopping_services(scratch: PlanningContext) -> set[str]:
    """Services that are up and have to go down, for good or to come back: their order is reversed."""
    going: set[str] = set()
    for gate in scratch.gates.values():
        if gate.suspended or gate.block:
            continue
        names = scratch.stack.groups[gate.group].services
        if not gate.state.on:
            # Without a container that stands for it (``kept``), nothing is done to the service.
            up = (n for n in names if any(c.state in ALIVE for c in scratch.found.get(n, ())))
            going.update(n for n in up if scratch.kept.get(n) is not None)
        elif gate.restart_at is not None:
            going.update(n for n in names if can_stop_for_restart(scratch, gate, n))
    return going


def is_restart_due(scratch: PlanningContext, gate: GroupGate, name: str) -> bool:
    """Whether the service runs since before the restart asked for, and was not restarted for it yet."""
    container = scratch.kept.get(name)
    if (
        gate.restart_at is None
        or container is None
        or container.state not in ALIVE
        or scratch.ledger.restarted.get(name) == gate.restart_at
    ):
        return False
    if container.started_at <= scratch.now.wall + HOSTS_DIFFER:
        return container.started_at < gate.restart_at
    # It began at a time that is yet to come, so the clock was set back, and tells no more what came first.
    # But what was not asked for yet when the service last was as wanted was asked for after its start.
    settled = scratch.ledger.settled.get(service_of(name))
    return settled is not None and not includes_restart(settled, gate.restart_at)


def can_stop_for_restart(scratch: PlanningContext, gate: GroupGate, name: str) -> bool:
    """Whether the service can be stopped for the restart asked for: what comes back has to be there first."""
    container = scratch.kept.get(name)
    if container is None or not is_restart_due(scratch, gate, name):
        return False
    service = scratch.stack.services[name]
    if missing_mount(scratch, service, container):
        return False
    there = not service.image or service.image in scratch.observed.images
    return there or not must_recreate(scratch, service, container)


def must_recreate(scratch: PlanningContext, service: Service, container: Container) -> bool:
    """Whether only another container will do, and it may be made."""
    made = scratch.ledger.made.get(container.id)
    differs = (
        not same_definition(service, container, made)
        or not same_image(container, scratch.observed.images.get(service.image), made)
        or bool(service.mounts and changed_mounts(service, container, scratch.observed, made))
    )
    if differs:
        return not awaits_acceptance(scratch, service, container)
    return bool(
        missing_networks(service, container, made) or stale_namespaces(service, container, scratch.kept)
    )


def awaits_acceptance(scratch: PlanningContext, service: Service, container: Container) -> bool:
    """Whether what the container would be remade for waits to be accepted."""
    group = scratch.stack.group_of[service.name]
    if scratch.stack.groups[group].on_change != "report":
        return False
    made = scratch.ledger.made.get(container.id)
    mark = change_fingerprint(service, container, scratch.observed, made)
    known, accepted = scratch.ledger.changes.get(service.name), scratch.gates[group].accept_at
    if known is None or known.mark != mark or accepted is None:
        return bool(mark)
    return known.since > accepted + SEEN_LATER


def missing_mount(scratch: PlanningContext, service: Service, container: Container | None) -> Block | None:
    """Why no container of the service can be made or started now for want of what it mounts; None: all there.

    A bind source that is not there is made as a folder, as Compose does, unless a file stood there when
    ``container`` was made: a folder in its place would start nothing. What can't be read by us is there.
    """
    made = scratch.ledger.made.get(container.id) if container is not None else None
    for mount in service.mounts:
        source = scratch.observed.sources.get(mount.source)
        if source is None:
            continue
        before = made.mounts.get(mount.key) if made else None
        was_file = before is not None and before.kind == "file"
        if source.kind == "missing" and (was_file or not mount.create):
            return Block("mount_missing", f"needs {mount.source} (mounted at {mount.target}), which is gone")
        if source.kind == "folder" and was_file:
            message = f"needs the file {mount.source} (mounted at {mount.target}), where a folder stands now"
            return Block("mount_missing", message)
    return None


def recreated_externally(scratch: PlanningContext, service: Service) -> Wait | None:
    """Why hands are off a service for a moment: a person's Compose seems to be remaking its container.

    Compose makes the successor under a prefixed name, stops and removes the old one, then renames. Meddling
    in between makes that command fail. One of ours that was cut short is nobody's business but ours.
    """
    now, failure = scratch.now, scratch.ledger.failures.get(service.name)
    making = scratch.ledger.making.get(service.name)
    for container in scratch.found.get(service.name, ()):
        name = service.name_of(container.number)
        if container.name == name:
            continue
        if not container.name.endswith(f"_{name}") or container.state is not State.CREATED:
            continue
        age, patience = now.wall - container.created_at, service.stop_grace + REMAKE_TAKES
        ours = making is not None and making.at <= container.created_at
        if failure is not None and failure.reason not in ENDED:
            ours = ours or failure.at >= container.created_at
        if 0 <= age < patience and not ours:
            message = f"{container.name} was just made: somebody seems to be remaking it"
            return Wait("being_remade", message, until=now.mono + patience - age)
    return None


def mount_unstable(scratch: PlanningContext, service: Service) -> Wait | None:
    """Why a container should not be made at this moment: a file that it is given is just being changed.

    One change of several files at once, as a checkout makes it, is to be one remake.
    """
    for mount in service.mounts:
        source = scratch.observed.sources.get(mount.source)
        if source is not None and source.moving:
            message = f"waits for {mount.source} to stand still"
            return Wait("mount_changing", message, until=scratch.observed.again)
    return None


def parent_restarted(scratch: PlanningContext, service: Service, container: Container) -> str | None:
    """The service to be followed that was started after this container; each start once.

    What was seen to run when decides. Only where that was not seen does the clock, which may have been set.
    """
    for name in scratch.stack.follows.get(service.name, ()):
        parent = scratch.kept.get(name)
        if parent is None or not parent.started_at or scratch.ledger.followed.get(service.name) == parent.run:
            continue
        tie = scratch.ledger.tied.get(service.name)
        known = tie.parents.get(name) if tie is not None and tie.run == container.run else None
        later = parent.started_at > container.started_at if known is None else known != parent.run
        if later:
            return name
    return None


def blocked_by_dependents(scratch: PlanningContext, service: Service) -> Wait | None:
    """Why the service can't be stopped yet: what depends on it has to go down first; None: nothing."""
    stack = scratch.stack
    names = [*stack.dependents[service.name]]
    for group in stack.ready_dependents[stack.group_of[service.name]]:
        names += stack.groups[group].services
    later = [n for n in dict.fromkeys(names) if n in scratch.going and not _gave_up(scratch, n)]
    if not later:
        return None
    return Wait("stops_after", f"stops after {join_names(later)}", tuple(later))


def _gave_up(scratch: PlanningContext, name: str) -> bool:
    # What can't be stopped, time and again, must not keep others up for ever.
    failure = scratch.ledger.failures.get(name)
    if failure is None or failure.attempts < TRIES:
        return False
    state = scratch.gates[scratch.stack.group_of[name]].state
    return failure.inputs == attempt_fingerprint(scratch.stack.services[name], state, scratch.observed)


def unmet_dependency(scratch: PlanningContext, service: Service) -> Wait | None:
    """What the service has to wait for before it may start; None: nothing."""
    for group in scratch.gates[scratch.stack.group_of[service.name]].ready_groups:
        missing = tuple(
            n
            for n in scratch.stack.groups[group].services
            if n not in scratch.ready and n not in scratch.done
        )
        if missing:
            return Wait("group_not_ready", f"waits for all of {group} to be ready", missing)
    for dependency in scratch.stack.needs[service.name]:
        message = _missing(scratch, dependency)
        if message and dependency.condition is Condition.HEALTHY and dependency.service in scratch.done:
            ended = f"needs {dependency.service} to be healthy, but it did its work and ended"
            return Wait("dependency_ended", ended, (dependency.service,))
        if message:
            return Wait("dependency_not_ready", message, (dependency.service,))
    return None


def _missing(scratch: PlanningContext, dependency: Dependency) -> str:
    name = dependency.service
    if not scratch.gates[scratch.stack.group_of[name]].state.on:
        # Compose's order holds among those that are on; one that is off is never waited for.
        return ""
    if not dependency.required and name in scratch.ledger.failures:
        return ""
    container = scratch.kept.get(name)
    if dependency.condition is Condition.COMPLETED:
        return "" if name in scratch.done else f"waits for {name} to complete"
    if container is not None and container.id in scratch.ledger.hooks and name not in scratch.done:
        # Compose starts what depends on it after its hooks, too.
        return f"waits for the post_start hooks of {name}"
    if dependency.condition is Condition.STARTED:
        runs = container is not None and container.state is State.RUNNING and name not in scratch.going
        return "" if runs or name in scratch.done else f"waits for {name} to start"
    if container is not None and is_ready(container) and name not in scratch.going:
        if crash_loops(scratch.ledger, container, scratch.now) is None:
            return ""
        return f"waits for {name}, which ends again and again"
    has_check = container is None or container.health is not Health.NONE
    return f"waits for {name} to be {'healthy' if has_check else 'running'}"
