"""Compare two desired states and describe the differences for people. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields

from reconciler.model.canonical import compared_fields
from reconciler.model.desired import GroupState, Suspension
from reconciler.model.stack import Group, Service, Stack
from reconciler.model.units import format_time


def meaning_digest(stack: Stack, groups: Mapping[str, GroupState]) -> str:
    """Return the SHA-256 (hex) of what matters to the loop: states with equal digests are one generation.

    Compose version, file locations and comments are left out.
    """
    desired = json.dumps(dict(groups), default=_fields, sort_keys=True)
    return hashlib.sha256(f'{{"desired": {desired}, {stack.canonical_json[1:]}'.encode()).hexdigest()


def _fields(state: GroupState | Suspension) -> dict[str, object]:
    return {f.name: getattr(state, f.name) for f in fields(state)}


def differences(
    before: tuple[Stack, Mapping[str, GroupState]], after: tuple[Stack, Mapping[str, GroupState]]
) -> Iterator[str]:
    """Yield one line per difference: switched groups first, then stack and services."""
    old, new = before[1], after[1]
    for name in new:
        yield from _state_lines(name, old.get(name), new[name])
    yield from (f"{name}: removed" for name in old if name not in new)
    yield from _stack_lines(before[0], after[0])
    yield from _service_lines(before[0].services, after[0].services)


def _state_lines(name: str, old: GroupState | None, new: GroupState) -> Iterator[str]:
    if old is None:
        yield f"{name}: new group, {_switch(new)}"
        return
    if old.on != new.on:
        yield f"{name}: {_switch(old)} → {_switch(new)}"
    if old.force != new.force:
        yield f"{name}: {'forced' if new.force else 'no longer forced'}"
    if old.suspend != new.suspend:
        yield f"{name}: {_suspension(new)}"
    if new.restarted_at and old.restarted_at != new.restarted_at:
        yield f"{name}: restarted at {format_time(new.restarted_at)}"
    if new.accepted_at and old.accepted_at != new.accepted_at:
        yield f"{name}: changes accepted at {format_time(new.accepted_at)}"


def _switch(state: GroupState) -> str:
    return "on" if state.on else "off"


def _suspension(state: GroupState) -> str:
    if state.suspend is None:
        return "no longer suspended"
    until = f" until {format_time(state.suspend.until)}" if state.suspend.until else ""
    return f"suspended{until}" + (f" ({state.suspend.reason})" if state.suspend.reason else "")


def _stack_lines(old: Stack, new: Stack) -> Iterator[str]:
    for name in ("name", "prune", "restart"):
        if getattr(old, name) != getattr(new, name):
            yield f"stack: {name} {_plain(getattr(old, name))} → {_plain(getattr(new, name))}"
    if old.pilot != new.pilot:
        yield "stack: pilot changed"
    for name, group in new.groups.items():
        if name in old.groups and old.groups[name] != group:
            yield f"{name}: {', '.join(_changed(old.groups[name], group))} changed in stack.yaml"
    if tuple(old.groups) != tuple(new.groups) and set(old.groups) == set(new.groups):
        yield "stack: order of groups changed"


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _changed(old: Group, new: Group) -> Iterator[str]:
    return (f.name for f in fields(Group) if getattr(old, f.name) != getattr(new, f.name))


def _service_lines(old: Mapping[str, Service], new: Mapping[str, Service]) -> Iterator[str]:
    for name, service in new.items():
        if name not in old:
            yield f"{name}: new service"
        elif old[name] is not service and compared_fields(old[name]) != compared_fields(service):
            yield f"{name}: {', '.join(_service_fields(old[name], service)) or 'definition'} changed"
    yield from (f"{name}: service removed" for name in old if name not in new)


def _service_fields(old: Service, new: Service) -> Iterator[str]:
    paths = sorted(old.fields.keys() | new.fields.keys())
    yield from (path for path in paths if old.fields.get(path) != new.fields.get(path))
    if old.replicas != new.replicas:
        yield f"number of replicas ({old.replicas} → {new.replicas})"
    yield from (
        n for n in ("depends_on", "pull_policy", "mounts", "contents") if getattr(old, n) != getattr(new, n)
    )
