"""Compare a container with what would be created now. Pure.

The first phase of a plan: each container is compared once per pass, and rules, drift and status read the
result (``Comparison``). Among several containers of one unit, ``select`` chooses the one that counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from reconciler.model.capabilities import Capability
from reconciler.model.ledger import BuiltFrom, Ledger
from reconciler.model.observed import ALIVE, Container, ObservedState, State
from reconciler.model.stack import Service, Stack
from reconciler.planning.mounts import changed_mounts


class Comparison(NamedTuple):
    """How one container differs from what its service would get now. Each field is one difference.

    ``differs`` is True if any of the others is set. ``definition``, ``image``, ``name`` and ``policy`` (the
    restart policy) are True if they differ; ``mounts`` are the targets that changed, ``networks`` those that
    are missing. ``made`` is what the ledger recorded at the creation of the container, if anything.
    ``immutable``: the name or policy differs, and the engine can't change it on an existing container.

    Three fields also depend on other services and on requests. ``parents`` are the services whose current
    network, processes, memory or volumes the container lacks. ``restarted_parent`` is a service that this
    container follows and that was started after it. ``held``: the change waits for acceptance.
    """

    service: Service
    container: Container
    made: BuiltFrom | None
    differs: bool = False
    definition: bool = False
    image: bool = False
    mounts: tuple[str, ...] = ()
    name: bool = False
    policy: bool = False
    networks: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    restarted_parent: str = ""
    held: bool = False
    immutable: bool = False

    @property
    def outdated(self) -> bool:
        """Whether a container created now would have another definition, image or mount content."""
        return self.definition or self.image or bool(self.mounts)

    @property
    def must_recreate(self) -> bool:
        """Whether the container must be recreated and may be."""
        if self.outdated:
            return not self.held
        return bool(self.networks or self.parents or self.immutable)

    @property
    def altered(self) -> tuple[str, ...]:
        """The fields changed by hand on the container: ``name``, ``restart``, ``networks.X``."""
        fields = [name for name, differs in (("name", self.name), ("restart", self.policy)) if differs]
        return (*fields, *(f"networks.{name}" for name in self.networks))


def compare(
    stack: Stack, service: Service, container: Container, observed: ObservedState, ledger: Ledger
) -> Comparison:
    """Compare one container with the current definition of its service."""
    # Nearly every service is as desired in nearly every pass, so that case does the least work.
    made = ledger.made.get(container.id)
    definition = not same_definition(service, container, made)
    image = not same_image(container, observed.images.get(service.image), made)
    mounts = changed_mounts(service, container, observed, made) if service.mounts else ()
    name = container.name != (
        service.container_name if container.number < 2 else service.name_of(container.number)
    )
    policy = container.restart != ("no" if stack.restart == "managed" else service.restart)
    # Additional networks are allowed; missing ones cut the service off.
    networks = missing_networks(service, container, made) if container.networks != service.networks else ()
    if definition or image or mounts or name or policy or networks:
        can = observed.capabilities
        immutable = (name and Capability.RENAME not in can) or (policy and Capability.UPDATE not in can)
        return Comparison(
            service,
            container,
            made,
            True,
            definition,
            image,
            mounts,
            name,
            policy,
            networks,
            immutable=immutable,
        )
    return Comparison(service, container, made)


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


def missing_networks(service: Service, container: Container, made: BuiltFrom | None) -> tuple[str, ...]:
    """Return networks that the container lacks, except those it lacked since its creation."""
    lacks = made.lacks if made else ()
    return tuple(n for n in service.networks if n not in container.networks and n not in lacks)


def wanted_policy(stack: Stack, service: Service) -> str:
    """The restart policy that the container should have (CONTRACT section 2, ``restart``)."""
    return "no" if stack.restart == "managed" else service.restart


def change_fingerprint(comparison: Comparison, observed: ObservedState) -> str:
    """Return the fingerprint of the change that would recreate the container; empty if none."""
    if not comparison.outdated:
        return ""
    service = comparison.service
    files = [observed.sources[m.source] for m in service.mounts if m.target in comparison.mounts and m.source]
    versions = "".join(f" {file.digest} {file.inode}" for file in files)
    return f"{service.definition}{service.contents} {observed.images.get(service.image, '')}{versions}"


def select(comparisons: Sequence[Comparison]) -> Comparison:
    """Return the comparison of the container that the plan acts on, of several in one unit.

    Definition and state decide, the name only between equals: an interrupted recreation leaves the successor
    under a prefixed name (PITFALLS row 6).
    """
    return max(comparisons, key=_rank)


def _rank(one: Comparison) -> tuple[bool, bool, bool, bool, float, str]:
    container = one.container
    return (
        container.state not in {State.DEAD, State.REMOVING},
        not one.outdated,
        container.state in ALIVE,
        not one.name,
        container.created_at,
        container.id,
    )


def select_container(
    stack: Stack, service: Service, containers: Sequence[Container], observed: ObservedState, ledger: Ledger
) -> Container | None:
    """Return the container of a service that the plan acts on; None without containers."""
    if len(containers) < 2:
        return containers[0] if containers else None
    return select([compare(stack, service, one, observed, ledger) for one in containers]).container


def stale_namespaces(
    service: Service, container: Container, selected: Mapping[str, Container]
) -> tuple[str, ...]:
    """Return parent services whose current network, processes, memory or volumes the container lacks.

    A container is tied to the parent container of its creation. After the parent is recreated, by the daemon
    or by other means, the container must be recreated too, as with Compose. Without a parent container the
    result is empty.
    """
    stale: tuple[str, ...] = ()
    if container.joins and service.shares:
        parents = _present(service.shares, selected)
        if parents and not set(container.joins) <= {parent.id for parent in parents.values()}:
            stale = tuple(sorted(parents))
    if not stale and service.volumes_from:
        sources = {of for key, of in container.borrowed if key == "volumes_from"}
        parents = _present(service.volumes_from, selected)
        if sources and not {parent.id for parent in parents.values()} <= sources:
            stale = tuple(sorted(parents))
    return stale


def _present(names: Sequence[str], selected: Mapping[str, Container]) -> dict[str, Container]:
    """Return the containers of these services; empty if one of the services has none."""
    present = {name: parent for name in names if (parent := selected.get(name)) is not None}
    return present if len(present) == len(names) else {}
