"""Check references between values and files: unknown names, shared services, cycles, missing groups.

The checks use the plain values with their positions, not the models of ``schema``: a model exists only for a
valid file, and a mistake in one place (such as an unknown key) must not hide the others. Values of an
unexpected type are skipped; ``schema`` reports them.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping
from graphlib import CycleError
from typing import Any

from reconciler.desired_state.schema import name_problem
from reconciler.errors import Mistake
from reconciler.host.yaml_positions import Document, Path
from reconciler.model.dependency_order import find_cycle
from reconciler.model.stack import Condition, Service, Stack


def check_stack(stack: Document) -> Iterator[Mistake]:
    """Yield mistakes between the values of ``stack.yaml``."""
    groups = _mapping(stack.plain, "groups")
    for name in groups:
        if isinstance(name, str) and (problem := name_problem(name)):
            message = f"the group name {name!r} {problem}, so nothing could address the group"
            yield stack.mistake(("groups", name), message, key=True)
        for needed, path in _dependencies(stack, name):
            if needed == name:
                yield stack.mistake(path, f"the group {name!r} depends on itself", key=True)
            elif needed not in groups:
                yield stack.mistake(path, _unknown("group", needed, groups), key=True)
    yield from _group_cycle(stack, groups)
    yield from _shared_services(stack, groups)
    for index, needed in enumerate(_list(_mapping(stack.plain, "pilot").get("groups"))):
        if needed not in groups:
            yield stack.mistake(("pilot", "groups", index), _unknown("group", needed, groups))


def check_services(stack: Document, known: Collection[str]) -> Iterator[Mistake]:
    """Yield services of ``stack.yaml`` that no Compose file has (``known``: those of the Compose files)."""
    for name in _mapping(stack.plain, "groups"):
        for service, path in _services(stack, name):
            if service not in known:
                yield stack.mistake(path, f"{_unknown('service', service, known)} (no Compose file has it)")


def check_kinds(stack: Document, services: Mapping[str, Service]) -> Iterator[Mistake]:
    """Yield entries of ``services`` that no Compose file has, or whose kind contradicts a dependency."""
    for name, entry in _mapping(stack.plain, "services").items():
        path: Path = ("services", name)
        if name not in services:
            message = f"{_unknown('service', name, services)} (no Compose file has it)"
            yield stack.mistake(path, message, key=True)
            continue
        waiting = sorted(
            other.name
            for other in services.values()
            for dependency in other.depends_on
            if dependency.service == name and dependency.condition is Condition.COMPLETED
        )
        if waiting and isinstance(entry, dict) and entry.get("kind") == "service":
            message = f"{waiting[0]} waits for {name} to complete, which kind: service rules out"
            yield stack.mistake((*path, "kind"), message)


def check_groups(stack: Document, groups: Document) -> Iterator[Mistake]:
    """Yield groups that ``groups.yaml`` lacks and groups that ``stack.yaml`` lacks."""
    known = _mapping(stack.plain, "groups")
    named = _mapping(groups.plain, "groups")
    for name in named:
        if name not in known:
            yield groups.mistake(("groups", name), _unknown("group", name, known), key=True)
    missing = ", ".join(name for name in known if name not in named)
    if missing:
        yield groups.mistake(
            ("groups",),
            f"every group of stack.yaml is named here, also those that are off; missing: {missing}",
            key=True,
        )


def check_order(document: Document, stack: Stack) -> Iterator[Mistake]:
    """Yield a mistake for a cycle through dependencies of services and groups that must be ready."""
    try:
        _ = stack.order
    except CycleError as error:
        cycle = tuple(reversed(error.args[1]))
        needed = next((name.removeprefix("group ") for name in cycle if " " in name), "")
        dependent = next((name for name, group in stack.groups.items() if needed in group.depends_on), needed)
        path: Path = ("groups", dependent, "depends_on") if dependent else ("compose",)
        yield document.mistake(path, f"these wait for each other, so none could start: {_arrows(cycle)}")


def check_alternatives(document: Document, services: Mapping[str, Service]) -> Iterator[Mistake]:
    """Yield services that share a ``container_name`` within one group: they could never be on together."""
    for group in _mapping(document.plain, "groups"):
        users: dict[str, str] = {}
        for name, path in _services(document, group):
            service = services.get(name)
            if service is None or not service.named or not service.replicas:
                continue
            other = users.setdefault(service.container_name, name)
            if other != name:
                message = (
                    f"{name} and {other} have the same container_name {service.container_name}, so they are "
                    "alternatives: put them into different groups"
                )
                yield document.mistake(path, message)


def _group_cycle(stack: Document, groups: Iterable[str]) -> Iterator[Mistake]:
    known = set(groups)
    edges = {
        name: [needed for needed, _ in _dependencies(stack, name) if needed in known and needed != name]
        for name in known
    }
    cycle = find_cycle({name: edges[name] for name in sorted(edges)})
    if cycle:
        first = cycle[0]
        path = next(path for needed, path in _dependencies(stack, first) if needed == cycle[1])
        message = f"these groups depend on each other in a circle: {_arrows(cycle)}"
        yield stack.mistake(path, message, key=True)


def _shared_services(stack: Document, groups: Iterable[str]) -> Iterator[Mistake]:
    seen: dict[str, tuple[str, Path]] = {}
    for group in groups:
        for service, path in _services(stack, group):
            if service not in seen:
                seen[service] = (group, path)
                continue
            other, first = seen[service]
            position = stack.at(first)
            where = "twice in this group" if other == group else f"also in the group {other!r}"
            message = (
                f"the service {service!r} is {where} (line {position.line}, column {position.column}); "
                "one group can have it"
            )
            yield stack.mistake(path, message)


def _services(stack: Document, group: str) -> Iterator[tuple[str, Path]]:
    entry = _mapping(_mapping(stack.plain, "groups"), group)
    for index, service in enumerate(_list(entry.get("services"))):
        if isinstance(service, str):
            yield service, ("groups", group, "services", index)


def _dependencies(stack: Document, group: str) -> Iterator[tuple[str, Path]]:
    needed = _mapping(_mapping(stack.plain, "groups"), group).get("depends_on")
    path: Path = ("groups", group, "depends_on")
    steps: Iterable[tuple[Any, Any]] = ((name, name) for name in needed) if isinstance(needed, dict) else ()
    if isinstance(needed, list):
        steps = ((name, index) for index, name in enumerate(needed))
    for name, step in steps:
        if isinstance(name, str):
            yield name, (*path, step)


def _mapping(value: Any, key: str) -> dict[str, Any]:
    inner = value.get(key) if isinstance(value, dict) else None
    return inner if isinstance(inner, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _unknown(kind: str, name: object, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(name), list(known), 1)
    return f"unknown {kind} {str(name)!r}" + (f"; did you mean {close[0]!r}?" if close else "")


def _arrows(cycle: Iterable[str]) -> str:
    return " → ".join(cycle)
