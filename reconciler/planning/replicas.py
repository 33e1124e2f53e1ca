"""Assign containers to the replicas of their service. Pure.

A service with a number of replicas other than one is split into units, one per replica, named by the number
that Compose gave the container (``web#2``). Units are services of a derived stack, so every rule for one
container of one service applies to each replica. A service scaled to zero has no units while its group is on.

Containers beyond the number in the Compose file are surplus: reported, and left alone until accepted. Two
containers with one number come from an interrupted recreation (PITFALLS row 6) and stay in one unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reconciler.model.desired import Desired
from reconciler.model.ledger import Ledger
from reconciler.model.observed import Container, ObservedState, State
from reconciler.model.stack import UNIT, Service, Stack
from reconciler.planning.comparison import Comparison, compare, select

_MOST_VARIANTS = 16


@dataclass(frozen=True, slots=True)
class Units:
    """A stack by units. ``of`` names the units of each service that was split (none: scaled to zero).

    ``containers`` is by unit, each with the unit as its service; others stay under the name of their service.
    ``surplus`` is by service, in the order of removal. ``compared`` are the comparisons that the choice of
    replicas needed, by container id.
    """

    stack: Stack
    containers: Mapping[str, list[Container]]
    of: Mapping[str, tuple[str, ...]]
    surplus: Mapping[str, tuple[Container, ...]]
    compared: Mapping[str, Comparison]


def units_of(
    stack: Stack,
    desired: Desired,
    observed: ObservedState,
    ledger: Ledger,
    containers: Mapping[str, Sequence[Container]],
) -> Units | None:
    """Return the units of a stack; None if each service is one unit without surplus.

    ``containers`` holds the containers by service.
    """
    crowded = [
        name
        for name, group in containers.items()
        if len(group) > 1
        and name in stack.group_of
        and stack.services[name].replicas == 1
        and len({c.number for c in group}) > 1
    ]
    if not stack.replicated and not crowded:
        return None
    by_unit = {name: list(group) for name, group in containers.items()}
    numbers: dict[str, tuple[int, ...]] = {}
    surplus: dict[str, tuple[Container, ...]] = {}
    compared: dict[str, Comparison] = {}
    for name in (*stack.replicated, *crowded):
        service, here = stack.services[name], containers.get(name, ())
        on = desired.groups[stack.group_of[name]].on
        if service.replicas < 2 and not on:
            # All containers of a service that is off stop, whatever their number.
            continue
        by_number: dict[int, list[Container]] = {}
        for container in here:
            by_number.setdefault(container.number, []).append(container)
        kept = sorted(by_number)
        if on and len(kept) > service.replicas:
            several = {
                number: [compare(stack, service, one, observed, ledger) for one in same_number]
                for number, same_number in by_number.items()
            }
            compared |= {one.container.id: one for each in several.values() for one in each}
            kept = _kept(service, several)
        beyond = [
            c for number in sorted(by_number.keys() - set(kept), reverse=True) for c in by_number[number]
        ]
        if beyond:
            surplus[name] = tuple(beyond)
        by_unit.pop(name, None)
        if service.replicas == 1:
            by_unit[name] = [c for number in kept for c in by_number[number]]
            continue
        following = max(by_number, default=0) + 1
        missing = service.replicas - len(kept) if on else int(not kept)
        numbers[name] = (*kept, *range(following, following + missing))
        for number in kept:
            unit = f"{name}{UNIT}{number}"
            by_unit[unit] = [replace(container, service=unit) for container in by_number[number]]
    return Units(
        _by_units(stack, numbers),
        by_unit,
        {name: tuple(f"{name}{UNIT}{n}" for n in chosen) for name, chosen in numbers.items()},
        surplus,
        compared,
    )


def _kept(service: Service, by_number: Mapping[int, Sequence[Comparison]]) -> list[int]:
    """Return the replica numbers that Compose would keep, up to the number in the file.

    Compose (2.40 to 5.5) removes outdated containers first, then the highest numbers.
    """

    def rank(number: int) -> tuple[bool, bool, bool, int]:
        one = select(by_number[number])
        ending = one.container.state in {State.DEAD, State.REMOVING}
        # Compose did not create a container without a number.
        return ending, one.outdated, not number, number

    return sorted(sorted(by_number, key=rank)[: service.replicas])


def _by_units(stack: Stack, numbers: Mapping[str, tuple[int, ...]]) -> Stack:
    """Return the stack with units in place of the services in ``numbers``."""
    if not numbers:
        return stack
    key = tuple(sorted(numbers.items()))
    known = stack.variants.get(key)
    if known is None:
        if len(stack.variants) >= _MOST_VARIANTS:
            stack.variants.clear()
        known = stack.variants[key] = _derived(stack, numbers)
    return known


def _derived(stack: Stack, numbers: Mapping[str, tuple[int, ...]]) -> Stack:
    units = {name: tuple(f"{name}{UNIT}{n}" for n in chosen) for name, chosen in numbers.items()}

    def each(names: Sequence[str], *, zero: bool = False) -> tuple[str, ...]:
        """Return the units of services; with ``zero`` also services scaled to zero, by name."""
        return tuple(unit for name in names for unit in units.get(name, (name,)) or ((name,) if zero else ()))

    services: dict[str, Service] = {}
    for name, service in stack.services.items():
        used = {*service.shares, *service.volumes_from, *(d.service for d in service.depends_on)}
        if used & units.keys():
            # Compose waits for every container of a dependency, and not for one that is scaled to zero.
            depends_on = tuple(
                dependency._replace(service=unit)
                for dependency in service.depends_on
                for unit in units.get(dependency.service, (dependency.service,))
            )
            service = replace(  # noqa: PLW2901
                service,
                depends_on=depends_on,
                shares=each(service.shares, zero=True),
                # Compose takes the volumes of the first of several, which can be any number.
                volumes_from=tuple(name for name in service.volumes_from if name not in units),
            )
        # A service scaled to zero stays in the stack, without a group.
        if not units.get(name):
            services[name] = service
        for unit, number in zip(units.get(name, ()), numbers.get(name, ()), strict=True):
            own = service.name_of(number)
            services[unit] = replace(service, name=unit, container_name=own, named=True)
    groups = {name: replace(group, services=each(group.services)) for name, group in stack.groups.items()}
    return replace(stack, groups=groups, services=services)
