"""Order of steps: what a service waits for, and what stops before it.

Pure helpers of one decision. ``PlanningContext`` is the working state of one call of ``plan`` and does not
outlive it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from reconciler.model.backoff import TRIES
from reconciler.model.desired import Desired
from reconciler.model.ledger import Clock, Ledger
from reconciler.model.observed import ALIVE, Container, Health, ObservedState, State
from reconciler.model.stack import Condition, Dependency, Service, Stack, service_of
from reconciler.planning.drift import (
    attempt_fingerprint,
    change_fingerprint,
    crash_loops,
    is_ready,
    join_names,
    missing_networks,
    same_definition,
    same_image,
    stale_namespaces,
)
from reconciler.planning.gates import GroupGate
from reconciler.planning.mounts import changed_mounts
from reconciler.planning.plan_types import Block, Wait

RECREATE_SECONDS = 5.0
"""Seconds that Compose takes to recreate a container, besides stopping the old one."""

EXIT_REASONS = frozenset({"exited", "out_of_memory"})
"""Failure reasons that are not a failed step: recreating a container from outside also ends the old one."""

ACCEPT_TOLERANCE = 2.0
"""Seconds by which a change may be first observed after its acceptance: a file can be saved and accepted
before the next observation finds it."""

CLOCK_SKEW = 60.0
"""Seconds by which the clock of a remote engine may be ahead of the daemon's."""


@dataclass(slots=True)
class PlanningContext:
    """The inputs of one call, and the results of the services planned so far.

    ``selected`` is the container that counts for each service. ``stopping`` holds the services that go down,
    for good or for a restart. ``fetching`` maps an image to the service that fetches it for all users.
    """

    stack: Stack
    desired: Desired
    observed: ObservedState
    ledger: Ledger
    now: Clock
    gates: Mapping[str, GroupGate]
    containers: Mapping[str, Sequence[Container]]
    selected: dict[str, Container | None]
    stopping: set[str]
    ready: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)
    fetching: dict[str, str] = field(default_factory=dict)
    creating: set[str] = field(default_factory=set)


def stopping_services(context: PlanningContext) -> set[str]:
    """Return the running services that go down, for good or for a restart; they stop in reverse order."""
    stopping: set[str] = set()
    for gate in context.gates.values():
        if gate.hold is not None:
            continue
        names = context.stack.groups[gate.group].services
        if not gate.state.on:
            # A service without a selected container gets no step.
            up = (n for n in names if any(c.state in ALIVE for c in context.containers.get(n, ())))
            stopping.update(n for n in up if context.selected.get(n) is not None)
        elif gate.restart_at is not None:
            stopping.update(n for n in names if can_stop_for_restart(context, gate, n))
    return stopping


def is_restart_due(context: PlanningContext, gate: GroupGate, name: str) -> bool:
    """Whether the service has run since before the requested restart and was not restarted for it yet."""
    container = context.selected.get(name)
    if (
        gate.restart_at is None
        or container is None
        or container.state not in ALIVE
        or context.ledger.restarted.get(name) == gate.restart_at
    ):
        return False
    if container.started_at <= context.now.wall + CLOCK_SKEW:
        return container.started_at < gate.restart_at
    # The start time is in the future: the clock was set back, so times do not order start and request.
    # A request that was not part of the last settled state came after the start.
    settled = context.ledger.settled.get(service_of(name))
    return settled is not None and settled.restarted_at != gate.restart_at


def can_stop_for_restart(context: PlanningContext, gate: GroupGate, name: str) -> bool:
    """Whether the service can be stopped for the requested restart: mounts and image must be present."""
    container = context.selected.get(name)
    if container is None or not is_restart_due(context, gate, name):
        return False
    service = context.stack.services[name]
    if missing_mount(context, service, container):
        return False
    there = not service.image or service.image in context.observed.images
    return there or not must_recreate(context, service, container)


def must_recreate(context: PlanningContext, service: Service, container: Container) -> bool:
    """Whether the container must be recreated and may be."""
    made = context.ledger.made.get(container.id)
    differs = (
        not same_definition(service, container, made)
        or not same_image(container, context.observed.images.get(service.image), made)
        or bool(service.mounts and changed_mounts(service, container, context.observed, made))
    )
    if differs:
        return not awaits_acceptance(context, service, container)
    return bool(
        missing_networks(service, container, made) or stale_namespaces(service, container, context.selected)
    )


def awaits_acceptance(context: PlanningContext, service: Service, container: Container) -> bool:
    """Whether the change that would recreate the container waits for acceptance."""
    group = context.stack.group_of[service.name]
    if context.stack.groups[group].on_change != "report":
        return False
    made = context.ledger.made.get(container.id)
    mark = change_fingerprint(service, container, context.observed, made)
    known, accepted = context.ledger.changes.get(service.name), context.gates[group].accept_at
    if known is None or known.mark != mark or accepted is None:
        return bool(mark)
    return known.since > accepted + ACCEPT_TOLERANCE


def missing_mount(context: PlanningContext, service: Service, container: Container | None) -> Block | None:
    """Return the block for a missing mount source; None when all are present.

    A missing bind source is created as a folder, as Compose does, unless it was a file when ``container``
    was created: the container can't start with a folder in its place. An unreadable source counts as present.
    """
    made = context.ledger.made.get(container.id) if container is not None else None
    for mount in service.mounts:
        source = context.observed.sources.get(mount.source)
        if source is None:
            continue
        before = made.mounts.get(mount.key) if made else None
        was_file = before is not None and before.kind == "file"
        if source.kind == "missing" and (was_file or not mount.create):
            return Block("mount_missing", f"needs {mount.source} (mounted at {mount.target}), which is gone")
        if source.kind == "folder" and was_file:
            message = f"needs the file {mount.source} (mounted at {mount.target}), which is a folder now"
            return Block("mount_missing", message)
    return None


