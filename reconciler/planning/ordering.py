"""Order of steps: what a service waits for, and what stops before it. Pure."""

from __future__ import annotations

from reconciler.model.backoff import TRIES
from reconciler.model.observed import Container, Health, State
from reconciler.model.stack import Condition, Dependency, Service
from reconciler.planning.container_state import crash_loop_end, is_ready
from reconciler.planning.context import Earlier, PlanningContext
from reconciler.planning.drift import join_names
from reconciler.planning.fingerprints import attempt_fingerprint
from reconciler.planning.plan_types import Wait

RECREATE_SECONDS = 5.0
"""Seconds that Compose takes to recreate a container, besides stopping the old one."""

EXIT_REASONS = frozenset({"exited", "out_of_memory"})
"""Failure reasons that report the exit of a container, not a failed step.

A recreation by another process also ends the old container.
"""


def recreated_externally(context: PlanningContext, service: Service) -> Wait | None:
    """Return a wait while another Compose process seems to be recreating the service's container.

    Compose creates the successor under a prefixed name, stops and removes the old container, then renames the
    successor. A step of the daemon in between makes Compose fail. Returns no wait after an interrupted
    recreation by the daemon itself.
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
        by_daemon = making is not None and making.at <= container.created_at
        if failure is not None and failure.reason not in EXIT_REASONS:
            by_daemon = by_daemon or failure.at >= container.created_at
        if 0 <= age < patience and not by_daemon:
            message = (
                f"{container.name} was just created: another process seems to be recreating the container"
            )
            return Wait("being_remade", message, until=now.mono + patience - age)
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


def unmet_dependency(context: PlanningContext, earlier: Earlier, service: Service) -> Wait | None:
    """Return the wait for dependencies before a start; None when all are met."""
    plans = earlier.plans
    for group in context.gates[context.stack.group_of[service.name]].ready_groups:
        services = context.stack.groups[group].services
        missing = tuple(n for n in services if not (plans[n].ready or plans[n].done))
        if missing:
            return Wait("group_not_ready", f"waits for all of {group} to be ready", missing)
    for dependency in context.stack.needs[service.name]:
        message = _unmet_reason(context, earlier, dependency)
        if not message:
            continue
        name = dependency.service
        if dependency.condition is Condition.HEALTHY and plans[name].done:
            return Wait("dependency_ended", f"needs {name} to be healthy, but it has completed", (name,))
        return Wait("dependency_not_ready", message, (name,))
    return None


def given_by(service: Service) -> str:
    """Return the sentence about a service that a provider gives, without a container."""
    return f"given by the provider {service.provider}, which only Docker Compose runs"


def _unmet_reason(context: PlanningContext, earlier: Earlier, dependency: Dependency) -> str:
    name = dependency.service
    if not context.gates[context.stack.group_of[name]].state.on:
        # Compose's order applies among services that are on.
        return ""
    if not dependency.required and name in context.ledger.failures:
        return ""
    if context.stack.services[name].provider:
        return f"waits for {name}, {given_by(context.stack.services[name])}"
    container, done = context.selected.get(name), earlier.plans[name].done
    if dependency.condition is Condition.COMPLETED:
        return "" if done else f"waits for {name} to complete"
    if container is not None and container.id in context.ledger.hooks and not done:
        # Compose also starts dependents after the hooks.
        return f"waits for the post_start hooks of {name}"
    goes_down = name in context.stopping or earlier.stops(name)
    if dependency.condition is Condition.STARTED:
        runs = container is not None and container.state is State.RUNNING and not goes_down
        return "" if runs or done else f"waits for {name} to start"
    return _unready_reason(context, name, container, goes_down=goes_down)


def _unready_reason(
    context: PlanningContext, name: str, container: Container | None, *, goes_down: bool
) -> str:
    if container is not None and is_ready(container) and not goes_down:
        if crash_loop_end(context.ledger, container, context.now) is None:
            return ""
        return f"waits for {name}, which ends again and again"
    has_check = container is None or container.health is not Health.NONE
    return f"waits for {name} to be {'healthy' if has_check else 'running'}"
