"""Properties of plans, for any stack, observation and ledger."""

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
class Case:
    """The five arguments of one plan."""

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
def cases(draw: st.DrawFn) -> Case:
    stack = draw(stacks())
    desired = Desired(groups={name: draw(states()) for name in stack.groups})
    result: list[Container] = []
    for one in stack.services.values():
        count = draw(st.sampled_from([0, 1, 1, 1, 2]))
        result += [draw(containers(one, number)) for number in range(count)]
    images = {s.image: f"sha-{s.image}" for s in stack.services.values() if draw(st.integers(0, 4))}
    foreign = {name: "x" for name in stack.services if not draw(st.integers(0, 9))}
    observed = ObservedState(containers=tuple(result), images=images, foreign=foreign)
    ledger = Ledger(
        made={c.id: BuiltFrom("def-" + c.service, {}, "sha-old") for c in result if draw(st.booleans())},
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
        stopped={c.id: c.started_at for c in result if not draw(st.integers(0, 3))},
        restarted={n: NOW.wall - 1 for n in stack.group_of if not draw(st.integers(0, 5))},
    )
    return Case(stack, desired, observed, ledger)


def blocked(case: Case, group: str) -> bool:
    state = case.desired.groups[group]
    needs = case.stack.groups[group].depends_on
    return state.on and not state.force and any(not case.desired.groups[n].on for n in needs)


@FIXED
@given(cases(), st.randoms(use_true_random=False))
def test_equal_arguments_give_equal_plans_in_any_order(case: Case, shuffle: random.Random) -> None:
    def mixed(mapping: Mapping[str, Any]) -> dict[str, Any]:
        items = list(mapping.items())
        shuffle.shuffle(items)
        return dict(items)

    seen = list(case.observed.containers)
    shuffle.shuffle(seen)
    again = Case(
        replace(case.stack, groups=mixed(case.stack.groups), services=mixed(case.stack.services)),
        replace(case.desired, groups=mixed(case.desired.groups)),
        replace(case.observed, containers=tuple(seen), images=mixed(case.observed.images)),
        replace(case.ledger, made=mixed(case.ledger.made), failures=mixed(case.ledger.failures)),
    )
    first = case.plan()
    assert first == case.plan() == again.plan()
    assert str(first) == str(again.plan())
    assert first.steps == again.plan().steps


@FIXED
@given(cases())
def test_every_service_has_one_plan_and_no_other_is_touched(case: Case) -> None:
    result = case.plan()
    assert set(result.services) == set(case.stack.group_of)
    assert len({step.service for step in result.steps}) == len(result.steps)
    mine = {c.id: c.service for c in case.observed.containers}
    for step in result.steps:
        assert step.service in case.stack.group_of
        assert not step.container or mine[step.container] == step.service


@FIXED
@given(cases())
def test_suspended_blocked_or_off_services_get_no_step(case: Case) -> None:
    for step in case.plan().steps:
        group = case.stack.group_of[step.service]
        state = case.desired.groups[group]
        assert not state.suspended(case.now.wall)
        assert not blocked(case, group)
        if not state.on:
            if (step.action, step.value, step.cause) == (Action.UPDATE, "no", "altered"):
                # A policy that would start it after a reboot.
                assert case.stack.restart == "managed"
                continue
            assert step.action in {Action.STOP, Action.UNPAUSE}
            assert step.cause == "unwanted"


@FIXED
@given(cases())
def test_every_unsettled_service_has_a_reason(case: Case) -> None:
    for one in case.plan().services.values():
        said = [one.step, one.wait, one.block]
        assert one.settled or any(said)
        assert sum(thing is not None for thing in said) <= 1
        for text in said:
            if text is not None:
                assert "  " not in str(text)
        if one.wait and one.wait.until is not None:
            assert one.wait.until > case.now.mono


@FIXED
@given(cases())
def test_nothing_starts_before_its_dependencies(case: Case) -> None:
    result = case.plan()
    stops = {s.container for s in result.steps if s.action is Action.STOP}
    for step in result.steps:
        if step.action is not Action.START:
            continue
        group = case.stack.groups[case.stack.group_of[step.service]]
        for dependency in case.stack.needs[step.service]:
            other = result.services[dependency.service]
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
        if not case.desired.groups[group.name].force:
            for name, strength in group.depends_on.items():
                if strength is Strength.READY:
                    plans = [result.services[n] for n in case.stack.groups[name].services]
                    assert all(v.ready or v.done for v in plans)


@FIXED
@given(cases())
def test_a_running_container_is_stopped_only_for_a_reason_and_with_a_successor(case: Case) -> None:
    result = case.plan()
    for step in result.steps:
        if step.action not in {Action.STOP, Action.REMOVE, Action.RECREATE}:
            continue
        one = result.services[step.service]
        kinds = {str(d.kind) for d in one.drifts}
        assert step.cause in {*kinds, "restart", "follows"}
        image = case.stack.services[step.service].image
        if step.cause in {"definition", "image", "altered"}:
            assert image in case.observed.images


