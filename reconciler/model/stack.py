"""The stack: groups, services and their dependencies. Values only, built once per change of the files.

``stack.yaml`` names groups and their services, the resolved Compose model defines how each service
runs; together they make a ``Stack``. Everything derived from it alone (start order, dependents, the
length of the chain behind a service) is computed once per stack, because ``plan`` runs on every event.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

from reconciler.model.canonical import stack_json
from reconciler.model.dependency_order import sorted_by_dependency
from reconciler.model.fingerprint import DesiredFingerprint
from reconciler.model.start_work import NOTHING, StartWork


class Condition(StrEnum):
    """Compose's ``depends_on`` conditions, under Compose's names."""

    STARTED = "service_started"
    HEALTHY = "service_healthy"
    COMPLETED = "service_completed_successfully"


class Strength(StrEnum):
    """What a group requires of a group it depends on (CONTRACT section 2)."""

    ON = "on"
    READY = "ready"


class Dependency(NamedTuple):
    """One entry of a service's ``depends_on``."""

    service: str
    condition: Condition
    restart: bool = False
    required: bool = True


class HealthCheck(NamedTuple):
    """A container's health check. ``test`` is an argument vector ready for exec; times in seconds."""

    test: tuple[str, ...]
    interval: float = 30.0
    timeout: float = 30.0
    retries: int = 3
    start_period: float = 0.0


class Mount(NamedTuple):
    """A file or folder of the host, or content of the Compose model, that appears at ``target``.

    ``kind`` is bind, config or secret; ``source`` a path on the engine's host, empty if the content is
    copied into the container. For copied content, ``content`` is its digest, and ``plain`` the digest that
    versions before keyed digests recorded. ``create``: a missing source is created, as a folder.
    ``writable``: the container may write to the source.
    """

    kind: str
    target: str
    source: str = ""
    content: str = ""
    create: bool = False
    writable: bool = False
    plain: str = ""

    @property
    def key(self) -> str:
        """The key of the mount in records: its path, if it has one."""
        return self.source or f"content of {self.target}"


class UnhealthyPolicy(NamedTuple):
    """The repair of a service that stays unhealthy; times in seconds."""

    after: float = 120.0
    action: str = "restart"
    limit: int = 3
    window: float = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One service of the resolved Compose model.

    ``config_hash`` is what Compose writes into the container's label; ``fields`` maps each leaf of the
    definition (``environment.FOO``) to a short digest of its value, so that a difference can be named
    without storing or showing a secret. ``definition`` is the digest of all fields: equal definitions mean
    equal inputs, whatever Compose version hashed them. ``mounts`` are the mounts whose content Compose leaves
    out of its hash, ``contents`` is a digest of the copied ones. ``shares`` are the services whose
    network, processes or memory it uses, ``volumes_from`` those whose volumes. ``start`` is what Compose does
    around the start and stop of its container. ``replicas`` is the number of containers in the file,
    ``container_name`` the name of the first one; ``named``: the file sets the name, so there is only one.
    ``publishes``: it publishes a port, perhaps one that the engine chooses. ``kind`` is that of
    ``stack.yaml``: ``job``, ``service``, or empty.
    ``provider`` is the type of a service without containers, which Docker Compose gets from a program.
    """

    name: str
    container_name: str
    image: str
    config_hash: str = ""
    definition: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    depends_on: tuple[Dependency, ...] = ()
    has_build: bool = False
    pull_policy: str = ""
    restart: str = "no"
    stop_grace: float = 10.0
    check: HealthCheck | None = None
    networks: tuple[str, ...] = ()
    shares: tuple[str, ...] = ()
    volumes_from: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    contents: str = ""
    start: StartWork = NOTHING
    replicas: int = 1
    named: bool = False
    publishes: bool = False
    kind: str = ""
    provider: str = ""

    def name_of(self, number: int) -> str:
        """Return Compose's name of replica ``number``; numbers below 2 mean the first one."""
        if self.named or number < 2:
            return self.container_name
        return f"{self.container_name.removesuffix('-1')}-{number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One group of ``stack.yaml``. ``memory`` is the estimate in bytes."""

    name: str
    services: tuple[str, ...]
    description: str = ""
    memory: int = 0
    depends_on: Mapping[str, Strength] = field(default_factory=dict)
    unhealthy: UnhealthyPolicy = field(default_factory=UnhealthyPolicy)
    on_change: str = "recreate"


