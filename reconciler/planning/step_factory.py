"""The single step, and what has to be said instead of one: a wait, a block, an image to be had first. Pure.

What ``service_rules``, ``health_policy`` and ``plan`` have in common; nothing here knows why a step is due.
"""

from __future__ import annotations

from reconciler.model.observed import Action, Container, State
from reconciler.model.stack import Service
from reconciler.planning.ordering import GroupGate, PlanningContext, missing_mount, unmet_dependency
from reconciler.planning.plan_types import Block, ServicePlan, Step, Wait
from reconciler.planning.project_rename import REASON, holds, told


def step_for(
    scratch: PlanningContext,
    service: Service,
    action: Action,
    cause: str,
    why: str,
    container: Container | None,
    value: str = "",
) -> Step:
    """The step, with what every step of this service carries."""
    weights = scratch.stack.depth if action is Action.STOP else scratch.stack.chain
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


def stop_for(scratch: PlanningContext, service: Service, container: Container, cause: str, why: str) -> Step:
    """A step towards the container being stopped."""
    # A frozen process can't obey a signal, and engines refuse to stop a paused container.
    action = Action.UNPAUSE if container.state is State.PAUSED else Action.STOP
    return step_for(scratch, service, action, cause, why, container)


def stop_for_recreate(
    scratch: PlanningContext,
    service: Service,
    verdict: ServicePlan,
    container: Container,
    cause: str,
    why: str,
) -> ServicePlan:
    """Stop the service's own container, for it to come back; nobody may count on it from now on."""
    tried = step_or_backoff(scratch, verdict, stop_for(scratch, service, container, cause, why))
    return tried._replace(ready=False) if tried.step else tried


def state_unknown(container: Container) -> Block:
    """Why nothing is done about a service while the state of one of its containers can't be read."""
    return Block(
        "state_unknown", f"{container.name} is left alone: {container.error or 'its state is unknown'}"
    )


def project_renamed(scratch: PlanningContext, gate: GroupGate) -> Block | None:
    """Why nothing is made or started under a new project name; None: nothing speaks against it."""
    if not holds(scratch.stack, scratch.observed, scratch.ledger, gate.accept_at, scratch.now):
        return None
    on = [name for name, state in scratch.desired.groups.items() if state.on]
    return Block(REASON, told(scratch.stack, scratch.observed.left, on))


def step_or_backoff(scratch: PlanningContext, verdict: ServicePlan, step: Step) -> ServicePlan:
    """The verdict with the step, or with a wait where the last attempts failed too recently."""
    failure = scratch.ledger.failures.get(verdict.service)
    if failure is not None and failure.inputs == verdict.inputs and scratch.now.mono < failure.due:
        message = f"tried {failure.attempts} time{'s' if failure.attempts > 1 else ''}: {failure.error}"
        return verdict._replace(wait=Wait("back_off", message, until=failure.due))
    return verdict.with_step(step)


def start_blocked_by(
    scratch: PlanningContext, service: Service, verdict: ServicePlan, container: Container
) -> ServicePlan | None:
    """A verdict that says why a stopped container could not be started at once; None where it could."""
    missing = missing_mount(scratch, service, container)
    if missing is not None:
        return verdict._replace(block=missing)
    waits = unmet_dependency(scratch, service)
    return verdict._replace(wait=waits) if waits else None


def pull_step(scratch: PlanningContext, service: Service, verdict: ServicePlan) -> ServicePlan | None:
    """A verdict that gets the image first; None where it is there already."""
    image = service.image
    if not image or image in scratch.observed.images:
        return None
    if image in scratch.claimed:
        other = scratch.claimed[image]
        return verdict._replace(wait=Wait("image", f"waits for the image {image}", (other,)))
    if service.has_build:
        action, why = Action.BUILD, f"the image {image} is not there and has to be built"
    elif service.pull_policy == "never":
        message = f"the image {image} is not there and pull_policy forbids pulling it"
        return verdict._replace(block=Block("image_unavailable", message))
    else:
        action, why = Action.PULL, f"the image {image} is not there and has to be pulled"
    scratch.claimed[image] = service.name
    return step_or_backoff(scratch, verdict, step_for(scratch, service, action, "image", why, None))


def wait_for_removal() -> Wait:
    """The engine is at it."""
    return Wait("removing", "waits for the engine to finish removing it")


def wait_for_name(service: Service) -> Wait:
    """Somebody else has the name."""
    return Wait(
        "name_conflict",
        f"a container that is not ours holds the name {service.container_name}: rename or remove it",
    )


def suspended_wait(gate: GroupGate) -> Wait:
    """Why nothing is done about a service of a suspended group."""
    suspend = gate.state.suspend
    reason = f": {suspend.reason}" if suspend and suspend.reason else ""
    return Wait("suspended", f"{gate.group} is suspended{reason}")
