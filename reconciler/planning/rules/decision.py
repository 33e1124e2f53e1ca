"""What a rule reads (``Unit``) and what it returns (``Decision``), and how steps are built. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from reconciler.model.capabilities import Capability
from reconciler.model.observed import Action, Container, State
from reconciler.model.stack import Service, service_of
from reconciler.planning.comparison import Comparison
from reconciler.planning.context import Earlier, PlanningContext
from reconciler.planning.drift import Drift
from reconciler.planning.gates import GroupGate
from reconciler.planning.mounts import changing_source, missing_source
from reconciler.planning.ordering import unmet_dependency
from reconciler.planning.plan_types import Block, Step, Wait, orphan_remedy


class Unit(NamedTuple):
    """One unit (a service or a replica) whose group is on, as rules read it.

    ``comparison`` is that of the selected container, None without one. ``inputs`` is the fingerprint of an
    attempt. ``ready`` and ``done`` describe the container before the decision.
    """

    service: Service
    gate: GroupGate
    containers: Sequence[Container]
    comparison: Comparison | None
    inputs: str
    drifts: tuple[Drift, ...]
    ready: bool
    done: bool


class Decision(NamedTuple):
    """The result of a rule: a step, a wait, a block, or none of them without a difference.

    ``settled``: the unit matches desired state. ``ready`` is False if the step stops its container, ``done``
    is False if its completed run no longer counts. ``fetches``: the step pulls or builds the unit's image.
    """

    step: Step | None = None
    wait: Wait | None = None
    block: Block | None = None
    settled: bool = False
    ready: bool = True
    done: bool = True
    fetches: bool = False


def hold(result: Block | Wait, *, settled: bool = False) -> Decision:
    """Return the decision to take no step, for this reason; ``settled``: nothing differs."""
    if isinstance(result, Block):
        return Decision(None, None, result, settled)
    return Decision(None, result, None, settled)


def step_or_backoff(context: PlanningContext, name: str, inputs: str, step: Step) -> Decision:
    """Return the step, or a wait during the back-off of ``inputs`` (the fingerprint of the attempt).

    A step that the engine can't carry out is a block.
    """
    if step.action is Action.UNPAUSE and Capability.UNPAUSE not in context.observed.capabilities:
        message = "a container is paused, and this engine can't unpause it: resume or remove it by hand"
        return Decision(block=Block("unpause_unsupported", message))
    failure = context.ledger.failures.get(name)
    if failure is not None and failure.inputs == inputs and context.now.mono < failure.due:
        message = f"tried {failure.attempts} time{'s' if failure.attempts > 1 else ''}: {failure.error}"
        return Decision(wait=Wait("back_off", message, until=failure.due))
    return Decision(step)


def step_for(
    context: PlanningContext,
    service: Service,
    action: Action,
    cause: str,
    why: str,
    container: Container | None,
    value: str = "",
) -> Step:
    """Return a step with the grace period, weight and duration class of its service."""
    weights = context.stack.depth if action is Action.STOP else context.stack.chain
    return Step(
        service.name,
        action,
        str(cause),
        why,
        container.id if container else "",
        value,
        service.stop_grace,
        weights[service.name],
        action is Action.POST_START or (action is Action.START and bool(service.start.pre_start)),
    )


def attempt(
    context: PlanningContext,
    unit: Unit,
    action: Action,
    cause: str,
    why: str,
    container: Container | None,
    value: str = "",
) -> Decision:
    """Return a step of the unit, or a wait during its back-off."""
    service = unit.service
    step = step_for(context, service, action, cause, why, container, value)
    return step_or_backoff(context, service.name, unit.inputs, step)


def stop_action(container: Container) -> Action:
    """Return the action that stops a container: UNPAUSE first if it is paused."""
    # A frozen process handles no signal, and engines refuse to stop a paused container.
    return Action.UNPAUSE if container.state is State.PAUSED else Action.STOP


def stop_for_recreate(
    context: PlanningContext, unit: Unit, container: Container, cause: str, why: str
) -> Decision:
    """Return the step that stops a container before its recreation or restart.

    With the step the service is no longer ready, so that its dependents wait.
    """
    decision = attempt(context, unit, stop_action(container), cause, why, container)
    return decision._replace(ready=decision.step is None)


def start_blocked_by(context: PlanningContext, earlier: Earlier, unit: Unit) -> Decision | None:
    """Return what prevents a start now; None if the container could start."""
    missing = missing_mount(context, unit) if unit.service.mounts else None
    if missing is not None:
        return missing
    unmet = unmet_dependency(context, earlier, unit.service)
    return None if unmet is None else hold(unmet)


def missing_mount(context: PlanningContext, unit: Unit) -> Decision | None:
    """Return the block for a missing mount source; None when all are present."""
    made = unit.comparison.made if unit.comparison is not None else None
    message = missing_source(unit.service, context.observed, made)
    return hold(Block("mount_missing", message)) if message else None


def mount_unstable(context: PlanningContext, unit: Unit) -> Decision | None:
    """Return a wait while a mounted file is changing.

    One change of several files, such as a git checkout, causes one recreation.
    """
    source = changing_source(unit.service, context.observed)
    if not source:
        return None
    return hold(Wait("mount_changing", f"waits until {source} stops changing", until=context.observed.again))


def pull_step(context: PlanningContext, earlier: Earlier, unit: Unit) -> Decision | None:
    """Return the step that pulls or builds a missing image, or why there is none; None: the image exists."""
    service, image = unit.service, unit.service.image
    if not image or image in context.observed.images:
        return None
    if image in earlier.fetching:
        return hold(Wait("image", f"waits for the image {image}", (earlier.fetching[image],)))
    if service.has_build:
        action, why = Action.BUILD, f"the image {image} is not there and has to be built"
    elif service.pull_policy == "never":
        message = f"the image {image} is not there and pull_policy forbids pulling it"
        return hold(Block("image_unavailable", message))
    else:
        action, why = Action.PULL, f"the image {image} is not there and has to be pulled"
    return attempt(context, unit, action, "image", why, None)._replace(fetches=True)


def state_unknown(container: Container) -> Block:
    """Return the block for a service with a container whose state can't be read."""
    return Block(
        "state_unknown", f"{container.name} is left alone: {container.error or 'its state is unknown'}"
    )


def wait_for_removal() -> Wait:
    """Return the wait for a removal that the engine has begun."""
    return Wait("removing", "waits for the engine to finish removing it")


def _orphan_with_name(context: PlanningContext, name: str) -> Wait | None:
    """Return the wait for a name that a container of a renamed or removed service still has."""
    stack = context.stack
    for former, containers in context.containers.items():
        if former in stack.services or service_of(former) in stack.services:
            continue
        if any(container.name == name for container in containers):
            if stack.prune:
                return Wait("removing", f"waits until {name} of the former service {former} is removed")
            return Wait("name_conflict", f"the name {name} is taken: {orphan_remedy(name, former)}")
    return None


def name_conflict(context: PlanningContext, service: Service, name: str) -> Wait | None:
    """Return the wait for a container name that another container holds; None: it is free."""
    for other in context.stack.alternatives.get(service.name, ()):
        for container in context.containers.get(other, ()):
            if container.name == name:
                message = f"waits for the name {name}, which the container of {other} still has"
                return Wait("name_conflict", message)
    if name not in context.observed.foreign:
        return _orphan_with_name(context, name)
    return Wait(
        "name_conflict",
        f"a container outside this project has the name {name}: rename or remove it",
    )
