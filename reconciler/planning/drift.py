"""Compare the desired service with its containers. Pure.

``plan`` decides what follows. This module only selects, among several containers of one service, the one
that every difference is measured on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from reconciler.model.desired import GroupState
from reconciler.model.fingerprint import OFF, DesiredFingerprint
from reconciler.model.ledger import UNKNOWN, BuiltFrom, Clock, Ledger
from reconciler.model.observed import ALIVE, Container, Health, ObservedState, State
from reconciler.model.stack import Service, Stack
from reconciler.planning.mounts import changed_mounts

CRASH_LOOP_RESTARTS = 2
"""Restarts by the engine's policy that count as a crash loop."""

STABLE_SECONDS = 10.0
"""Seconds of running after which Docker considers a start successful."""

MAX_STABLE_SECONDS = 300.0


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


def desired_fingerprint(service: Service, state: GroupState) -> DesiredFingerprint:
    """Return the fingerprint of a service's desired state. While it is unchanged, a difference is drift."""
    if not state.on:
        return OFF
    definition = service.definition + service.contents
    return DesiredFingerprint(True, definition, service.replicas, state.restarted_at)


def attempt_fingerprint(
    service: Service, state: GroupState, observed: ObservedState, wants: DesiredFingerprint | None = None
) -> str:
    """Return the fingerprint of an attempt's inputs: a change ends the back-off (CONTRACT section 3).

    ``wants``: the ``desired_fingerprint``, if the caller has it.
    """
    if not state.on:
        return "off"
    inputs = f"{wants or desired_fingerprint(service, state)} {observed.images.get(service.image, '')}"
    if not service.mounts:
        return inputs
    # A file that the container may write itself does not express desired state.
    files = (observed.sources.get(mount.source) for mount in service.mounts if not mount.writable)
    return inputs + "".join(f" {file.kind} {file.digest}" for file in files if file is not None)


def is_ready(container: Container) -> bool:
    """Whether the container is ready: running, and healthy if it has a check.

    While the engine reports ``starting``, a successful early probe is enough; later the engine's health
    state decides (DESIGN, Readiness).
    """
    if container.state is not State.RUNNING:
        return False
    health = container.health
    return (
        health is Health.NONE or health is Health.HEALTHY or (health is Health.STARTING and container.probed)
    )


def crash_loops(ledger: Ledger, container: Container, now: Clock) -> float | None:
    """Return until when (monotonic) a container counts as crash looping without another exit; None if not.

    The engine restarts it by its policy, so it looks healthy between two exits. It counts as stable again
    once it has run twice as long as the last time, and at least as long as the engine requires for a
    successful start.
    """
    known = ledger.restarts.get(container.service)
    if known is None or known.container != container.id or len(known.times) < CRASH_LOOP_RESTARTS:
        return None
    before, last = known.times[-2:]
    if last - before > MAX_STABLE_SECONDS or container.state is not State.RUNNING:
        return None
    stable_at = last + min(MAX_STABLE_SECONDS, max(STABLE_SECONDS, 2 * (last - before)))
    return stable_at if now.mono < stable_at else None


def same_definition(service: Service, container: Container, made: BuiltFrom | None) -> bool:
    """Whether the container was created from this definition.

    An equal Compose label is enough. Otherwise the ledger's record of the inputs decides: a new Compose
    version that hashes the same inputs differently must recreate nothing (PITFALLS rows 1, 2 and 4).
    """
    return container.config_hash == service.config_hash or (
        made is not None and made.definition == service.definition
    )


def same_image(container: Container, wanted: str | None, made: BuiltFrom | None) -> bool:
    """Whether the container runs the image that its reference names now (None: no image).

    A container that the daemon created while the reference named this id is up to date, whatever id the
    engine reports: image stores disagree about which digest is *the* id (PITFALLS row 5).
    """
    return wanted is None or container.image == wanted or (made is not None and made.image == wanted)