@dataclass(frozen=True, slots=True)
class Pilot:
    """The groups and memory (bytes) that the pipeline on the host needs."""

    groups: tuple[str, ...] = ()
    memory: int = 0


@dataclass(frozen=True, kw_only=True)
class Stack:
    """All groups, and all services of the Compose model, also those in no group (unmanaged).

    ``inputs`` is a digest of all files that the Compose model is resolved from, and ``compose`` the version
    that resolved them: equal inputs mean the same, even if versions resolve them differently. ``model`` is
    the path of the frozen resolved Compose file that containers are created from, ``directory`` the project
    directory for relative paths in it; ``files`` are the paths of the original Compose files.
    """

    name: str
    groups: Mapping[str, Group]
    services: Mapping[str, Service]
    pilot: Pilot = field(default_factory=Pilot)
    prune: bool = False
    restart: str = "compose"
    model: str = ""
    directory: str = ""
    files: tuple[str, ...] = ()
    inputs: str = ""
    compose: str = ""
    warnings: tuple[str, ...] = ()

    @cached_property
    def group_of(self) -> Mapping[str, str]:
        """Maps each managed service to its group."""
        return {service: group.name for group in self.groups.values() for service in group.services}

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Managed services in start order: each one after its dependencies.

        Edges are Compose's dependencies between services and strength ``ready`` between groups.
        """
        return tuple(service for service in self._sorted_nodes if service in self.group_of)

    @cached_property
    def needs(self) -> Mapping[str, tuple[Dependency, ...]]:
        """For each managed service its dependencies on other managed services."""
        managed = self.group_of
        return {
            name: tuple(d for d in self.services[name].depends_on if d.service in managed) for name in managed
        }

    @cached_property
    def follows(self) -> Mapping[str, tuple[str, ...]]:
        """Maps a managed service to the services whose restart restarts it too.

        A parent is named with ``restart: true``, or shares its network or processes with the service, which
        a restart of the parent breaks.
        """
        result = {
            name: tuple(d.service for d in needs if d.restart or d.service in self.services[name].shares)
            for name, needs in self.needs.items()
        }
        return {name: parents for name, parents in result.items() if parents}

    @cached_property
    def dependents(self) -> Mapping[str, tuple[str, ...]]:
        """For each managed service the managed services that must be stopped before it."""
        result: dict[str, list[str]] = {name: [] for name in self.group_of}
        for name, dependencies in self.needs.items():
            for dependency in dependencies:
                result[dependency.service].append(name)
        return {name: tuple(sorted(names)) for name, names in result.items()}

    @cached_property
    def group_dependents(self) -> Mapping[str, tuple[str, ...]]:
        """For each group the groups that name it in ``depends_on``, in display order."""
        result: dict[str, list[str]] = {name: [] for name in self.groups}
        for group in self.groups.values():
            for name in group.depends_on:
                result[name].append(group.name)
        return {name: tuple(names) for name, names in result.items()}

    @cached_property
    def ready_dependents(self) -> Mapping[str, tuple[str, ...]]:
        """For each group the groups that depend on it with strength ``ready``."""
        return {
            name: tuple(d for d in names if self.groups[d].depends_on[name] is Strength.READY)
            for name, names in self.group_dependents.items()
        }

    @cached_property
    def chain(self) -> Mapping[str, int]:
        """The length of the longest chain of services that wait for each service, itself included."""
        edges = self._edges
        behind: dict[str, int] = {}
        for node in reversed(self._sorted_nodes):
            length = behind.setdefault(node, 0) + (node in self.group_of)
            for needed in edges[node]:
                behind[needed] = max(behind.get(needed, 0), length)
        return {name: behind[name] for name in self.group_of}

    @cached_property
    def depth(self) -> Mapping[str, int]:
        """The length of the longest chain of services that can stop only after each service."""
        edges = self._edges
        below: dict[str, int] = {}
        for node in self._sorted_nodes:
            below[node] = max((below[n] + (n in self.group_of) for n in edges[node]), default=0)
        return {name: below[name] for name in self.group_of}

    @cached_property
    def fingerprints(self) -> Mapping[str, DesiredFingerprint]:
        """The fingerprint of each managed service while it is on, without a restart request."""
        services = ((name, self.services[name]) for name in self.group_of)
        return {
            name: DesiredFingerprint(True, service.definition + service.contents, service.replicas)
            for name, service in services
        }

    @cached_property
    def canonical_json(self) -> str:
        """The canonical form of this stack; cached, since most edits only switch groups."""
        return stack_json(self)

    @cached_property
    def replicated(self) -> tuple[str, ...]:
        """Managed services with a number of containers other than one."""
        return tuple(name for name in self.group_of if self.services[name].replicas != 1)

    @cached_property
    def numbers(self) -> tuple[str, ...]:
        """A text for each service in ``replicated``: ``web: 3 replicas``, ``seed: scaled to zero``."""
        counts = ((name, self.services[name].replicas) for name in self.replicated)
        return tuple(
            f"{name}: {f'{count} replicas' if count else 'scaled to zero'}" for name, count in counts
        )

    @cached_property
    def alternatives(self) -> Mapping[str, tuple[str, ...]]:
        """Maps a managed service to the other managed services with the same ``container_name``.

        Only one of them can have a container of that name, such as the CPU and the GPU form of one service.
        """
        users: dict[str, list[str]] = {}
        for name in self.group_of:
            if self.services[name].named and self.services[name].replicas:
                users.setdefault(self.services[name].container_name, []).append(name)
        return {
            name: tuple(other for other in names if other != name)
            for names in users.values()
            if len(names) > 1
            for name in names
        }

    @cached_property
    def rivals(self) -> Mapping[str, Mapping[str, str]]:
        """Maps a group to the groups that can't be on with it, each with the container name in common."""
        found: dict[str, dict[str, str]] = {}
        for name, others in self.alternatives.items():
            for other in others:
                group, rival = self.group_of[name], self.group_of[other]
                if group != rival:
                    found.setdefault(group, {})[rival] = self.services[name].container_name
        return found

    @cached_property
    def variants(self) -> dict[object, Stack]:
        """A cache of stacks derived from this one (``replicas``), kept between passes."""
        return {}

    @cached_property
    def one_shots(self) -> frozenset[str]:
        """Services that must complete: another one waits for that, or ``stack.yaml`` calls them a job."""
        jobs = {name for name, service in self.services.items() if service.kind == "job"}
        return self._awaited(Condition.COMPLETED) | jobs

    @cached_property
    def lasting(self) -> frozenset[str]:
        """Services that another one needs to be healthy: an exit is never their desired state."""
        return self._awaited(Condition.HEALTHY)

    @cached_property
    def shared(self) -> frozenset[str]:
        """Services whose network, processes, memory or volumes another one uses."""
        return frozenset(
            name for service in self.services.values() for name in (*service.shares, *service.volumes_from)
        )

    def _awaited(self, condition: Condition) -> frozenset[str]:
        return frozenset(
            dependency.service
            for service in self.services.values()
            for dependency in service.depends_on
            if dependency.condition is condition
        )

    @cached_property
    def by_image(self) -> Mapping[str, tuple[str, ...]]:
        """Maps each image reference to the services that use it."""
        result: dict[str, list[str]] = {}
        for service in self.services.values():
            result.setdefault(service.image, []).append(service.name)
        return {image: tuple(names) for image, names in result.items()}

    @cached_property
    def unmanaged(self) -> tuple[str, ...]:
        """Services of the Compose model that are in no group: shown, never changed."""
        return tuple(name for name in self.services if name not in self.group_of)

    @cached_property
    def _sorted_nodes(self) -> tuple[str, ...]:
        return sorted_by_dependency(self._edges)

    @cached_property
    def _edges(self) -> dict[str, Iterable[str]]:
        # Maps each node to the nodes it needs. A node is a service or a group that must be ready. With a node
        # per group the number of edges is linear; an edge from every service of A to every service of B would
        # make it quadratic.
        edges: dict[str, Iterable[str]] = {}
        awaited = {
            name
            for group in self.groups.values()
            for name, strength in group.depends_on.items()
            if strength is Strength.READY
        }
        for name in awaited:
            edges[_group_node(name)] = self.groups[name].services
        for group in self.groups.values():
            groups = [_group_node(n) for n, s in group.depends_on.items() if s is Strength.READY]
            for service in group.services:
                edges[service] = [*groups, *(d.service for d in self.needs[service])]
        return edges


UNIT = "#"
"""Separates the service and the replica number in the name of a unit. No service name contains it."""


def service_of(unit: str) -> str:
    """Return the service of a unit (``web#2``, or ``web`` itself)."""
    return unit.partition(UNIT)[0]


def _group_node(group: str) -> str:
    # Service names contain no space, so this is never the name of a service.
    return f"group {group}"
