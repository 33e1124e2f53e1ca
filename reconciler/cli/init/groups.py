"""Proposes groups for the services of a Compose file. Pure.

The rules, in order:

- A service with profiles goes into the group of its first profile.
- Services without a profile that depend on each other, directly or not, form one group. It is named after the
  service with the most dependencies (the program, not its database). All services without such a connection
  form the group ``standalone``. If these rules give only one group, it is called ``core``.
- Services of one group that share a container name are alternatives: all but the first get their own group.
- A group depends on another if one of its services does in Compose, with strength ``on``: Compose's own
  order between services still holds, and is finer. ``required: false`` makes no dependency.
- Groups that depend on each other in a cycle are merged: neither could be on without the other.
- Memory is the sum of limits (``mem_limit``, ``deploy.resources.limits``). Without a limit, it is the current
  usage of the service, else its reservation, else 100 MB, which is marked as a guess.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from reconciler.desired_state.schema import usable_name
from reconciler.model.dependency_order import find_cycle, sorted_by_dependency
from reconciler.model.stack import Service

_GUESS = 100 * 10**6
_MB = 10**6


class ProposedGroup(NamedTuple):
    """One group. ``memory`` is in bytes; ``guessed`` are the services whose memory is unknown."""

    name: str
    services: tuple[str, ...]
    origin: str
    memory: int
    guessed: tuple[str, ...]
    depends_on: tuple[str, ...]


class Proposal(NamedTuple):
    """All groups, each after its dependencies, and notes on decisions."""

    groups: tuple[ProposedGroup, ...]
    notes: tuple[str, ...]


def propose_groups(
    model: Mapping[str, Mapping[str, Any]], services: Mapping[str, Service], used: Mapping[str, int]
) -> Proposal:
    """Return groups for these services.

    ``model`` is Compose's resolved model, ``services`` the same as values. ``used`` is the memory of running
    services in bytes (0: not measured).
    """
    dependencies = {name: _dependencies(service, services) for name, service in services.items()}
    origins: dict[str, str] = {}
    members: dict[str, list[str]] = {}
    for name, entry in model.items():
        profiles = (entry or {}).get("profiles") or []
        if profiles:
            group = usable_name(profiles[0])
            members.setdefault(group, []).append(name)
            origins[group] = f"Compose profile {profiles[0]}"
    plain = [name for name, entry in model.items() if not (entry or {}).get("profiles")]
    for name, connected, origin in _connected_groups(plain, dependencies, members):
        members[name], origins[name] = connected, origin
    notes = _merge_cycles(members, origins, dependencies)
    notes += _split_alternatives(members, origins, model)
    groups = [_group(name, members, origins[name], dependencies, model, used) for name in members]
    by_name = {group.name: group for group in groups}
    order = sorted_by_dependency({group.name: group.depends_on for group in groups})
    several = [name for name, entry in model.items() if len((entry or {}).get("profiles") or []) > 1]
    if several:
        notes.append(f"{', '.join(several)}: in several profiles, grouped by the first")
    return Proposal(tuple(by_name[name] for name in order), tuple(notes))


def _dependencies(service: Service, services: Mapping[str, Service]) -> tuple[str, ...]:
    required = [d.service for d in service.depends_on if d.required]
    return tuple(dict.fromkeys(name for name in (*required, *service.shares) if name in services))


def _connected_groups(
    names: list[str], dependencies: Mapping[str, Iterable[str]], used_names: Collection[str]
) -> list[tuple[str, list[str], str]]:
    """Return (name, services, origin) of each group of services without a profile."""
    components = _connected_components(names, dependencies)
    several = [component for component in components if len(component) > 1]
    single = [component[0] for component in components if len(component) == 1]
    used = set(used_names)
    if len(several) + bool(single) == 1:
        core = several[0] if several else single
        return [(_unused_name("core", used), core, "services without a profile")]
    groups = []
    for component in several:
        head = max(component, key=lambda name: (len(_reachable(name, dependencies)), -names.index(name)))
        name = _unused_name(head, used)
        used.add(name)
        groups.append((name, component, f"{head} and the services connected with it"))
    if single:
        origin = "services without dependencies in either direction"
        groups.append((_unused_name("standalone", used), single, origin))
    return groups


def _unused_name(name: str, used: Collection[str]) -> str:
    if name not in used:
        return name
    return next(f"{name}-{number}" for number in range(2, len(used) + 3) if f"{name}-{number}" not in used)


def _connected_components(names: list[str], dependencies: Mapping[str, Iterable[str]]) -> list[list[str]]:
    neighbours: dict[str, set[str]] = {name: set() for name in names}
    for name in names:
        for other in dependencies[name]:
            if other in neighbours:
                neighbours[name].add(other)
                neighbours[other].add(name)
    components, seen = [], set[str]()
    for name in names:
        if name not in seen:
            component = _reachable(name, neighbours) | {name}
            seen |= component
            components.append([member for member in names if member in component])
    return components


def _reachable(start: str, edges: Mapping[str, Iterable[str]]) -> set[str]:
    reached: set[str] = set()
    open_ = [start]
    while open_:
        for name in edges.get(open_.pop(), ()):
            if name not in reached:
                reached.add(name)
                open_.append(name)
    return reached - {start}


def _group_dependencies(
    members: Mapping[str, Collection[str]], dependencies: Mapping[str, Iterable[str]]
) -> dict[str, list[str]]:
    group_of = {name: group for group, names in members.items() for name in names}
    return {
        group: list(
            dict.fromkeys(
                group_of[other] for name in names for other in dependencies[name] if group_of[other] != group
            )
        )
        for group, names in members.items()
    }


def _merge_cycles(
    members: dict[str, list[str]], origins: dict[str, str], dependencies: Mapping[str, Iterable[str]]
) -> list[str]:
    """Merge the groups of each cycle under the name of the largest; return a note for each merge."""
    notes = []
    while cycle := find_cycle(_group_dependencies(members, dependencies)):
        names = list(dict.fromkeys(cycle))
        kept = max(names, key=lambda name: (len(members[name]), name))
        others = sorted(name for name in names if name != kept)
        for name in others:
            members[kept] += members.pop(name)
        origins[kept] += f", with {' and '.join(others)}: they depend on each other in a cycle"
        notes.append(f"{', '.join(others)}: merged into {kept}, they depend on each other in a cycle")
    return notes


def _split_alternatives(
    members: dict[str, list[str]], origins: dict[str, str], model: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Move services that can't be on together into groups of their own; return a note for each."""
    notes = []
    users: dict[str, list[str]] = {}
    for service, entry in model.items():
        users.setdefault((entry or {}).get("container_name") or "", []).append(service)
    for name, services in users.items():
        if not name or len(services) < 2:
            continue
        notes.append(f"{', '.join(services)}: alternatives with the container name {name}; one can be on")
        seen: set[str] = set()
        for service in services:
            group = next(group for group, inside in members.items() if service in inside)
            if group in seen:
                members[group].remove(service)
                group = _unused_name(service, members)
                members[group], origins[group] = [service], f"alternative with the container name {name}"
            seen.add(group)
    return notes


def _group(
    name: str,
    members: Mapping[str, list[str]],
    origin: str,
    dependencies: Mapping[str, tuple[str, ...]],
    model: Mapping[str, Mapping[str, Any]],
    used: Mapping[str, int],
) -> ProposedGroup:
    inside = set(members[name])
    # In the order in which they start; services of equal rank stay in Compose's order.
    services = sorted_by_dependency({s: [n for n in dependencies[s] if n in inside] for s in members[name]})
    total, guessed = 0, []
    for service in services:
        memory = _limit(model[service] or {}, "limits") or used.get(service, 0)
        memory = memory or _limit(model[service] or {}, "reservations")
        if not memory:
            guessed.append(service)
        total += memory or _GUESS
    depends_on = _group_dependencies(members, dependencies)[name]
    return ProposedGroup(name, services, origin, -(-total // _MB) * _MB, tuple(guessed), tuple(depends_on))


def _limit(entry: Mapping[str, Any], kind: str) -> int:
    resources = ((entry.get("deploy") or {}).get("resources") or {}).get(kind) or {}
    own = entry.get("mem_limit" if kind == "limits" else "mem_reservation")
    text = str(own or resources.get("memory") or "0")
    return int(text) if text.isdecimal() else 0
