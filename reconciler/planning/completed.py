"""Remember one-shots that have completed, so that none runs again when its container is removed. Pure."""

from __future__ import annotations

from dataclasses import replace

from reconciler.model.ledger import Ledger
from reconciler.model.ledger_updates import omit
from reconciler.model.observed import Container, ObservedState, State
from reconciler.model.stack import Service, Stack
from reconciler.planning.comparison import same_image
from reconciler.planning.container_state import has_completed, is_one_shot, stop_was_requested
from reconciler.planning.mounts import changed_mounts

_REMOVED = Container(id="", name="", service="", state=State.EXITED)


def record_stop(stack: Stack, ledger: Ledger, service: Service, container: Container) -> Ledger:
    """Record that another client stopped this run of a one-shot: the engine remembers it for minutes only."""
    if container.state is not State.EXITED or container.exit_code or not stop_was_requested(container):
        return ledger
    if ledger.halted.get(container.id) == container.started_at or not is_one_shot(stack, service):
        return ledger
    return replace(ledger, halted={**ledger.halted, container.id: container.started_at})


def record_completed(stack: Stack, ledger: Ledger, service: Service, container: Container) -> Ledger:
    """Record the inputs of a completed one-shot; forget them once its container has not completed."""
    name = service.name
    if not has_completed(stack, ledger, service, container):
        if name not in ledger.completed:
            return ledger
        return replace(ledger, completed=omit(ledger.completed, [name]))
    made = ledger.made.get(container.id)
    if made is None or ledger.completed.get(name) == made:
        return ledger
    return replace(ledger, completed={**ledger.completed, name: made})


def has_completed_before(stack: Stack, observed: ObservedState, ledger: Ledger, service: Service) -> bool:
    """Whether a one-shot without a container has completed with its current inputs.

    A missing image is no other image: ``docker system prune`` removes it with the container. A container
    that another service shares is created, and runs, again.
    """
    made = ledger.completed.get(service.name)
    return (
        made is not None
        and is_one_shot(stack, service)
        and service.name not in stack.shared
        and made.definition == service.definition
        and same_image(_REMOVED, observed.images.get(service.image), made)
        and not changed_mounts(service, _REMOVED, observed, made)
    )