@FIXED
@given(cases())
def test_only_a_stop_ends_a_running_container(case: Case) -> None:
    alive = {c.id for c in case.observed.containers if c.state in ALIVE}
    for step in case.plan().steps:
        if step.action in {Action.REMOVE, Action.RECREATE, Action.START}:
            assert step.container not in alive


@FIXED
@given(cases())
def test_no_step_is_taken_during_its_back_off(case: Case) -> None:
    result = case.plan()
    for step in result.steps:
        failure = case.ledger.failures.get(step.service)
        if failure is not None and failure.inputs == result.services[step.service].inputs:
            assert failure.due <= case.now.mono


@FIXED
@given(cases())
def test_an_incomplete_observation_has_no_steps_whatever_the_ledger_holds(case: Case) -> None:
    half = replace(case, observed=replace(case.observed, complete=False))
    assert half.plan() == Plan(complete=False)


# --- an obedient engine ---------------------------------------------------------------------------


def obeyed(case: Case, steps: tuple[Step, ...]) -> Case:
    """Return the case after these steps; written independently of ``dry_run`` on purpose."""
    result = {c.id: c for c in case.observed.containers if c.state is not State.REMOVING}
    images = dict(case.observed.images)
    ledger, now = case.ledger, Clock(case.now.wall + 1, case.now.mono + 1)
    for step in steps:
        one = case.stack.services[step.service]
        own = result.get(step.container)
        if step.action in {Action.PULL, Action.BUILD}:
            images[one.image] = f"sha-{one.image}"
        elif step.action in {Action.CREATE, Action.RECREATE}:
            result.pop(step.container, None)
            fresh = container(one, State.CREATED, id=f"{step.service}-{now.mono}", created_at=now.wall)
            result[fresh.id] = replace(fresh, image=images[one.image])
        elif own is None:
            raise AssertionError(f"{step} is for a container that is not there")
        elif step.action is Action.REMOVE:
            del result[own.id]
        else:
            result[own.id] = changed(own, step, now)
            if step.action is Action.STOP:
                ledger = replace(ledger, stopped={**ledger.stopped, own.id: own.started_at})
    seen = tuple(aged(c, case.stack, now) for c in result.values())
    observed = replace(case.observed, containers=seen, images=images)
    return replace(case, observed=observed, ledger=ledger, now=now)


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
    """Return the container after a while: checks succeed, one-shots exit, crash loops end."""
    if own.state is State.RESTARTING:
        own = replace(own, state=State.RUNNING)
    if own.state is State.RUNNING and own.started_at < now.wall:
        if own.service in stack.one_shots:
            return replace(own, state=State.EXITED, exit_code=0)
        return replace(own, health=Health.HEALTHY if own.check else Health.NONE)
    return own


@FIXED
@given(cases())
def test_an_obedient_engine_settles_in_a_bounded_number_of_passes(case: Case) -> None:
    foreign: dict[str, str] = {}
    case = replace(
        case,
        desired=replace(
            case.desired, groups={n: replace(s, suspend=None) for n, s in case.desired.groups.items()}
        ),
        observed=replace(case.observed, foreign=foreign),
    )
    services = len(case.stack.services)
    steps = 0
    for _ in range(40 + 8 * services):
        result = case.plan()
        steps += len(result.steps)
        case = obeyed(case, result.steps)
    assert steps <= 10 * services
    plans = case.plan().services
    for name, one in plans.items():
        if one.wait is None:
            assert one.settled or one.block, name
        elif one.wait.reason != "dependency_ended":
            # A service that still waits depends on a stuck one.
            assert one.wait.reason in {"dependency_not_ready", "group_not_ready"}, name
            assert any(not plans[other].settled for other in one.wait.on), name


@FIXED
@given(cases())
def test_no_step_is_repeated_after_it_succeeds(case: Case) -> None:
    # The next observation shows the effect of a step, so the same step never follows.
    result = case.plan()
    again = obeyed(case, result.steps).plan()
    assert not set(result.steps) & set(again.steps)


# --- scale ----------------------------------------------------------------------------------------


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
    """Return the number of Python function calls of one plan, which does not depend on the load."""
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
def test_the_cost_of_a_plan_is_linear(down: bool) -> None:
    counts = []
    for groups in (100, 300):
        stack, desired, observed = grid(groups)
        if down:
            observed = replace(observed, containers=())
        counts.append(operations(stack, desired, observed) / (groups * 10))
    assert counts[1] < 1.1 * counts[0]
    assert counts[1] < 150
