"""What there is: groups, services, what depends on what. Values only, built once per change of files.

``stack.yaml`` names groups and their services, the resolved Compose model says how each service
runs; together they make a ``Stack``. Everything derived from it alone (start order, dependents, the
length of the chain behind a service) is computed once per stack, because ``plan`` runs on every event.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

from reconciler.model.start_work import NOTHING, StartWork


class Condition(StrEnum):
    """Compose's ``depends_on`` conditions, under Compose's names."""

    STARTED = "service_started"
    HEALTHY = "service_healthy"
    COMPLETED = "service_completed_successfully"


class Strength(StrEnum):
    """How much a group asks of a group it depends on (CONTRACT section 2)."""

    ON = "on"
    READY = "ready"


class Dependency(NamedTuple):
    """One entry of a service's ``depends_on``."""

    service: str
    condition: Condition
    restart: bool = False
    required: bool = True


class HealthCheck(NamedTuple):
    """A container's own check. ``test`` is an argument vector ready for exec; times in seconds."""

    test: tuple[str, ...]
    interval: float = 30.0
    timeout: float = 30.0
    retries: int = 3
    start_period: float = 0.0


class Mount(NamedTuple):
    """A file or folder of the host, or a content of the model's own, that a container is given at ``target``.

    ``kind`` is bind, config or secret; ``source`` a path on the engine's host, empty where the content is
    copied in, of which ``content`` is the digest then, and ``plain`` the one that versions before keyed
    digests recorded. ``create``: a source that is not there is made, as a folder. ``writable``: the container
    may write to it.
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
        """What it is known by: the path, where it has one."""
        return self.source or f"content of {self.target}"


class UnhealthyPolicy(NamedTuple):
    """What to do about a service that stays unhealthy; times in seconds."""

    after: float = 120.0
    action: str = "restart"
    limit: int = 3
    window: float = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One service of the resolved Compose model.

    ``config_hash`` is what Compose would write into the container's label; ``fields`` maps each leaf
    of the definition (``environment.FOO``) to a short digest of its value, so that a difference can be
    named without a secret ever being kept or shown. ``definition`` is the digest of all fields: equal
    definitions mean equal inputs, whatever Compose version hashed them. ``mounts`` are those whose content
    Compose leaves out of its hash; ``contents`` is a digest of those that are copied in. ``shares`` are the
    services whose network, processes or memory it uses, ``volumes_from`` those whose volumes. ``start`` is
    what Compose does around the start and stop of its container.
    ``replicas`` is how many containers the file asks for, ``container_name`` the name of the first of them;
    ``named``: the file says the name itself, so there is no other one.
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

    def name_of(self, number: int) -> str:
        """The name that Compose gives replica ``number``; numbers below 2 stand for the first one."""
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
    """What the pipeline on the host needs; ``memory`` in bytes."""

    groups: tuple[str, ...] = ()
    memory: int = 0


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Everything that can be switched on, and everything Compose has beside it.

    ``services`` holds all services of the Compose model, also those in no group (unmanaged).
    ``inputs`` is a digest of all files behind the Compose model and ``compose`` the version that resolved
    it: equal inputs mean the same, whatever another version makes of them. ``model`` is the path of the
    frozen resolved Compose file that containers are made from, and ``directory`` the project directory that
    relative paths in it were resolved against; ``files`` are the paths of the Compose files it was made of.
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
        """The group of each managed service."""
        return {service: group.name for group in self.groups.values() for service in group.services}

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Managed services, each after everything that must be up before it.

        Both kinds of edges count: Compose's between services, and strength ``ready`` between groups.
        """
        return tuple(service for service in self._sorted_with_gates if service in self.group_of)

    @cached_property
    def needs(self) -> Mapping[str, tuple[Dependency, ...]]:
        """For each managed service its dependencies on other managed services."""
        managed = self.group_of
        return {
            name: tuple(d for d in self.services[name].depends_on if d.service in managed) for name in managed
        }

    @cached_property
    def follows(self) -> Mapping[str, tuple[str, ...]]:
        """For each managed service that has any, those whose restart it follows.

        Those named with ``restart: true``, and those whose network or processes it shares, and loses so.
        """
        found = {
            name: tuple(d.service for d in needs if d.restart or d.service in self.services[name].shares)
            for name, needs in self.needs.items()
        }
        return {name: parents for name, parents in found.items() if parents}

    @cached_property
    def dependents(self) -> Mapping[str, tuple[str, ...]]:
        """For each managed service the managed services that must be stopped before it."""
        found: dict[str, list[str]] = {name: [] for name in self.group_of}
        for name, dependencies in self.needs.items():
            for dependency in dependencies:
                found[dependency.service].append(name)
        return {name: tuple(sorted(names)) for name, names in found.items()}

    @cached_property
    def group_dependents(self) -> Mapping[str, tuple[str, ...]]:
        """For each group the groups that name it in ``depends_on``, in display order."""
        found: dict[str, list[str]] = {name: [] for name in self.groups}
        for group in self.groups.values():
            for name in group.depends_on:
                found[name].append(group.name)
        return {name: tuple(names) for name, names in found.items()}

    @cached_property
    def ready_dependents(self) -> Mapping[str, tuple[str, ...]]:
        """For each group the groups that depend on it with strength ``ready``."""
        return {
            name: tuple(d for d in names if self.groups[d].depends_on[name] is Strength.READY)
            for name, names in self.group_dependents.items()
        }

    @cached_property
    def chain(self) -> Mapping[str, int]:
        """How many services wait, one behind the other, for each service: the longest chain first."""
        edges = self._edges_with_gates
        behind: dict[str, int] = {}
        for node in reversed(self._sorted_with_gates):
            length = behind.setdefault(node, 0) + (node in self.group_of)
            for needed in edges[node]:
                behind[needed] = max(behind.get(needed, 0), length)
        return {name: behind[name] for name in self.group_of}

    @cached_property
    def depth(self) -> Mapping[str, int]:
        """The same for stopping, in reverse: how many services can only go down after each service."""
        edges = self._edges_with_gates
        below: dict[str, int] = {}
        for node in self._sorted_with_gates:
            below[node] = max((below[n] + (n in self.group_of) for n in edges[node]), default=0)
        return {name: below[name] for name in self.group_of}

    @cached_property
    def replicated(self) -> tuple[str, ...]:
        """Managed services of which the file does not ask for exactly one container."""
        return tuple(name for name in self.group_of if self.services[name].replicas != 1)

    @cached_property
    def numbers(self) -> tuple[str, ...]:
        """For people: ``web: 3 replicas``, ``seed: scaled to zero``, for each of ``replicated``."""
        counts = ((name, self.services[name].replicas) for name in self.replicated)
        return tuple(
            f"{name}: {f'{count} replicas' if count else 'scaled to zero'}" for name, count in counts
        )

    @cached_property
    def variants(self) -> dict[object, Stack]:
        """Stacks derived from this one, by what they were derived for (``replicas``): kept between passes."""
        return {}

    @cached_property
    def one_shots(self) -> frozenset[str]:
        """Services that another one waits for to complete: they end, and that is success."""
        return self._awaited(Condition.COMPLETED)

    @cached_property
    def lasting(self) -> frozenset[str]:
        """Services that another one needs to be healthy: having ended is never what is wanted."""
        return self._awaited(Condition.HEALTHY)

    def _awaited(self, condition: Condition) -> frozenset[str]:
        return frozenset(
            dependency.service
            for service in self.services.values()
            for dependency in service.depends_on
            if dependency.condition is condition
        )

    @cached_property
    def by_image(self) -> Mapping[str, tuple[str, ...]]:
        """Which services use each image reference."""
        found: dict[str, list[str]] = {}
        for service in self.services.values():
            found.setdefault(service.image, []).append(service.name)
        return {image: tuple(names) for image, names in found.items()}

    @cached_property
    def unmanaged(self) -> tuple[str, ...]:
        """Services of the Compose model that are in no group: listed, never touched."""
        return tuple(name for name in self.services if name not in self.group_of)

    @cached_property
    def _sorted_with_gates(self) -> tuple[str, ...]:
        return sorted_by_dependency(self._edges_with_gates)

    @cached_property
    def _edges_with_gates(self) -> dict[str, Iterable[str]]:
        # A gate node per group keeps the edges linear: every service of A behind every one of B
        # would be a product.
        edges: dict[str, Iterable[str]] = {}
        gated = {
            name
            for group in self.groups.values()
            for name, strength in group.depends_on.items()
            if strength is Strength.READY
        }
        for name in gated:
            edges[_gate(name)] = self.groups[name].services
        for group in self.groups.values():
            gates = [_gate(n) for n, s in group.depends_on.items() if s is Strength.READY]
            for service in group.services:
                edges[service] = [*gates, *(d.service for d in self.needs[service])]
        return edges


