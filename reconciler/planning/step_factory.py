"""Build one step, or the wait, block or image pull that comes instead. Pure.

Shared by ``service_rules``, ``health_policy`` and ``planner``; the callers decide why a step is due.
"""

from __future__ import annotations

from reconciler.model.observed import Action, Container, State
from reconciler.model.stack import Service
from reconciler.planning.ordering import PlanningContext, missing_mount, unmet_dependency
from reconciler.planning.plan_types import Block, ServicePlan, Step, Wait


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


def stop_for(context: PlanningContext, service: Service, container: Container, cause: str, why: str) -> Step:
    """Return the next step towards a stopped container."""
    # A frozen process handles no signal, and engines refuse to stop a paused container.
    action = Action.UNPAUSE if container.state is State.PAUSED else Action.STOP
    return step_for(context, service, action, cause, why, container)


def stop_for_recreate(
    context: PlanningContext,
    service: Service,
    verdict: ServicePlan,
    container: Container,
    cause: str,
    why: str,
) -> ServicePlan:
    """Stop a container that is recreated or restarted next; the service is no longer ready."""
    tried = step_or_backoff(context, verdict, stop_for(context, service, container, cause, why))
    return tried._replace(ready=False) if tried.step else tried


def state_unknown(container: Container) -> Block:
    """Return the block for a service with a container whose state can't be read."""
    return Block(
        "state_unknown", f"{container.name} is left alone: {container.error or 'its state is unknown'}"
    )


def held_back(verdict: ServicePlan, hold: Block | Wait) -> ServicePlan:
    """Return the service plan with what a gate returned instead of a step."""
    return verdict._replace(block=hold) if isinstance(hold, Block) else verdict._replace(wait=hold)


def step_or_backoff(context: PlanningContext, verdict: ServicePlan, step: Step) -> ServicePlan:
    """Return the service plan with the step, or with a wait during back-off."""
    failure = context.ledger.failures.get(verdict.service)
    if failure is not None and failure.inputs == verdict.inputs and context.now.mono < failure.due:
        message = f"tried {failure.attempts} time{'s' if failure.attempts > 1 else ''}: {failure.error}"
        return verdict._replace(wait=Wait("back_off", message, until=failure.due))
    return verdict.with_step(step)


def start_blocked_by(
    context: PlanningContext, service: Service, verdict: ServicePlan, container: Container
) -> ServicePlan | None:
    """Return the service plan with what prevents a start now; None if the container could start."""
    missing = missing_mount(context, service, container)
    if missing is not None:
        return verdict._replace(block=missing)
    waits = unmet_dependency(context, service)
    return verdict._replace(wait=waits) if waits else None


def pull_step(context: PlanningContext, service: Service, verdict: ServicePlan) -> ServicePlan | None:
    """Return the service plan that fetches the image first; None if the image is present."""
    image = service.image
    if not image or image in context.observed.images:
        return None
    if image in context.fetching:
        other = context.fetching[image]
        return verdict._replace(wait=Wait("image", f"waits for the image {image}", (other,)))
    if service.has_build:
        action, why = Action.BUILD, f"the image {image} is not there and has to be built"
    elif service.pull_policy == "never":
        message = f"the image {image} is not there and pull_policy forbids pulling it"
        return verdict._replace(block=Block("image_unavailable", message))
    else:
        action, why = Action.PULL, f"the image {image} is not there and has to be pulled"
    context.fetching[image] = service.name
    return step_or_backoff(context, verdict, step_for(context, service, action, "image", why, None))


def wait_for_removal() -> Wait:
    """Return the wait for a removal that the engine has begun."""
    return Wait("removing", "waits for the engine to finish removing it")


def wait_for_name(service: Service) -> Wait:
    """Return the wait for a container name that another project holds."""
    return Wait(
        "name_conflict",
        f"a container outside this project has the name {service.container_name}: rename or remove it",
    )