def change_fingerprint(
    service: Service, container: Container, observed: ObservedState, made: BuiltFrom | None
) -> str:
    """Return the fingerprint of the change that would recreate the container; empty if none."""
    wanted = observed.images.get(service.image)
    changed = changed_mounts(service, container, observed, made)
    if same_definition(service, container, made) and same_image(container, wanted, made) and not changed:
        return ""
    files = [observed.sources[m.source] for m in service.mounts if m.target in changed and m.source]
    seen = "".join(f" {file.digest} {file.inode}" for file in files)
    return f"{service.definition}{service.contents} {wanted or ''}{seen}"


def select_container(
    service: Service, containers: Sequence[Container], observed: ObservedState, ledger: Ledger
) -> Container | None:
    """Return the container that counts for the service; None without containers.

    Selected by definition and state, never by name alone: an interrupted recreation leaves the successor
    under a prefixed name (PITFALLS row 6).
    """
    if len(containers) < 2:
        return containers[0] if containers else None

    def rank(container: Container) -> tuple[bool, bool, bool, bool, float, str]:
        return (
            container.state not in {State.DEAD, State.REMOVING},
            is_up_to_date(service, container, observed, ledger),
            container.state in ALIVE,
            container.name == service.name_of(container.number),
            container.created_at,
            container.id,
        )

    return max(containers, key=rank)


def is_up_to_date(service: Service, container: Container, observed: ObservedState, ledger: Ledger) -> bool:
    """Whether a container created now would have the same definition, image and mount contents."""
    made = ledger.made.get(container.id)
    return (
        same_definition(service, container, made)
        and same_image(container, observed.images.get(service.image), made)
        and not (service.mounts and changed_mounts(service, container, observed, made))
    )


def wanted_policy(stack: Stack, service: Service) -> str:
    """The restart policy that the container should have (CONTRACT section 2, ``restart``)."""
    return "no" if stack.restart == "managed" else service.restart


def altered_fields(
    stack: Stack, service: Service, container: Container, made: BuiltFrom | None
) -> tuple[str, ...]:
    """Return the fields changed by hand on the container: ``name``, ``restart``, ``networks.X``."""
    found = []
    if container.name != service.name_of(container.number):
        found.append("name")
    if container.restart != wanted_policy(stack, service):
        found.append("restart")
    if container.networks != service.networks:
        # Additional networks are allowed; missing ones cut the service off.
        found += [f"networks.{name}" for name in missing_networks(service, container, made)]
    return tuple(found)


def missing_networks(service: Service, container: Container, made: BuiltFrom | None) -> tuple[str, ...]:
    """Return networks that the container lacks, except those it lacked since its creation."""
    lacks = made.lacks if made else ()
    return tuple(n for n in service.networks if n not in container.networks and n not in lacks)


def stale_namespaces(
    service: Service, container: Container, selected: Mapping[str, Container | None]
) -> tuple[str, ...]:
    """Return parent services whose current network, processes, memory or volumes the container lacks.

    A container is tied to the parent container of its creation. After the parent is recreated, by the daemon
    or by other means, the container must be recreated too, as with Compose. Without a parent container the
    result is empty.
    """
    found: tuple[str, ...] = ()
    if container.joins and service.shares:
        parents = _present(service.shares, selected)
        if parents and not set(container.joins) <= {parent.id for parent in parents.values()}:
            found = tuple(sorted(parents))
    if not found and service.volumes_from:
        sources = {of for key, of in container.borrowed if key == "volumes_from"}
        parents = _present(service.volumes_from, selected)
        if sources and not {parent.id for parent in parents.values()} <= sources:
            found = tuple(sorted(parents))
    return found


def _present(names: Sequence[str], selected: Mapping[str, Container | None]) -> dict[str, Container]:
    """Return the containers of these services; empty if one of the services has none."""
    found = {name: parent for name in names if (parent := selected.get(name)) is not None}
    return found if len(found) == len(names) else {}


def changed_fields(service: Service, made: BuiltFrom | None) -> tuple[str, ...]:
    """Return the definition leaves that differ from the container's record; () if unknown."""
    if made is None or made == UNKNOWN:
        return ()
    names = sorted(made.fields.keys() | service.fields.keys())
    return tuple(name for name in names if made.fields.get(name) != service.fields.get(name))


