"""Record what containers were created from, and changes that wait to be accepted. Pure."""

from __future__ import annotations

from dataclasses import replace

from reconciler.model.ledger import BuiltFrom, Clock, HeldChange, Ledger
from reconciler.model.ledger_updates import omit
from reconciler.model.observed import LABEL_UNKNOWN, Container, ObservedState
from reconciler.model.stack import Service, Stack, service_of
from reconciler.planning.comparison import change_fingerprint, compare
from reconciler.planning.mounts import current_mounts, mounts_to_learn

CREATE_CLOCK_SKEW = 2.0
"""Seconds by which a container may seem older than the command to create it. An older one existed before, and
the engine kept it."""


def adopt_new_compose(stack: Stack, observed: ObservedState, ledger: Ledger) -> Ledger:
    """Adopt the definitions of another Compose version if the input files are the same.

    A new version writes other hashes, and even other fields, for the same bytes. No file changed, so nothing
    must be recreated (PITFALLS row 4).
    """
    if not stack.inputs:
        return ledger
    new = {}
    for container in observed.containers:
        made, service = ledger.made.get(container.id), stack.services.get(container.service)
        adopted = _adopted(stack, service, made)
        if adopted is not None:
            new[container.id] = adopted
    if new:
        ledger = replace(ledger, made={**ledger.made, **new})
    completed = {
        name: adopted
        for name, made in ledger.completed.items()
        if (adopted := _adopted(stack, stack.services.get(service_of(name)), made)) is not None
    }
    return replace(ledger, completed={**ledger.completed, **completed}) if completed else ledger


def _adopted(stack: Stack, service: Service | None, made: BuiltFrom | None) -> BuiltFrom | None:
    """Return the record in the terms of the stack's Compose version; None if it stays as it is."""
    if made is None or service is None or (made.inputs, made.compose) == (stack.inputs, stack.compose):
        return None
    same_files = made.inputs == stack.inputs and made.compose != stack.compose
    if made.definition != service.definition and not same_files:
        return None
    return made._replace(
        definition=service.definition, fields=service.fields, inputs=stack.inputs, compose=stack.compose
    )


def _made_by_other_compose(stack: Stack, container: Container) -> bool:
    """Whether the container's label is of another Compose version: then it is adopted, not recreated."""
    return bool(container.compose and stack.compose) and container.compose != stack.compose


def record_build(
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


def record_held_change(
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
