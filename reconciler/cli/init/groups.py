"""Proposes groups for the services of a Compose file. Pure.

The rules, in order:

- A service with profiles goes into the group of its first one.
- Services without a profile that depend on each other, over any number of steps, belong together: one
  group for each such island, named after the service of it that depends on most others (the program,
  not its database). Those that stand alone are together in ``standalone``. Where that would make one
  group only, it is ``core``.
- A group depends on another if one of its services does in Compose, with strength ``on``: Compose's own
  order between services holds, and is finer. ``required: false`` makes no dependency.
- Groups that would depend on each other in a circle become one: neither could be on without the other.
- Memory is the sum of limits (``mem_limit``, ``deploy.resources.limits``); without one what the service
  uses now, else its reservation, else 100 MB, which is marked as a guess.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from reconciler.model.dependency_order import find_cycle, sorted_by_dependency
from reconciler.model.stack import Service

_GUESS = 100 * 10**6
_MB = 10**6


class ProposedGroup(NamedTuple):
    """One group. ``memory`` in bytes; ``guessed`` are services of which nothing is known about memory."""

    name: str
    services: tuple[str, ...]
    origin: str
    memory: int
    guessed: tuple[str, ...]
    depends_on: tuple[str, ...]


class Proposal(NamedTuple):
    """All groups, each after those that it depends on, and what was decided on the way."""

    groups: tuple[ProposedGroup, ...]
    notes: tuple[str, ...]


def sketch(
    model: Mapping[str, Mapping[str, Any]], services: Mapping[str, Service], used: Mapping[str, int]
) -> Proposal:
    """Groups for these services.

    ``model`` is what Compose resolved, ``services`` the same as values, ``used`` the bytes that running
    services use (0: not measured).
    """
    needs = {name: _needs(service, services) for name, service in services.items()}
    origins: dict[str, str] = {}
    members: dict[str, list[str]] = {}
    for name, entry in model.items():
        profiles = (entry or {}).get("profiles") or []
        if profiles:
            members.setdefault(profiles[0], []).append(name)
            origins[profiles[0]] = f"Compose profile {profiles[0]}"
    plain = [name for name, entry in model.items() if not (entry or {}).get("profiles")]
    for name, island, origin in _islands(plain, needs, members):
        members[name], origins[name] = island, origin
    notes = _merge_circles(members, origins, needs)
    groups = [_drawn(name, members, origins[name], needs, model, used) for name in members]
    by_name = {group.name: group for group in groups}
    order = sorted_by_dependency({group.name: group.depends_on for group in groups})
    several = [name for name, entry in model.items() if len((entry or {}).get("profiles") or []) > 1]
    if several:
        notes.append(f"{', '.join(several)}: in several profiles, grouped by the first")
    return Proposal(tuple(by_name[name] for name in order), tuple(notes))


def _needs(service: Service, services: Mapping[str, Service]) -> tuple[str, ...]:
    named = [d.service for d in service.depends_on if d.required]
    return tuple(dict.fromkeys(name for name in (*named, *service.shares) if name in services))


def _islands(
    names: list[str], needs: Mapping[str, Iterable[str]], taken: Collection[str]
) -> list[tuple[str, list[str], str]]:
    """(name, services, where it comes from) of each group among services without a profile."""
    islands = _connected(names, needs)
    together = [island for island in islands if len(island) > 1]
    alone = [island[0] for island in islands if len(island) == 1]
    used = set(taken)
    found = []
    if len(together) + bool(alone) == 1:
        core = together[0] if together else alone
        return [(_free("core", used), core, "services without a profile")]
    for island in together:
        head = max(island, key=lambda name: (len(_reach(name, needs)), -names.index(name)))
        name = _free(head, used)
        used.add(name)
        found.append((name, island, f"{head} and what hangs together with it"))
    if alone:
        found.append(
            (_free("standalone", used), alone, "services that depend on nothing, and nothing on them")
        )
    return found


def _free(name: str, used: Collection[str]) -> str:
    if name not in used:
        return name
    return next(f"{name}-{number}" for number in range(2, len(used) + 3) if f"{name}-{number}" not in used)


def _connected(names: list[str], needs: Mapping[str, Iterable[str]]) -> list[list[str]]:
    inside = set(names)
    beside: dict[str, set[str]] = {name: set() for name in names}
    for name in names:
        for other in needs[name]:
            if other in inside:
                beside[name].add(other)
                beside[other].add(name)
    found, seen = [], set[str]()
    for name in names:
        if name not in seen:
            island = _reach(name, beside) | {name}
            seen |= island
            found.append([member for member in names if member in island])
    return found


def _reach(start: str, edges: Mapping[str, Iterable[str]]) -> set[str]:
    found: set[str] = set()
    open_ = [start]
    while open_:
        for name in edges.get(open_.pop(), ()):
            if name not in found:
                found.add(name)
                open_.append(name)
    return found - {start}


def _group_edges(
    members: Mapping[str, Collection[str]], needs: Mapping[str, Iterable[str]]
) -> dict[str, list[str]]:
    group_of = {name: group for group, names in members.items() for name in names}
    return {
        group: list(
            dict.fromkeys(
                group_of[other] for name in names for other in needs[name] if group_of[other] != group
            )
        )
        for group, names in members.items()
    }


def _merge_circles(
    members: dict[str, list[str]], origins: dict[str, str], needs: Mapping[str, Iterable[str]]
) -> list[str]:
    """Makes one group of each circle, under the name of its largest; says which."""
    notes = []
    while circle := find_cycle(_group_edges(members, needs)):
        names = list(dict.fromkeys(circle))
        kept = max(names, key=lambda name: (len(members[name]), name))
        others = sorted(name for name in names if name != kept)
        for name in others:
            members[kept] += members.pop(name)
        origins[kept] += f", with {' and '.join(others)}: they depend on each other in a circle"
        notes.append(f"{', '.join(others)} went into {kept}: they depend on each other in a circle")
    return notes


def _drawn(
    name: str,
    members: Mapping[str, list[str]],
    origin: str,
    needs: Mapping[str, tuple[str, ...]],
    model: Mapping[str, Mapping[str, Any]],
    used: Mapping[str, int],
) -> ProposedGroup:
    inside = set(members[name])
    # In the order in which they start; equals stay as Compose lists them.
    services = sorted_by_dependency({s: [n for n in needs[s] if n in inside] for s in members[name]})
    memory, guessed = 0, []
    for service in services:
        found = _limit(model[service] or {}, "limits") or used.get(service, 0)
        found = found or _limit(model[service] or {}, "reservations")
        if not found:
            guessed.append(service)
        memory += found or _GUESS
    depends_on = _group_edges(members, needs)[name]
    return ProposedGroup(name, services, origin, -(-memory // _MB) * _MB, tuple(guessed), tuple(depends_on))


def _limit(entry: Mapping[str, Any], kind: str) -> int:
    resources = ((entry.get("deploy") or {}).get("resources") or {}).get(kind) or {}
    own = entry.get("mem_limit" if kind == "limits" else "mem_reservation")
    text = str(own or resources.get("memory") or "0")
    return int(text) if text.isdecimal() else 0
