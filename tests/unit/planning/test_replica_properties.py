"""Properties of services with 0 to 3 replicas and any number of existing containers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.model.desired import Desired, GroupState
from reconciler.model.ledger import Clock, Ledger
from reconciler.model.observed import ALIVE, Action, Container, Health, ObservedState, State
from reconciler.model.stack import Condition, Dependency, Service, Stack
from reconciler.planning.planner import Plan, Step, plan
from reconciler.planning.record_observation import mark_settled, record_observation
from reconciler.planning.rules.service import PAUSE_SECONDS
from tests.support.fixtures.builders import CHECK, NOW, a_stack, container, service

FIXED = settings(derandomize=True, deadline=None, max_examples=50)
NAMES = ("a", "b", "c", "d")
ON_THEIR_WAY_OUT = {State.DEAD, State.REMOVING}


@dataclass(frozen=True)
class World:
    """All arguments of one decision; a pass records its observation first."""

    stack: Stack
    desired: Desired
    observed: ObservedState
    ledger: Ledger = field(default_factory=Ledger)
    now: Clock = NOW

    def decide(self) -> tuple[Plan, World]:
        ledger = record_observation(
            self.stack, self.desired, self.observed, self.ledger, self.now, chance=0.5
        )
        result = plan(self.stack, self.desired, self.observed, ledger, self.now)
        return result, replace(self, ledger=mark_settled(ledger, result))

    def of(self, name: str) -> list[Container]:
        return [c for c in self.observed.containers if c.service == name]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    services: list[Service] = []
    for index, name in enumerate(NAMES[: draw(st.integers(1, len(NAMES)))]):
        needed = draw(st.sets(st.sampled_from(NAMES[:index]), max_size=2)) if index else set()
        conditions = st.sampled_from([Condition.STARTED, Condition.HEALTHY])
        needs = tuple(Dependency(other, draw(conditions), draw(st.booleans())) for other in sorted(needed))
        made = service(name, replicas=draw(st.integers(0, 3)))
        check = draw(st.sampled_from([None, CHECK]))
        services.append(replace(made, depends_on=needs, check=check))
    stack = a_stack({"main": services})
    result = []
    for one in services:
        for number in sorted(draw(st.sets(st.integers(1, 5), max_size=4))):
            state = draw(st.sampled_from([State.RUNNING, *State]))
            state = State.EXITED if state is State.UNKNOWN else state
            result.append(
                container(
                    one,
                    state,
                    id=f"{one.name}-{number}",
                    name=one.name_of(number),
                    number=number,
                    config_hash=draw(st.sampled_from([one.config_hash, one.config_hash, "old"])),
                    created_at=1.0,
                )
            )
            if not draw(st.integers(0, 9)):
                left = f"ab12_{one.name_of(number)}"
                result.append(
                    replace(result[-1], id=f"{one.name}-{number}-new", name=left, state=State.CREATED)
                )
    images = {s.image: f"sha-{s.image}" for s in services}
    return World(
        stack,
        Desired(groups={"main": GroupState(on=True)}),
        ObservedState(containers=tuple(result), images=images),
    )


def obeyed(world: World, steps: tuple[Step, ...]) -> World:
    """Return the world after these steps and one second in which health checks succeed."""
    result = {c.id: c for c in world.observed.containers if c.state is not State.REMOVING}
    now, ledger = Clock(world.now.wall + 1, world.now.mono + 1), world.ledger
    for step in steps:
        one, own = world.stack.services[step.service], result.get(step.container)
        taken = [c.number for c in result.values() if c.service == step.service]
        if step.action in {Action.CREATE, Action.RECREATE}:
            number = own.number if own else max(taken, default=0) + 1
            result.pop(step.container, None)
            id_ = f"{one.name}-{number}-{now.mono}"
            made = container(one, State.CREATED, id=id_, name=one.name_of(number), number=number)
            result[id_] = replace(made, created_at=now.wall)
            continue
        assert own is not None
        match step.action:
            case Action.REMOVE:
                assert own.state not in ALIVE
                del result[own.id]
            case Action.START:
                health = Health.HEALTHY if own.check else Health.NONE
                result[own.id] = replace(own, state=State.RUNNING, started_at=now.wall, health=health)
            case Action.STOP:
                result[own.id] = replace(own, state=State.EXITED)
                ledger = replace(ledger, stopped={**ledger.stopped, own.id: own.started_at})
            case Action.UNPAUSE:
                result[own.id] = replace(own, state=State.RUNNING)
            case Action.RENAME:
                result[own.id] = replace(own, name=step.value)
            case other:
                raise AssertionError(other)
    seen = [replace(c, state=State.RUNNING) if c.state is State.RESTARTING else c for c in result.values()]
    observed = replace(world.observed, containers=tuple(sorted(seen, key=lambda c: c.id)))
    return replace(world, observed=observed, ledger=ledger, now=now)


def at_rest(world: World) -> tuple[Plan, World]:
    """Return the plan that stays without a step for longer than a paused container waits; a round is 1 s."""
    idle = 0
    for _ in range(80 + 80 * len(world.stack.services)):
        result, world = world.decide()
        idle = 0 if result.steps else idle + 1
        if idle > PAUSE_SECONDS + 5:
            return result, world
        world = obeyed(world, result.steps)
    raise AssertionError("never comes to rest")


@FIXED
@given(worlds())
def test_every_unit_gets_one_step_and_no_container_more_than_one(world: World) -> None:
    result, _ = world.decide()
    assert len({step.key for step in result.steps}) == len(result.steps)
    acted_on = [step.container for step in result.steps if step.container]
    assert len(set(acted_on)) == len(acted_on)
    mine = {c.id: c.service for c in world.observed.containers}
    assert all(mine[step.container] == step.service for step in result.steps if step.container)
    again = replace(world, observed=replace(world.observed, containers=world.observed.containers[::-1]))
    assert again.decide()[0] == result


@FIXED
@given(worlds())
def test_the_desired_number_starts_and_no_replica_is_removed(world: World) -> None:
    result, after = at_rest(world)
    for name, service_ in world.stack.services.items():
        before = {c.number for c in world.of(name) if c.state not in ON_THEIR_WAY_OUT}
        ran = {c.number for c in world.of(name) if c.state in ALIVE}
        containers = after.of(name)
        running = [c for c in containers if c.state in ALIVE]
        beyond = {d.container for d in result.services[name].drifts}
        numbers = [c.number for c in containers if c.id not in beyond]
        assert len(set(numbers)) == len(numbers), "no second container of a replica"
        assert len(containers) >= max(len(before), service_.replicas)
        assert len(running) >= max(len(ran), service_.replicas)
        current = [c for c in running if c.config_hash == service_.config_hash and c.state is State.RUNNING]
        assert len(current) >= service_.replicas
        one = result.services[name]
        assert one.ready == (service_.replicas > 0)
        assert one.settled or one.block


@FIXED
@given(worlds())
def test_once_approved_the_number_is_that_of_the_file(world: World) -> None:
    _, seen = world.decide()
    accepted = Desired(groups={"main": GroupState(on=True, accepted_at=NOW.wall + 1)})
    result, after = at_rest(replace(seen, desired=accepted, now=Clock(NOW.wall + 60, NOW.mono + 60)))
    for name, service_ in world.stack.services.items():
        assert len(after.of(name)) == service_.replicas
        assert result.services[name].settled
        assert not result.services[name].drifts


@FIXED
@given(worlds())
def test_all_replicas_stop_with_the_group(world: World) -> None:
    off = replace(world, desired=Desired(groups={"main": GroupState(on=False)}))
    result, after = at_rest(off)
    assert not [c for c in after.observed.containers if c.state in ALIVE]
    assert all(one.settled for one in result.services.values())
    assert len(after.observed.containers) >= len(
        [c for c in world.observed.containers if c.state is not State.REMOVING]
    )


@FIXED
@given(worlds())
def test_ready_replicas_are_recreated_one_at_a_time(world: World) -> None:
    for _ in range(60):
        result, world = world.decide()
        for name, service_ in world.stack.services.items():
            stops = [
                s.container
                for s in result.steps
                if s.service == name and s.action is Action.STOP and s.cause == "definition"
            ]
            ready = [c for c in world.of(name) if c.id in stops and c.health is not Health.STARTING]
            running = [c for c in ready if c.state is State.RUNNING]
            assert len(running) <= 1 or service_.replicas < 2
        world = obeyed(world, result.steps)
