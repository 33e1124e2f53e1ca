"""What differs between one service as it should be and its containers as they are. Pure.

``plan`` decides what to do about it; here nothing is decided but which of several containers of one
service is *the* container, because every difference is measured on that one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from reconciler.model.desired import GroupState
from reconciler.model.ledger import UNKNOWN, BuiltFrom, Clock, Ledger
from reconciler.model.observed import ALIVE, Container, Health, ObservedState, State
from reconciler.model.stack import Service, Stack
from reconciler.planning.mounts import changed_mounts

LOOP = 2
"""Restarts by the engine's policy that make a loop."""

CALM = 10.0
"""Seconds of running that Docker takes for a success."""

LONGEST_CALM = 300.0


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
    """One difference. ``pending``: desired state changed and this is still to be carried out.

    ``fields`` names what differs, leaf by leaf, never with values: they may be secrets.
    """

    service: str
    kind: DriftKind
    pending: bool
    detail: str
    container: str = ""
    fields: tuple[str, ...] = ()


def desired_fingerprint(service: Service, state: GroupState) -> str:
    """The fingerprint of what is wanted of a service. While it stays, a difference is drift."""
    if not state.on:
        return "off"
    if service.replicas == 1:
        return f"on {service.definition}{service.contents} {state.restarted_at or ''}"
    return f"on {service.definition}{service.contents} x{service.replicas} {state.restarted_at or ''}"


def includes_restart(wants: str, at: float) -> bool:
    """Whether what was wanted once (``desired_fingerprint``) held this request to restart already."""
    return wants.rpartition(" ")[2] == str(at)


def attempt_fingerprint(service: Service, state: GroupState, observed: ObservedState, wants: str = "") -> str:
    """What an attempt is made with: a change of it ends the back-off (CONTRACT section 3).

    ``wants``: as ``desired_fingerprint`` says it, where that is at hand.
    """
    if not state.on:
        return "off"
    inputs = f"{wants or desired_fingerprint(service, state)} {observed.images.get(service.image, '')}"
    if not service.mounts:
        return inputs
    # A file that the container may write itself says nothing of what people want.
    files = (observed.sources.get(mount.source) for mount in service.mounts if not mount.writable)
    return inputs + "".join(f" {file.kind} {file.digest}" for file in files if file is not None)


def is_ready(container: Container) -> bool:
    """Whether dependents may count on it: running, and healthy where it has a check.

    While the engine has not made up its mind, an early probe of ours that succeeded is enough; the
    engine's verdict rules from then on (DESIGN, Readiness).
    """
    if container.state is not State.RUNNING:
        return False
    health = container.health
    return (
        health is Health.NONE or health is Health.HEALTHY or (health is Health.STARTING and container.probed)
    )


def crash_loops(ledger: Ledger, container: Container, now: Clock) -> float | None:
    """Until when (monotonic) a container counts as crash looping if nothing more happens; None: it does not.

    The engine restarts it by its policy, so between two ends it looks as if it were well. It is believed
    again once it has run for twice as long as it lasted the last time, and at least as long as the engine
    itself takes for a success.
    """
    known = ledger.restarts.get(container.service)
    if known is None or known.container != container.id or len(known.times) < LOOP:
        return None
    before, last = known.times[-2:]
    if last - before > LONGEST_CALM or container.state is not State.RUNNING:
        return None
    calm = last + min(LONGEST_CALM, max(CALM, 2 * (last - before)))
    return calm if now.mono < calm else None


def same_definition(service: Service, container: Container, made: BuiltFrom | None) -> bool:
    """Whether the container was made from this definition.

    Compose's label is enough. Where it differs, our own record of the inputs decides: a new Compose
    version that hashes the same inputs differently must remake nothing (PITFALLS rows 1, 2 and 4).
    """
    return container.config_hash == service.config_hash or (
        made is not None and made.definition == service.definition
    )


def same_image(container: Container, wanted: str | None, made: BuiltFrom | None) -> bool:
    """Whether the container runs the image that its reference names now (None: names none).

    A container that we made while the reference named this very id is up to date, whatever id the
    engine shows for it: image stores disagree about which digest is *the* id (PITFALLS row 5).
    """
    return wanted is None or container.image == wanted or (made is not None and made.image == wanted)


def change_fingerprint(
    service: Service, container: Container, observed: ObservedState, made: BuiltFrom | None
) -> str:
    """What the container would be remade for, as one word: the same change, the same mark; empty for none."""
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
    """The one container that stands for the service; None without any.

    Chosen by what it is made from and whether it runs, never by name alone: a remake that was cut
    short leaves the successor under a prefixed name (PITFALLS row 6).
    """
    if len(containers) < 2:
        return containers[0] if containers else None

    def rank(container: Container) -> tuple[bool, bool, bool, bool, float, str]:
        return (
            container.state not in {State.DEAD, State.REMOVING},
            as_made(service, container, observed, ledger),
            container.state in ALIVE,
            container.name == service.name_of(container.number),
            container.created_at,
            container.id,
        )

    return max(containers, key=rank)


