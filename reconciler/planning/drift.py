"""Describe the differences between desired and observed state, one ``Drift`` each. Pure.

``comparison`` finds the differences; ``plan`` decides what follows from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from reconciler.model.ledger import UNKNOWN, BuiltFrom
from reconciler.model.observed import ALIVE, Container, Health, State
from reconciler.model.stack import Service, Stack
from reconciler.planning.comparison import Comparison
from reconciler.planning.container_state import stop_reason


class DriftKind(StrEnum):
    """The kinds of drift of CONTRACT section 3."""

    MISSING = "missing"
    STOPPED = "stopped"
    PAUSED = "paused"
    UNWANTED = "unwanted"
    DUPLICATE = "duplicate"
    ALTERED = "altered"
    DEFINITION = "definition"
    IMAGE = "image"
    MOUNTS = "mounts"
    UNHEALTHY = "unhealthy"
    ORPHAN = "orphan"


class Drift(NamedTuple):
    """One difference. ``pending``: it comes from a change of desired state that is not carried out yet.

    ``fields`` names the leaves that differ, never values: they may be secrets.
    """

    service: str
    kind: DriftKind
    pending: bool
    detail: str
    container: str = ""
    fields: tuple[str, ...] = ()


def changed_fields(service: Service, made: BuiltFrom | None) -> tuple[str, ...]:
    """Return the definition leaves that differ from the container's record; () if unknown."""
    if made is None or made == UNKNOWN:
        return ()
    names = sorted(made.fields.keys() | service.fields.keys())
    return tuple(name for name in names if made.fields.get(name) != service.fields.get(name))


def differences(
    stack: Stack,
    service: Service,
    comparison: Comparison | None,
    containers: Sequence[Container],
    *,
    done: bool,
    pending: bool,
) -> tuple[Drift, ...]:
    """Return every difference of a service that should be on; ``comparison`` is that of its container."""
    if comparison is None and done:
        return ()
    if comparison is None:
        return (Drift(service.name, DriftKind.MISSING, pending, "has no container"),)
    container = comparison.container

    def drift(kind: DriftKind, detail: str, fields: tuple[str, ...] = (), of: Container = container) -> Drift:
        return Drift(service.name, kind, pending, detail, of.id, fields)

    drifts = [
        drift(DriftKind.DUPLICATE, f"{c.name} is a second container", of=c)
        for c in containers
        if c.id != container.id
    ]
    if comparison.definition:
        fields = changed_fields(service, comparison.made)
        detail = f"differs in {join_names(fields)}" if fields else "was created from another definition"
        drifts.append(drift(DriftKind.DEFINITION, detail, fields))
    if comparison.image:
        drifts.append(drift(DriftKind.IMAGE, f"{service.image} names another image now"))
    if comparison.mounts:
        detail = f"{join_names(comparison.mounts)} changed since it was created"
        drifts.append(
            drift(DriftKind.MOUNTS, detail, tuple(f"mounts.{target}" for target in comparison.mounts))
        )
    altered = comparison.altered
    if altered == ("restart",) and stack.restart == "managed":
        detail = f"has the restart policy {container.restart}, but `restart: managed` wants no"
        drifts.append(drift(DriftKind.ALTERED, detail, altered))
    elif altered:
        drifts.append(drift(DriftKind.ALTERED, f"was changed by hand: {join_names(altered)}", altered))
    if comparison.parents:
        detail = f"was created for a container of {join_names(comparison.parents)} that is gone"
        drifts.append(drift(DriftKind.ALTERED, detail, ("shares",)))
    if container.state is State.PAUSED:
        drifts.append(drift(DriftKind.PAUSED, "is paused"))
    elif container.state not in ALIVE and not done:
        drifts.append(drift(DriftKind.STOPPED, stop_reason(container)))
    elif container.state is State.RUNNING and container.health is Health.UNHEALTHY:
        drifts.append(drift(DriftKind.UNHEALTHY, "its health check fails"))
    return tuple(drifts)


def join_names(names: Sequence[str], most: int = 4) -> str:
    """Join names for a sentence: "a, b and c", at most ``most``."""
    if len(names) < 2:
        return "".join(names)
    shown = list(names[:most]) + ([f"{len(names) - most} more"] if len(names) > most else [])
    return f"{', '.join(shown[:-1])} and {shown[-1]}"
