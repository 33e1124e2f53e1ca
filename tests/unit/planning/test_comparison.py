"""Each container is compared once per plan, and no rule depends on when it runs."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.controller.step_outcomes import StepContext, StepTracker
from reconciler.model.desired import Desired, GroupState
from reconciler.model.ledger import BuiltFrom, HeldChange, Ledger, Mounted
from reconciler.model.observed import Container, Health, HostPath, ObservedState, State
from reconciler.model.stack import Mount, Service, Stack
from reconciler.planning import comparison, context
from reconciler.planning.comparison import compare
from reconciler.planning.context import compare_services
from reconciler.planning.gates import PlanInputs
from reconciler.planning.planner import plan, plan_in_order
from tests.support.fixtures.builders import NOW, a_stack, container, desire, look, service
from tests.unit.planning.test_plan_properties import FIXED, Case, cases

DB = service("db", check=True, mounts=(Mount("bind", "/etc/db", "/host/db"),))
WEB = service("web", "db:healthy", "db:restart")
STACK = a_stack({"main": [DB, WEB]})
FILE = HostPath("file", "one", "1:1", 1.0)
RESTART = GroupState(on=True, restarted_at=NOW.wall - 1)


def seen(*containers: Container, digest: str = "one") -> ObservedState:
    return look(STACK, *containers, sources={"/host/db": FILE._replace(digest=digest)})


def made(of: Container) -> BuiltFrom:
    return BuiltFrom("def-db", {}, of.image, mounts={"/host/db": Mounted("file", "one", "1:1")})


def reporting(stack: Stack) -> Stack:
    groups = {name: replace(group, on_change="report") for name, group in stack.groups.items()}
    return replace(stack, groups=groups)


ON = desire(STACK, "main")
RUNS, UP = container(DB), container(WEB)
OLD = container(DB, config_hash="old")
CHANGED = Ledger(changes={"db": HeldChange("another change", NOW.wall)})
BEFORE = Ledger(made={RUNS.id: made(RUNS)})

SCENARIOS: dict[str, tuple[Stack, Desired, ObservedState, Ledger]] = {
    "settled": (STACK, ON, seen(RUNS, UP), BEFORE),
    "stopped": (STACK, ON, seen(container(DB, State.EXITED), UP), Ledger()),
    "created": (STACK, ON, seen(container(DB, State.CREATED), container(WEB, State.CREATED)), Ledger()),
    "restarting": (STACK, ON, seen(container(DB, State.RESTARTING), UP), Ledger()),
    "restart requested": (STACK, desire(STACK, main=RESTART), seen(RUNS, UP), Ledger()),
    "parent restarted": (STACK, ON, seen(container(DB, started_at=NOW.wall), UP), Ledger()),
    "unhealthy": (STACK, ON, seen(container(DB, health=Health.UNHEALTHY), UP), Ledger()),
    "changed definition": (STACK, ON, seen(OLD, UP), Ledger()),
    "changed definition, stopped": (
        STACK,
        ON,
        seen(container(DB, State.EXITED, config_hash="old"), UP),
        Ledger(),
    ),
    "changed image": (STACK, ON, seen(container(DB, image="sha-old"), UP), Ledger()),
    "changed mount": (STACK, ON, seen(RUNS, UP, digest="two"), BEFORE),
    "held back": (reporting(STACK), ON, seen(OLD, UP), CHANGED),
    "held back, restart requested": (reporting(STACK), desire(STACK, main=RESTART), seen(OLD, UP), CHANGED),
    "altered": (STACK, ON, seen(container(DB, name="x", restart="no", networks=()), UP), Ledger()),
    "duplicate": (STACK, ON, seen(RUNS, container(DB, id="second", config_hash="old"), UP), Ledger()),
    "off": (STACK, desire(STACK), seen(RUNS, UP), Ledger()),
    "incomplete": (STACK, ON, replace(seen(RUNS, UP), complete=False), Ledger()),
}


class Counts:
    """Counts the evaluations of each part of a comparison by container id."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.of: dict[str, Counter[str]] = {}
        for name in ("same_definition", "same_image", "missing_networks", "changed_mounts"):
            self._count(monkeypatch, comparison, name)
        for name in ("compare", "stale_namespaces", "_restarted_parent", "change_fingerprint"):
            self._count(monkeypatch, context, name)

    def _count(self, monkeypatch: pytest.MonkeyPatch, module: object, name: str) -> None:
        original: Callable[..., Any] = getattr(module, name)
        counter = self.of[name] = Counter()

        def counted(*arguments: Any) -> Any:
            flat = [a.container if isinstance(a, comparison.Comparison) else a for a in arguments]
            counter[next(a.id for a in flat if isinstance(a, Container))] += 1
            return original(*arguments)

        monkeypatch.setattr(module, name, counted)

    @property
    def most(self) -> int:
        """The number of evaluations of the part and the container that has most."""
        return max((count for counter in self.of.values() for count in counter.values()), default=0)


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS.keys())
def test_each_container_is_compared_once_per_pass(
    scenario: tuple[Stack, Desired, ObservedState, Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack, desired, observed, ledger = scenario
    counts = Counts(monkeypatch)
    made = plan(stack, desired, observed, ledger, NOW)
    grounds = StepContext(stack, desired, observed, made)
    for step in made.steps:
        # The record of what a new container is made from reads the comparison of the one it replaces.
        ledger = StepTracker().before_send(ledger, step, grounds, NOW)
    assert counts.most <= 1
    wanted = observed.complete and desired.groups["main"].on
    assert set(counts.of["compare"]) == ({c.id for c in observed.containers} if wanted else set())


def test_surplus_replicas_are_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    web = service("web", replicas=2, container_name="web-1")
    stack = a_stack({"main": [web]})
    here = [container(web, id=f"id-{n}", name=f"web-{n}", number=n, config_hash=f"{n}") for n in range(1, 5)]
    counts = Counts(monkeypatch)
    from_replicas = Counter[str]()

    def counted(stack: Stack, of: Service, one: Container, *rest: Any) -> Any:
        from_replicas[one.id] += 1
        return compare(stack, of, one, *rest)

    monkeypatch.setattr("reconciler.planning.replicas.compare", counted)
    plan(stack, desire(stack, "main"), look(stack, *here), Ledger(), NOW)
    assert from_replicas == dict.fromkeys((c.id for c in here), 1)
    assert counts.of["compare"] == {}
    assert counts.most == 1


@FIXED
@given(cases())
def test_no_container_is_compared_twice_in_any_plan(case: Case) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        counts = Counts(monkeypatch)
        case.plan()
        assert counts.most <= 1


def another_start_order(stack: Stack, chance: random.Random) -> list[str]:
    """Return a random start order in which each service still follows all that it depends on."""
    needs = {name: {d.service for d in stack.needs[name]} for name in stack.order}
    for group in stack.groups.values():
        for other in group.depends_on:
            for name in group.services:
                needs[name] |= set(stack.groups[other].services)
    order: list[str] = []
    while len(order) < len(needs):
        ready = [name for name in needs if name not in order and needs[name] <= set(order)]
        order.append(chance.choice(ready))
    return order


@FIXED
@given(cases(), st.randoms(use_true_random=False))
def test_a_plan_does_not_depend_on_the_choice_among_start_orders(case: Case, chance: random.Random) -> None:
    # Services that share a missing image wait for the first one that fetches it; give each its own.
    own = {name: replace(of, image=f"{name}:1") for name, of in case.stack.services.items()}
    stack = replace(case.stack, services=own)
    inputs = PlanInputs(stack, case.desired, case.observed, case.ledger, case.now)
    by_service: dict[str, list[Container]] = {}
    for one in case.observed.containers:
        by_service.setdefault(one.service, []).append(one)
    compared = compare_services(inputs, by_service, {})
    expected = plan_in_order(compared, stack.order)
    assert plan_in_order(compared, another_start_order(stack, chance)) == expected


def test_a_rule_can_change_neither_the_comparison_nor_earlier_plans() -> None:
    compared = compare_services(PlanInputs(STACK, ON, seen(RUNS, UP), Ledger(), NOW), {}, {})
    with pytest.raises(FrozenInstanceError):
        compared.stopping = set()  # type: ignore[misc]