def as_made(service: Service, container: Container, observed: ObservedState, ledger: Ledger) -> bool:
    """Whether a container made now would be the same: in definition, image and content of mounts."""
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
    """What somebody changed on the container itself, by field: ``name``, ``restart``, ``networks.X``."""
    found = []
    if container.name != service.name_of(container.number):
        found.append("name")
    if container.restart != wanted_policy(stack, service):
        found.append("restart")
    if container.networks != service.networks:
        # More networks than declared are a person's business; fewer cut the service off.
        found += [f"networks.{name}" for name in missing_networks(service, container, made)]
    return tuple(found)


def missing_networks(service: Service, container: Container, made: BuiltFrom | None) -> tuple[str, ...]:
    """The networks that the container was on, or should have been from the start, and is not."""
    lacks = made.lacks if made else ()
    return tuple(n for n in service.networks if n not in container.networks and n not in lacks)


def stale_namespaces(
    service: Service, container: Container, kept: Mapping[str, Container | None]
) -> tuple[str, ...]:
    """Services of which the container should use the network, processes, memory or volumes, and does not.

    A container is tied to the very one that it was made for: once that was remade, by anybody, only another
    one will do, as for Compose itself. While there is none to be tied to, there is nothing to say.
    """
    found: tuple[str, ...] = ()
    if container.joins and service.shares:
        parents = _present(service.shares, kept)
        if parents and not set(container.joins) <= {parent.id for parent in parents.values()}:
            found = tuple(sorted(parents))
    if not found and service.volumes_from:
        sources = {of for key, of in container.borrowed if key == "volumes_from"}
        parents = _present(service.volumes_from, kept)
        if sources and not {parent.id for parent in parents.values()} <= sources:
            found = tuple(sorted(parents))
    return found


def _present(names: Sequence[str], kept: Mapping[str, Container | None]) -> dict[str, Container]:
    """The containers of these services; none where one of the services has none."""
    found = {name: parent for name in names if (parent := kept.get(name)) is not None}
    return found if len(found) == len(names) else {}


def changed_fields(service: Service, made: BuiltFrom | None) -> tuple[str, ...]:
    """Which leaves of the definition differ from what the container was made of; () if not known."""
    if made is None or made == UNKNOWN:
        return ()
    names = sorted(made.fields.keys() | service.fields.keys())
    return tuple(name for name in names if made.fields.get(name) != service.fields.get(name))


def has_completed(stack: Stack, ledger: Ledger, service: Service, container: Container) -> bool:
    """Whether this is a one-shot that did its work (CONTRACT section 2).

    One that we stopped, or that went down with its box, did not end by itself, however politely it went.
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
    """Whether ending with code 0 is what the service is there for: never where it has to stay healthy."""
    return service.name in stack.one_shots or (service.restart == "no" and service.name not in stack.lasting)


def stopped_by_us(ledger: Ledger, container: Container) -> bool:
    """Whether we sent this run of the container a stop."""
    return ledger.stopped.get(container.id) == container.started_at


def stop_reason(container: Container) -> str:
    """Why the container does not run, for a sentence."""
    if container.state is State.CREATED:
        return "was made and never started"
    if container.state is not State.EXITED:
        return f"is {container.state}"
    return f"exited with code {container.exit_code}" + (", out of memory" if container.oom_killed else "")


def differences(
    stack: Stack,
    observed: ObservedState,
    ledger: Ledger,
    service: Service,
    containers: Sequence[Container],
    kept: Mapping[str, Container | None],
    *,
    done: bool,
    pending: bool,
) -> tuple[Drift, ...]:
    """Every difference of a service that should be on. ``kept`` is what stands for each
    (``select_container``)."""
    container = kept.get(service.name)
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
        detail = f"differs in {join_names(fields)}" if fields else "was made from another definition"
        found.append(drift(DriftKind.DEFINITION, detail, fields))
    if not same_image(container, observed.images.get(service.image), made):
        found.append(drift(DriftKind.IMAGE, f"{service.image} names another image now"))
    changed = changed_mounts(service, container, observed, made)
    if changed:
        verb = "is" if len(changed) == 1 else "are"
        detail = f"{join_names(changed)} {verb} not what it was made with"
        found.append(drift(DriftKind.MOUNTS, detail, tuple(f"mounts.{target}" for target in changed)))
    altered = altered_fields(stack, service, container, made)
    if altered == ("restart",) and stack.restart == "managed":
        detail = f"has the restart policy {container.restart}, and restarting is ours here"
        found.append(drift(DriftKind.ALTERED, detail, altered))
    elif altered:
        found.append(drift(DriftKind.ALTERED, f"was changed by hand: {join_names(altered)}", altered))
    lost = stale_namespaces(service, container, kept)
    if lost:
        detail = f"was made for a container of {join_names(lost)} that is gone"
        found.append(drift(DriftKind.ALTERED, detail, ("shares",)))
    if container.state is State.PAUSED:
        found.append(drift(DriftKind.PAUSED, "is paused"))
    elif container.state not in ALIVE and not done:
        found.append(drift(DriftKind.STOPPED, stop_reason(container)))
    elif container.state is State.RUNNING and container.health is Health.UNHEALTHY:
        found.append(drift(DriftKind.UNHEALTHY, "its health check fails"))
    return tuple(found)


def join_names(names: Sequence[str]) -> str:
    """Names for a sentence: "a, b and c", cut after four."""
    if len(names) < 2:
        return "".join(names)
    shown = list(names[:4]) + ([f"{len(names) - 4} more"] if len(names) > 4 else [])
    return f"{', '.join(shown[:-1])} and {shown[-1]}"
