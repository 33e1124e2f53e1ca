"""Laws of the decision, for any stack, any look and any memory that Hypothesis can think of."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.model.backoff import Failure
from reconciler.model.desired import Desired, GroupState, Suspension
from reconciler.model.ledger import BuiltFrom, Clock, Ledger
from reconciler.model.observed import ALIVE, Action, Container, Health, ObservedState, State
from reconciler.model.stack import Condition, Dependency, Service, Stack, Strength
from reconciler.planning.container_state import is_ready
from reconciler.planning.fingerprints import attempt_fingerprint
from reconciler.planning.planner import Plan, Step, plan
from tests.support.fixtures.builders import CHECK, NOW, a_stack, container, service

FIXED = settings(derandomize=True, deadline=None, max_examples=100)
NAMES = ("a", "b", "c", "d", "e", "f", "g", "h")
CONDITIONS = st.sampled_from(list(Condition))


@dataclass(frozen=True)
class World:
    """All five arguments of one decision."""

    stack: Stack
    desired: Desired
    observed: ObservedState
    ledger: Ledger
    now: Clock = NOW

    def plan(self) -> Plan:
        return plan(self.stack, self.desired, self.observed, self.ledger, self.now)


@st.composite
def stacks(draw: st.DrawFn) -> Stack:
    count = draw(st.integers(1, len(NAMES)))
    services: list[Service] = []
    for index, name in enumerate(NAMES[:count]):
        needed = draw(st.sets(st.sampled_from(NAMES[:index]), max_size=2)) if index else set()
        needs = tuple(
            Dependency(
                other, draw(CONDITIONS), draw(st.booleans()), draw(st.sampled_from([True, True, False]))
            )
            for other in sorted(needed)
        )
        made = service(name, image=draw(st.sampled_from([f"{name}:1", "shared:1"])))
        services.append(
            replace(
                made,
                depends_on=needs,
                check=draw(st.sampled_from([None, CHECK])),
                restart=draw(st.sampled_from(["no", "always", "unless-stopped"])),
                has_build=draw(st.booleans()),
                pull_policy=draw(st.sampled_from(["", "never"])),
            )
        )
    # Groups take the services in order, so that nothing can depend on something later.
    cuts = sorted(draw(st.sets(st.integers(1, count), max_size=3)) | {0, count})
    groups: dict[str, list[Service]] = {}
    for number, (low, high) in enumerate(pairwise(cuts)):
        earlier = [f"g{i}" for i in range(number)]
        chosen = draw(st.sets(st.sampled_from(earlier), max_size=2)) if earlier else set()
        needs_groups = [f"{other}:{draw(st.sampled_from(['on', 'ready']))}" for other in sorted(chosen)]
        key = f"g{number}" + (f" needs {', '.join(needs_groups)}" if needs_groups else "")
        groups[key] = services[low:high]
    return a_stack(groups, service("stranger", "a"), restart=draw(st.sampled_from(["compose", "managed"])))


@st.composite
def states(draw: st.DrawFn) -> GroupState:
    return GroupState(
        on=draw(st.booleans()),
        force=draw(st.booleans()),
        suspend=draw(st.sampled_from([None, None, Suspension(), Suspension(NOW.wall + 9)])),
        restarted_at=draw(st.sampled_from([None, None, NOW.wall - 1, NOW.wall + 9])),
    )


@st.composite
def containers(draw: st.DrawFn, of: Service, number: int) -> Container:
    state = draw(st.sampled_from(list(State)))
    return container(
        of,
        state,
        id=f"{of.name}-{number}",
        name=draw(st.sampled_from([of.container_name, of.container_name, "odd"])),
        health=draw(st.sampled_from(list(Health))) if of.check else Health.NONE,
        probed=draw(st.booleans()),
        config_hash=draw(st.sampled_from([of.config_hash, of.config_hash, "old"])),
        image=draw(st.sampled_from([f"sha-{of.image}", f"sha-{of.image}", "sha-old"])),
        restart=draw(st.sampled_from([of.restart, "on-failure"])),
        networks=draw(st.sampled_from([of.networks, of.networks, ()])),
        exit_code=draw(st.sampled_from([0, 1])),
        started_at=draw(st.sampled_from([0.0, NOW.wall - 2, NOW.wall])),
        created_at=draw(st.sampled_from([1.0, 2.0])),
    )


@st.composite
def worlds(draw: st.DrawFn) -> World:
    stack = draw(stacks())
    desired = Desired(groups={name: draw(states()) for name in stack.groups})
    found: list[Container] = []
    for one in stack.services.values():
        count = draw(st.sampled_from([0, 1, 1, 1, 2]))
        found += [draw(containers(one, number)) for number in range(count)]
    images = {s.image: f"sha-{s.image}" for s in stack.services.values() if draw(st.integers(0, 4))}
    foreign = {name: "x" for name in stack.services if not draw(st.integers(0, 9))}
    observed = ObservedState(containers=tuple(found), images=images, foreign=foreign)
    ledger = Ledger(
        made={c.id: BuiltFrom("def-" + c.service, {}, "sha-old") for c in found if draw(st.booleans())},
        failures={
            name: Failure(
                draw(st.integers(1, 5)),
                NOW.mono + draw(st.sampled_from([-1.0, 5.0])),
                draw(
                    st.sampled_from(
                        [attempt_fingerprint(stack.services[name], desired.groups[g], observed), "off"]
                    )
                ),
                "step_failed",
                "no",
                0.0,
            )
            for name, g in stack.group_of.items()
            if not draw(st.integers(0, 3))
        },
        stopped={c.id: c.started_at for c in found if not draw(st.integers(0, 3))},
        restarted={n: NOW.wall - 1 for n in stack.group_of if not draw(st.integers(0, 5))},
    )
    return World(stack, desired, observed, ledger)


def blocked(world: World, group: str) -> bool:
    state = world.desired.groups[group]
    needs = world.stack.groups[group].depends_on
    return state.on and not state.force and any(not world.desired.groups[n].on for n in needs)


@FIXED
@given(worlds(), st.randoms(use_true_random=False))
def test_the_same_arguments_give_the_same_plan_in_whatever_order_they_come(
    world: World, shuffle: random.Random
) -> None:
    def mixed(mapping: Mapping[str, Any]) -> dict[str, Any]:
        items = list(mapping.items())
        shuffle.shuffle(items)
        return dict(items)

    seen = list(world.observed.containers)
    shuffle.shuffle(seen)
    again = World(
        replace(world.stack, groups=mixed(world.stack.groups), services=mixed(world.stack.services)),
        replace(world.desired, groups=mixed(world.desired.groups)),
        replace(world.observed, containers=tuple(seen), images=mixed(world.observed.images)),
        replace(world.ledger, made=mixed(world.ledger.made), failures=mixed(world.ledger.failures)),
    )
    first = world.plan()
    assert first == world.plan() == again.plan()
    assert str(first) == str(again.plan())
    assert first.steps == again.plan().steps


@FIXED
@given(worlds())
def test_every_service_has_one_plan_and_no_other_is_touched(world: World) -> None:
    found = world.plan()
    assert set(found.services) == set(world.stack.group_of)
    assert len({step.service for step in found.steps}) == len(found.steps)
    mine = {c.id: c.service for c in world.observed.containers}
    for step in found.steps:
        assert step.service in world.stack.group_of
        assert not step.container or mine[step.container] == step.service


@FIXED
@given(worlds())
def test_suspended_blocked_or_off_services_get_no_step(world: World) -> None:
    for step in world.plan().steps:
        group = world.stack.group_of[step.service]
        state = world.desired.groups[group]
        assert not state.suspended(world.now.wall)
        assert not blocked(world, group)
        if not state.on:
            if (step.action, step.value, step.cause) == (Action.UPDATE, "no", "altered"):
                # A policy that would bring it back after a reboot.
                assert world.stack.restart == "managed"
                continue
            assert step.action in {Action.STOP, Action.UNPAUSE}
            assert step.cause == "unwanted"


@FIXED
@given(worlds())
def test_every_open_service_has_a_reason(world: World) -> None:
    for one in world.plan().services.values():
        said = [one.step, one.wait, one.block]
        assert one.settled or any(said)
        assert sum(thing is not None for thing in said) <= 1
        for text in said:
            if text is not None:
                assert "  " not in str(text)
        if one.wait and one.wait.until is not None:
            assert one.wait.until > world.now.mono


@FIXED
@given(worlds())
def test_nothing_starts_before_what_it_depends_on(world: World) -> None:
    found = world.plan()
    stops = {s.container for s in found.steps if s.action is Action.STOP}
    for step in found.steps:
        if step.action is not Action.START:
            continue
        group = world.stack.groups[world.stack.group_of[step.service]]
        for dependency in world.stack.needs[step.service]:
            other = found.services[dependency.service]
            if not other.wanted or not dependency.required:
                continue
            seen = other.container
            assert seen is not None
            assert seen.id not in stops
            if dependency.condition is Condition.COMPLETED:
                assert other.done
            elif dependency.condition is Condition.STARTED:
                assert seen.state is State.RUNNING or other.done
            else:
                assert is_ready(seen)
        if not world.desired.groups[group.name].force:
            for name, strength in group.depends_on.items():
                if strength is Strength.READY:
                    plans = [found.services[n] for n in world.stack.groups[name].services]
                    assert all(v.ready or v.done for v in plans)


@FIXED
@given(worlds())
def test_what_runs_is_stopped_for_a_reason_and_never_to_be_worse_off(world: World) -> None:
    found = world.plan()
    for step in found.steps:
        if step.action not in {Action.STOP, Action.REMOVE, Action.RECREATE}:
            continue
        one = found.services[step.service]
        kinds = {str(d.kind) for d in one.drifts}
        assert step.cause in {*kinds, "restart", "follows"}
        image = world.stack.services[step.service].image
        if step.cause in {"definition", "image", "altered"}:
            assert image in world.observed.images


@FIXED
@given(worlds())
def test_only_a_stop_takes_down_what_runs(world: World) -> None:
    alive = {c.id for c in world.observed.containers if c.state in ALIVE}
    for step in world.plan().steps:
        if step.action in {Action.REMOVE, Action.RECREATE, Action.START}:
            assert step.container not in alive


@FIXED
@given(worlds())
def test_a_step_waits_out_its_back_off(world: World) -> None:
    found = world.plan()
    for step in found.steps:
        failure = world.ledger.failures.get(step.service)
        if failure is not None and failure.inputs == found.services[step.service].inputs:
            assert failure.due <= world.now.mono


@FIXED
@given(worlds())
def test_an_incomplete_look_leads_to_nothing_whatever_else_is_known(world: World) -> None:
    half = replace(world, observed=replace(world.observed, complete=False))
    assert half.plan() == Plan(complete=False)


# --- an engine that obeys -------------------------------------------------------------------------


def obeyed(world: World, steps: tuple[Step, ...]) -> World:
    """The world after these steps: a second writing of what each verb means, on purpose."""
    found = {c.id: c for c in world.observed.containers if c.state is not State.REMOVING}
    images = dict(world.observed.images)
    ledger, now = world.ledger, Clock(world.now.wall + 1, world.now.mono + 1)
    for step in steps:
        one = world.stack.services[step.service]
        own = found.get(step.container)
        if step.action in {Action.PULL, Action.BUILD}:
            images[one.image] = f"sha-{one.image}"
        elif step.action in {Action.CREATE, Action.RECREATE}:
            found.pop(step.container, None)
            fresh = container(one, State.CREATED, id=f"{step.service}-{now.mono}", created_at=now.wall)
            found[fresh.id] = replace(fresh, image=images[one.image])
        elif own is None:
            raise AssertionError(f"{step} is for a container that is not there")
        elif step.action is Action.REMOVE:
            del found[own.id]
        else:
            found[own.id] = changed(own, step, now)
            if step.action is Action.STOP:
                ledger = replace(ledger, stopped={**ledger.stopped, own.id: own.started_at})
    seen = tuple(aged(c, world.stack, now) for c in found.values())
    observed = replace(world.observed, containers=seen, images=images)
    return replace(world, observed=observed, ledger=ledger, now=now)


def changed(own: Container, step: Step, now: Clock) -> Container:
    if step.action is Action.START:
        health = Health.STARTING if own.check else Health.NONE
        return replace(own, state=State.RUNNING, started_at=now.wall, health=health, probed=False)
    if step.action is Action.STOP:
        return replace(own, state=State.EXITED, exit_code=0)
    if step.action is Action.UNPAUSE:
        return replace(own, state=State.RUNNING)
    if step.action is Action.RENAME:
        return replace(own, name=step.value)
    assert step.action is Action.UPDATE
    return replace(own, restart=step.value)


def aged(own: Container, stack: Stack, now: Clock) -> Container:
    """What time alone does: checks succeed, one-shots end, crash loops come to rest."""
    if own.state is State.RESTARTING:
        own = replace(own, state=State.RUNNING)
    if own.state is State.RUNNING and own.started_at < now.wall:
        if own.service in stack.one_shots:
            return replace(own, state=State.EXITED, exit_code=0)
        return replace(own, health=Health.HEALTHY if own.check else Health.NONE)
    return own


@FIXED
@given(worlds())
def test_an_engine_that_obeys_is_brought_to_rest_in_a_bounded_number_of_passes(world: World) -> None:
    foreign: dict[str, str] = {}
    world = replace(
        world,
        desired=replace(
            world.desired, groups={n: replace(s, suspend=None) for n, s in world.desired.groups.items()}
        ),
        observed=replace(world.observed, foreign=foreign),
    )
    services = len(world.stack.services)
    steps = 0
    for _ in range(40 + 8 * services):
        found = world.plan()
        steps += len(found.steps)
        world = obeyed(world, found.steps)
    assert steps <= 10 * services
    plans = world.plan().services
    for name, one in plans.items():
        if one.wait is None:
            assert one.settled or one.block, name
        elif one.wait.reason != "dependency_ended":
            # What still waits does so for something that is stuck itself.
            assert one.wait.reason in {"dependency_not_ready", "group_not_ready"}, name
            assert any(not plans[other].settled for other in one.wait.on), name


@FIXED
@given(worlds())
def test_a_plan_that_was_carried_out_is_not_asked_for_again(world: World) -> None:
    # Whatever a step did, the next look shows it: the same step for the same container never follows.
    found = world.plan()
    again = obeyed(world, found.steps).plan()
    assert not set(found.steps) & set(again.steps)


# --- scale --------------------------------------------------------------------------------------------


def grid(groups: int) -> tuple[Stack, Desired, ObservedState]:
    members = {}
    for g in range(groups):
        names = [f"s{g}-{i}" for i in range(10)]
        key = f"g{g}" + (f" needs g{g - 1}:ready" if g % 10 else "")
        members[key] = [service(n, *([f"{names[i - 1]}:healthy"] if i else [])) for i, n in enumerate(names)]
    stack = a_stack(members)
    desired = Desired(groups={name: GroupState(on=True) for name in stack.groups})
    seen = tuple(container(s) for s in stack.services.values())
    return (
        stack,
        desired,
        ObservedState(containers=seen, images={s.image: f"sha-{s.image}" for s in stack.services.values()}),
    )


def operations(stack: Stack, desired: Desired, observed: ObservedState) -> int:
    """How many calls of Python functions one decision takes: a measure that no busy machine changes."""
    count = 0

    def counted(*_: object) -> None:
        nonlocal count
        count += 1

    plan(stack, desired, observed, Ledger(), NOW)
    sys.setprofile(counted)
    try:
        plan(stack, desired, observed, Ledger(), NOW)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("down", [False, True])
def test_the_cost_of_a_decision_grows_with_the_stack_and_no_faster(down: bool) -> None:
    counts = []
    for groups in (100, 300):
        stack, desired, observed = grid(groups)
        if down:
            observed = replace(observed, containers=())
        counts.append(operations(stack, desired, observed) / (groups * 10))
    assert counts[1] < 1.1 * counts[0]
    assert counts[1] < 150