def has_completed(stack: Stack, ledger: Ledger, service: Service, container: Container) -> bool:
    """Whether this is a one-shot that completed (CONTRACT section 2).

    A run that the daemon stopped, or that a shutdown of the machine ended, is not complete even with code 0.
    """
    return (
        is_one_shot(stack, service)
        and container.state is State.EXITED
        and container.exit_code == 0
        and container.started_at > 0
        and ledger.cut.get(container.id) != container.started_at
        and not stopped_by_us(ledger, container)
    )


def is_one_shot(stack: Stack, service: Service) -> bool:
    """Whether the service completes by exiting with code 0; never if dependents need it healthy."""
    return service.name in stack.one_shots or (service.restart == "no" and service.name not in stack.lasting)


def stopped_by_us(ledger: Ledger, container: Container) -> bool:
    """Whether the daemon sent this run of the container a stop."""
    return ledger.stopped.get(container.id) == container.started_at


def stop_reason(container: Container) -> str:
    """Return why the container does not run, as part of a sentence."""
    if container.state is State.CREATED:
        return "was created and never started"
    if container.state is not State.EXITED:
        return f"is {container.state}"
    return f"exited with code {container.exit_code}" + (", out of memory" if container.oom_killed else "")


def differences(
    stack: Stack,
    observed: ObservedState,
    ledger: Ledger,
    service: Service,
    containers: Sequence[Container],
    selected: Mapping[str, Container | None],
    *,
    done: bool,
    pending: bool,
) -> tuple[Drift, ...]:
    """Return every difference of a service that should be on; ``selected`` as by ``select_container``."""
    container = selected.get(service.name)
    if container is None:
        return (Drift(service.name, DriftKind.MISSING, pending, "has no container"),)

    def drift(kind: DriftKind, detail: str, fields: tuple[str, ...] = (), of: Container = container) -> Drift:
        return Drift(service.name, kind, pending, detail, of.id, fields)

    found = [
        drift(DriftKind.DUPLICATE, f"{c.name} is a second container", of=c)
        for c in containers
        if c.id != container.id
    ]
    made = ledger.made.get(container.id)
    if not same_definition(service, container, made):
        fields = changed_fields(service, made)
        detail = f"differs in {join_names(fields)}" if fields else "was created from another definition"
        found.append(drift(DriftKind.DEFINITION, detail, fields))
    if not same_image(container, observed.images.get(service.image), made):
        found.append(drift(DriftKind.IMAGE, f"{service.image} names another image now"))
    changed = changed_mounts(service, container, observed, made)
    if changed:
        detail = f"{join_names(changed)} changed since it was created"
        found.append(drift(DriftKind.MOUNTS, detail, tuple(f"mounts.{target}" for target in changed)))
    altered = altered_fields(stack, service, container, made)
    if altered == ("restart",) and stack.restart == "managed":
        detail = f"has the restart policy {container.restart}, but `restart: managed` wants no"
        found.append(drift(DriftKind.ALTERED, detail, altered))
    elif altered:
        found.append(drift(DriftKind.ALTERED, f"was changed by hand: {join_names(altered)}", altered))
    lost = stale_namespaces(service, container, selected)
    if lost:
        detail = f"was created for a container of {join_names(lost)} that is gone"
        found.append(drift(DriftKind.ALTERED, detail, ("shares",)))
    if container.state is State.PAUSED:
        found.append(drift(DriftKind.PAUSED, "is paused"))
    elif container.state not in ALIVE and not done:
        found.append(drift(DriftKind.STOPPED, stop_reason(container)))
    elif container.state is State.RUNNING and container.health is Health.UNHEALTHY:
        found.append(drift(DriftKind.UNHEALTHY, "its health check fails"))
    return tuple(found)


def join_names(names: Sequence[str], most: int = 4) -> str:
    """Join names for a sentence: "a, b and c", at most ``most``."""
    if len(names) < 2:
        return "".join(names)
    shown = list(names[:most]) + ([f"{len(names) - most} more"] if len(names) > most else [])
    return f"{', '.join(shown[:-1])} and {shown[-1]}"
