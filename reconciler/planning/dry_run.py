"""Forecast every step until nothing more happens, if every step succeeds. Pure.

``plan`` returns only the next step of each service, because the loop observes again after each. A dry run
applies the steps to the observed state instead of an engine and plans again, until no step is left. Used by
the command ``plan`` and by previews.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from reconciler.model.desired import Desired
from reconciler.model.ledger import Clock, Ledger
from reconciler.model.observed import Action, Container, Health, ObservedState, State
from reconciler.model.stack import UNIT, Service, Stack
from reconciler.planning.planner import Plan, Step, plan

_SIMULATED = "forecast:"
"""Prefix of the ids of simulated containers and images."""

_ROUNDS_PER_LINK = 6
_ROUNDS = 20
_SAME_STEP = 2
"""How often one step of one service may be due before it counts as a cycle."""

_ENDED_BY_SIGNAL = 143


class DryRun(NamedTuple):
    """The steps in order, and the plan after them: what still waits, is blocked or suspended."""

    steps: tuple[Step, ...]
    rest: Plan


def expected_steps(
    stack: Stack, desired: Desired, observed: ObservedState, ledger: Ledger, now: Clock
) -> tuple[Step, ...]:
    """Return every step in order until the stack matches desired state or nothing more happens.

    Steps due together are adjacent, highest weight first. An incomplete observation gives no steps.
    """
    return dry_run(stack, desired, observed, ledger, now).steps


def dry_run(stack: Stack, desired: Desired, observed: ObservedState, ledger: Ledger, now: Clock) -> DryRun:
    """Return all steps and the plan after them. Time advances only to the end of a back-off.

    Health checks succeed and one-shots complete; what needs a person stays. Linear in services for each link
    of the longest chain, with a bounded number of rounds.
    """
    steps: list[Step] = []
    taken: dict[tuple[str, Action, str, str], int] = {}
    depth = max(stack.chain.values(), default=0) + len(stack.groups)
    current = plan(stack, desired, observed, ledger, now)
    for _ in range(_ROUNDS + _ROUNDS_PER_LINK * depth):
        due = [step for step in current.steps if taken.get(_key(step), 0) < _SAME_STEP]
        for step in due:
            taken[_key(step)] = taken.get(_key(step), 0) + 1
        steps += due
        moved = simulate_settling(simulate_steps(due, stack, observed, now), stack)
        later = now if due else _after_back_off(current, now)
        if moved == observed and later == now:
            break
        observed, now = moved, later
        current = plan(stack, desired, observed, ledger, now)
    return DryRun(tuple(map(_without_simulated_id, steps)), current)


def simulate_steps(steps: Iterable[Step], stack: Stack, observed: ObservedState, now: Clock) -> ObservedState:
    """Return the observed state as if these steps had just succeeded."""
    containers = {container.id: container for container in observed.containers}
    images = dict(observed.images)
    # No start precedes one that was observed, even if clocks disagree.
    wall = max([now.wall, *(container.started_at for container in observed.containers)])
    for step in steps:
        service = stack.services.get(step.service)
        if step.action in {Action.PULL, Action.BUILD}:
            if service is not None:
                images[service.image] = images.get(service.image, _SIMULATED + service.image)
        elif step.action in {Action.CREATE, Action.RECREATE}:
            if service is not None:
                number = _number(step, containers.get(step.container))
                mine = [c.id for c in containers.values() if (c.service, c.number) == (service.name, number)]
                for gone in mine if step.action is Action.RECREATE else ():
                    del containers[gone]
                made = _created(service, number, images, wall)
                containers[made.id] = made
        elif step.action is Action.REMOVE:
            containers.pop(step.container, None)
        elif step.container in containers:
            container = containers[step.container]
            containers[container.id] = _acted_on(container, step, service, stack, wall)
    ordered = tuple(sorted(containers.values(), key=lambda container: container.id))
    return replace(observed, containers=ordered, images=images)


def simulate_settling(observed: ObservedState, stack: Stack) -> ObservedState:
    """Return the observed state after checks succeed, one-shots complete and removals finish."""
    containers = tuple(
        _settled(container, stack)
        for container in observed.containers
        if container.state is not State.REMOVING
    )
    return replace(observed, containers=containers)


def _key(step: Step) -> tuple[str, Action, str, str]:
    return (step.key, step.action, step.container, step.value)


def _number(step: Step, replaced: Container | None) -> int:
    """Return the replica number of the container that a step creates."""
    if replaced is not None:
        return replaced.number
    digits = step.unit.partition(UNIT)[2]
    return int(digits) if digits.isdigit() else 1


def _created(service: Service, number: int, images: Mapping[str, str], wall: float) -> Container:
    return Container(
        id=f"{_SIMULATED}{service.name}{UNIT}{number}" if number > 1 else _SIMULATED + service.name,
        name=service.name_of(number),
        number=number,
        service=service.name,
        state=State.CREATED,
        image=images.get(service.image, ""),
        config_hash=service.config_hash,
        created_at=wall,
        restart=service.restart,
        networks=service.networks,
        ports=service.ports,
        check=service.check.test if service.check else (),
    )


def _acted_on(
    container: Container, step: Step, service: Service | None, stack: Stack, wall: float
) -> Container:
    match step.action:
        case Action.START:
            checked = service is not None and service.check is not None
            health = Health.STARTING if checked else Health.NONE
            return replace(container, state=State.RUNNING, health=health, started_at=wall, finished_at=0.0)
        case Action.STOP | Action.KILL:
            # Ended by a signal, so it does not count as a completed one-shot.
            return replace(
                container, state=State.EXITED, exit_code=_ENDED_BY_SIGNAL, finished_at=wall, probed=False
            )
        case Action.UNPAUSE:
            return replace(container, state=State.RUNNING)
        case Action.RENAME:
            return replace(container, name=step.value)
        case Action.UPDATE:
            return replace(container, restart=step.value)
    return container


def _settled(container: Container, stack: Stack) -> Container:
    if container.state is not State.RUNNING:
        return container
    if container.service in stack.one_shots:
        return replace(container, state=State.EXITED, exit_code=0, finished_at=container.started_at)
    if container.health is Health.STARTING:
        return replace(container, health=Health.HEALTHY)
    return container


def _after_back_off(current: Plan, now: Clock) -> Clock:
    """Return the clock at the end of the next back-off; ``now`` without a back-off."""
    waits = (one.wait for one in current.leaves)
    moments = [
        w.until for w in waits if w is not None and w.reason in {"back_off", "paused"} and w.until is not None
    ]
    later = min((moment for moment in moments if moment > now.mono), default=now.mono)
    return Clock(now.wall + later - now.mono, later)


def _without_simulated_id(step: Step) -> Step:
    return step._replace(container="") if step.container.startswith(_SIMULATED) else step