def recreated_externally(context: PlanningContext, service: Service) -> Wait | None:
    """Return a wait while another Compose process seems to be recreating the service's container.

    Compose creates the successor under a prefixed name, stops and removes the old one, then renames. A step
    in between makes that command fail. An interrupted recreation by the daemon itself is not waited for.
    """
    now, failure = context.now, context.ledger.failures.get(service.name)
    making = context.ledger.making.get(service.name)
    for container in context.containers.get(service.name, ()):
        name = service.name_of(container.number)
        if container.name == name:
            continue
        if not container.name.endswith(f"_{name}") or container.state is not State.CREATED:
            continue
        age, patience = now.wall - container.created_at, service.stop_grace + RECREATE_SECONDS
        ours = making is not None and making.at <= container.created_at
        if failure is not None and failure.reason not in EXIT_REASONS:
            ours = ours or failure.at >= container.created_at
        if 0 <= age < patience and not ours:
            message = (
                f"{container.name} was just created: another process seems to be recreating the container"
            )
            return Wait("being_remade", message, until=now.mono + patience - age)
    return None


def mount_unstable(context: PlanningContext, service: Service) -> Wait | None:
    """Return a wait while a mounted file is changing.

    One change of several files, such as a git checkout, causes one recreation.
    """
    for mount in service.mounts:
        source = context.observed.sources.get(mount.source)
        if source is not None and source.moving:
            message = f"waits until {mount.source} stops changing"
            return Wait("mount_changing", message, until=context.observed.again)
    return None


def parent_restarted(context: PlanningContext, service: Service, container: Container) -> str | None:
    """Return the parent service that was started after this container; each start counts once.

    The observed order of runs decides. The clock, which may have been set, decides only without one.
    """
    for name in context.stack.follows.get(service.name, ()):
        parent = context.selected.get(name)
        if parent is None or not parent.started_at or context.ledger.followed.get(service.name) == parent.run:
            continue
        tie = context.ledger.tied.get(service.name)
        known = tie.parents.get(name) if tie is not None and tie.run == container.run else None
        later = parent.started_at > container.started_at if known is None else known != parent.run
        if later:
            return name
    return None


def blocked_by_dependents(context: PlanningContext, service: Service) -> Wait | None:
    """Return the wait for dependents that stop first; None when nothing blocks the stop."""
    stack = context.stack
    names = [*stack.dependents[service.name]]
    for group in stack.ready_dependents[stack.group_of[service.name]]:
        names += stack.groups[group].services
    later = [n for n in dict.fromkeys(names) if n in context.stopping and not _stop_keeps_failing(context, n)]
    if not later:
        return None
    return Wait("stops_after", f"stops after {join_names(later)}", tuple(later))


def _stop_keeps_failing(context: PlanningContext, name: str) -> bool:
    # A dependent whose stop keeps failing must not block the others indefinitely.
    failure = context.ledger.failures.get(name)
    if failure is None or failure.attempts < TRIES:
        return False
    state = context.gates[context.stack.group_of[name]].state
    return failure.inputs == attempt_fingerprint(context.stack.services[name], state, context.observed)


def unmet_dependency(context: PlanningContext, service: Service) -> Wait | None:
    """Return the wait for dependencies before a start; None when all are met."""
    for group in context.gates[context.stack.group_of[service.name]].ready_groups:
        missing = tuple(
            n
            for n in context.stack.groups[group].services
            if n not in context.ready and n not in context.done
        )
        if missing:
            return Wait("group_not_ready", f"waits for all of {group} to be ready", missing)
    for dependency in context.stack.needs[service.name]:
        message = _unmet_reason(context, dependency)
        if message and dependency.condition is Condition.HEALTHY and dependency.service in context.done:
            ended = f"needs {dependency.service} to be healthy, but it has completed"
            return Wait("dependency_ended", ended, (dependency.service,))
        if message:
            return Wait("dependency_not_ready", message, (dependency.service,))
    return None


def _unmet_reason(context: PlanningContext, dependency: Dependency) -> str:
    name = dependency.service
    if not context.gates[context.stack.group_of[name]].state.on:
        # Compose's order applies among services that are on.
        return ""
    if not dependency.required and name in context.ledger.failures:
        return ""
    container = context.selected.get(name)
    if dependency.condition is Condition.COMPLETED:
        return "" if name in context.done else f"waits for {name} to complete"
    if container is not None and container.id in context.ledger.hooks and name not in context.done:
        # Compose also starts dependents after the hooks.
        return f"waits for the post_start hooks of {name}"
    if dependency.condition is Condition.STARTED:
        runs = container is not None and container.state is State.RUNNING and name not in context.stopping
        return "" if runs or name in context.done else f"waits for {name} to start"
    if container is not None and is_ready(container) and name not in context.stopping:
        if crash_loops(context.ledger, container, context.now) is None:
            return ""
        return f"waits for {name}, which ends again and again"
    has_check = container is None or container.health is not Health.NONE
    return f"waits for {name} to be {'healthy' if has_check else 'running'}"