UNIT = "#"
"""Between a service and the number of a replica in the name of a unit. No service name holds it."""


def service_of(unit: str) -> str:
    """The service that a unit (``web#2``, or ``web`` itself) belongs to."""
    return unit.partition(UNIT)[0]


def _gate(group: str) -> str:
    # A space can't stand in a service name, so a gate never collides with a service.
    return f"group {group}"


def sorted_by_dependency(edges: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """The nodes of ``edges`` (node to what it needs), dependencies first; equal input, equal order.

    What needs a node comes soon after it, not level by level: what belongs together lies together in memory,
    and ``plan``, which goes through all in this order, is faster for it where services count by the thousand.

    Raises:
        graphlib.CycleError: with the members of one cycle as its second argument.
    """
    sorter = TopologicalSorter({node: sorted(edges[node]) for node in sorted(edges)})
    sorter.prepare()
    found: list[str] = []
    ready = [*reversed(sorter.get_ready())]
    while ready:
        node = ready.pop()
        found.append(node)
        sorter.done(node)
        ready += reversed(sorter.get_ready())
    return tuple(found)


def find_cycle(edges: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """One dependency cycle, each node followed by what it needs, first and last the same; () if none."""
    try:
        sorted_by_dependency(edges)
    except CycleError as error:
        return tuple(reversed(error.args[1]))
    return ()
