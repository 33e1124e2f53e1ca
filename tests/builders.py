"""Small stacks, containers and looks for tests, written the way one would say them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.desired import Desired, GroupState
from reconciler.ledger import Ledger, Now
from reconciler.observed import Container, Health, Observed, State
from reconciler.plan import Plan, plan
from reconciler.stack import Condition, Dependency, Group, HealthCheck, Service, Stack, Strength

NOW = Now(wall=1_000_000.0, mono=1_000.0)
STARTED, HEALTHY, COMPLETED = Condition.STARTED, Condition.HEALTHY, Condition.COMPLETED
CHECK = HealthCheck(("true",), interval=30.0, timeout=5.0)


def service(name: str, *needs: str, check: bool = False, **fields: Any) -> Service:
    """A service; ``needs`` are names, with ``:healthy`` or ``:completed`` behind for other conditions."""
    dependencies = []
    for need in needs:
        other, _, how = need.partition(":")
        condition = {"": STARTED, "healthy": HEALTHY, "completed": COMPLETED, "restart": STARTED}[how]
        dependencies.append(Dependency(other, condition, restart=how == "restart"))
    values: dict[str, Any] = {
        "container_name": name,
        "image": f"{name}:1",
        "config_hash": f"hash-{name}",
        "definition": f"def-{name}",
        "fields": {"image": "1", "environment.A": "1"},
        "restart": "unless-stopped",
        "networks": ("net",),
        "check": CHECK if check else None,
    }
    return Service(name=name, depends_on=tuple(dependencies), **{**values, **fields})


def a_stack(groups: Mapping[str, list[Service]], *unmanaged: Service, **fields: Any) -> Stack:
    """A stack of groups of services; a group's key may say what it needs: ``"b needs a, c:ready"``."""
    made = {}
    for key, members in groups.items():
        name, _, needs = key.partition(" needs ")
        depends_on = {}
        for need in filter(None, needs.split(", ")):
            other, _, strength = need.partition(":")
            depends_on[other] = Strength(strength or "on")
        made[name] = Group(name=name, services=tuple(s.name for s in members), depends_on=depends_on)
    services = {s.name: s for members in groups.values() for s in members}
    services |= {s.name: s for s in unmanaged}
    return Stack(name="test", groups=made, services=services, **fields)


def desire(stack: Stack, *on: str, generation: int = 1, **states: GroupState) -> Desired:
    """The groups named are on, those given as states are as given, all others are off."""
    groups = {name: GroupState(on=name in on) for name in stack.groups}
    return Desired(groups={**groups, **states}, generation=generation)


def container(of: Service, state: State = State.RUNNING, **fields: Any) -> Container:
    """A container made from the service as it is, healthy where it has a check."""
    alive = state in {State.RUNNING, State.PAUSED, State.RESTARTING}
    health = Health.HEALTHY if of.check and alive else Health.STARTING if of.check else Health.NONE
    values: dict[str, Any] = {
        "id": f"id-{of.name}",
        "name": of.container_name,
        "service": of.name,
        "state": state,
        "health": health,
        "image": f"sha-{of.image}",
        "config_hash": of.config_hash,
        "restart": of.restart,
        "networks": of.networks,
        "check": of.check.test if of.check else (),
        "started_at": 0.0 if state is State.CREATED else 999_000.0,
    }
    return Container(**{**values, **fields})


def look(stack: Stack, *containers: Container, **fields: Any) -> Observed:
    """One complete look in which every image is there."""
    images = {s.image: f"sha-{s.image}" for s in stack.services.values()}
    return Observed(**{"containers": tuple(containers), "images": images, **fields})


def planned(
    stack: Stack, desired: Desired, observed: Observed, ledger: Ledger | None = None, now: Now = NOW
) -> Plan:
    """``plan`` with an empty ledger and a fixed time unless told otherwise."""
    return plan(stack, desired, observed, ledger or Ledger(), now)
