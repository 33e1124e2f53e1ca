"""The loop on a simulated engine, in virtual time: order, speed and drift."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from reconciler.controller.executor import Concurrency
from reconciler.controller.loop_hooks import LoopTimings
from reconciler.engine.simulated.scripts import ContainerScript, FaultInjection
from reconciler.model.capabilities import ALL, Capability
from reconciler.model.ledger_updates import expected_start_time
from reconciler.model.observed import Action, State
from tests.support.fixtures.builders import a_stack, desire, service
from tests.support.fixtures.control_loop import DB, ONE, TIERS, engine, up, virtual
from tests.support.fixtures.recording_engine import RecordingEngine, bench

# --- order and speed ----------------------------------------------------------------------------


@virtual
async def test_containers_are_created_at_once_and_started_in_order() -> None:
    b = await up(TIERS, engine=engine(db=ContainerScript(ready_after=2.0)))
    assert b.engine.log() == ["create db", "create app", "create web", "start db", "start app", "start web"]
    assert sum(1 for _, c in b.engine.orders if c.action is Action.CREATE) == 1
    await b.end()


@virtual
async def test_readiness_is_noticed_long_before_the_probe_of_the_engine() -> None:
    b = bench(TIERS, engine=engine(db=ContainerScript(ready_after=3.0)))
    b.want(desire(TIERS, "main"))
    assert await b.converged() < 5.0
    await b.end()


@virtual
async def test_stop_runs_in_reverse_order() -> None:
    b = await up(TIERS)
    b.want(desire(TIERS))
    await b.converged()
    assert b.engine.log(Action.STOP) == ["stop web", "stop app", "stop db"]
    assert b.engine.up() == set()
    await b.end()


@virtual
async def test_independent_services_start_in_parallel_within_the_limit() -> None:
    many = a_stack({"main": [service(f"s{i}") for i in range(9)]})
    behaviours = {f"s{i}": ContainerScript(start_takes=1.0) for i in range(9)}
    flying: list[int] = []
    b = bench(many, engine=engine(**behaviours), timings=LoopTimings(limits=Concurrency(start=3)))
    b.want(desire(many, "main"))
    took = await b.until(
        lambda s: flying.append(sum(v.step == "start" for v in s.groups["main"].services)) or s.converged
    )
    assert max(flying) == 3
    assert took < 4.0
    await b.end()


@virtual
async def test_heaviest_chain_starts_first() -> None:
    chain = [service("a0"), service("a1"), service("z0"), service("z1", "z0"), service("z2", "z1")]
    stack = a_stack({"main": chain})
    b = await up(stack, timings=LoopTimings(limits=Concurrency(start=1)))
    assert b.engine.log(Action.START)[:2] == ["start z0", "start z1"]
    await b.end()


@virtual
async def test_group_that_needs_a_ready_group_starts_after_all_of_its_services() -> None:
    stack = a_stack({"base": [DB, service("slow", check=True)], "top needs base:ready": [service("api")]})
    b = await up(stack, engine=engine(slow=ContainerScript(ready_after=20.0)))
    assert b.engine.log(Action.START)[-1] == "start api"
    assert b.engine.times(Action.START, "api")[0] >= 20.0
    b.want(desire(stack))
    await b.converged()
    assert b.engine.log(Action.STOP)[0] == "stop api"
    await b.end()


@pytest.mark.pitfall(21)
@virtual
async def test_one_shot_runs_once_before_its_dependents() -> None:
    stack = a_stack({"main": [service("init"), service("app", "init:completed")]})
    b = await up(stack, engine=engine(init=ContainerScript(exits_after=4.0)))
    assert b.engine.times(Action.START, "app")[0] >= 4.0
    await asyncio.sleep(600)
    assert b.engine.log(Action.START) == ["start init", "start app"]
    view = {s.name: s for s in b.seen.groups["main"].services}
    assert view["init"].done
    assert b.seen.groups["main"].status == "running"
    assert expected_start_time(b.loop.ledger, "init") == pytest.approx(4.0)
    await b.end()


@virtual
async def test_generation_is_not_converged_while_its_one_shot_runs() -> None:
    stack = a_stack({"main": [service("init"), service("app", "init:completed")]})
    b = bench(stack, engine=engine(init=ContainerScript(exits_after=50.0)))
    b.want(desire(stack, "main"))
    await asyncio.sleep(40)
    assert b.seen.progress.state == "progressing"
    assert not b.seen.converged
    await b.converged()
    await b.end()


@virtual
async def test_service_without_restart_policy_starts_again_with_its_group() -> None:
    stack = a_stack({"main": [service("db", restart="no")]})
    b = await up(stack)
    b.want(desire(stack))
    await b.converged()
    b.want(desire(stack, "main"))
    await b.converged()
    assert b.engine.up() == {"db"}
    await b.end()


# --- drift ----------------------------------------------------------------------------------------


@virtual
async def test_killed_container_is_restarted_at_once_by_its_event() -> None:
    b = await up(ONE)
    await asyncio.sleep(30)
    b.engine.kill("kafka")
    assert await b.until(lambda s: not s.converged) == 0.0
    assert await b.until(lambda s: s.converged) < 0.2
    await b.end()


MEDDLING: dict[str, Callable[[RecordingEngine], None]] = {
    "killed": lambda e: e.kill("kafka"),
    "paused": lambda e: e.alter(e.containers()[0].id, state=State.PAUSED),
    "removed": lambda e: e.drop(e.containers()[0].id),
    "renamed": lambda e: e.alter(e.containers()[0].id, name="odd"),
    "policy": lambda e: e.alter(e.containers()[0].id, restart="always"),
    "cut off": lambda e: e.alter(e.containers()[0].id, networks=()),
    "dead": lambda e: e.alter(e.containers()[0].id, state=State.DEAD),
    "duplicate": lambda e: e.add(replace(e.containers()[0], id="zzz", name="copy")),
    "new image": lambda e: e.tag("kafka:1", "sha256:new"),
}


@pytest.mark.parametrize("how", MEDDLING)
@virtual
async def test_drift_is_repaired_by_event_and_only_once(how: str) -> None:
    b = await up(ONE)
    await asyncio.sleep(1)
    b.engine.doubled.add("kafka")
    MEDDLING[how](b.engine)
    await b.until(lambda s: not s.converged)
    assert await b.converged() < (31.5 if how == "paused" else 1.5)
    (left,) = b.engine.containers()
    assert (left.name, left.state, left.restart) == ("kafka", State.RUNNING, "unless-stopped")
    assert (left.networks, left.image) == (("net",), b.engine.images["kafka:1"])
    orders = len(b.engine.orders)
    await asyncio.sleep(200)
    assert len(b.engine.orders) == orders
    await b.end()


@virtual
async def test_container_revived_by_an_engine_restart_is_stopped_if_its_group_is_off() -> None:
    stack = a_stack({"on": [service("a")], "off": [service("b", restart="always")]})
    b = await up(stack)
    b.want(desire(stack, "on"))
    await b.converged()
    b.engine.restart()
    assert b.engine.up() == {"a", "b"}
    await asyncio.sleep(1)
    assert b.engine.up() == {"a"}
    assert b.seen.converged
    await b.end()


@virtual
async def test_containers_that_an_engine_restart_leaves_stopped_start_in_order() -> None:
    plain = {name: replace(s, restart="no") for name, s in TIERS.services.items()}
    b = await up(replace(TIERS, services=plain))
    done = len(b.engine.history)
    b.engine.restart()
    await asyncio.sleep(3)
    assert b.engine.log()[done + 2 :] == ["start db", "start app", "start web"]
    await b.end()


@virtual
async def test_service_that_is_off_is_stopped_after_a_manual_start() -> None:
    b = await up(ONE)
    b.want(desire(ONE))
    await b.converged()
    b.engine.alter(b.engine.containers()[0].id, state=State.RUNNING)
    await b.until(lambda s: not s.converged)
    assert await b.converged() < 0.5
    assert b.engine.up() == set()
    await b.end()


@virtual
async def test_resync_repairs_after_lost_events() -> None:
    mischief = FaultInjection()
    b = await up(ONE, engine=engine(mischief))
    await asyncio.sleep(1)
    mischief.mute = lambda _: True
    b.engine.kill("kafka")
    await asyncio.sleep(50)
    assert b.engine.up() == set()
    await asyncio.sleep(15)
    assert b.engine.up() == {"kafka"}
    await b.end()


@virtual
async def test_pass_without_work_costs_one_call_and_publishes_nothing() -> None:
    b = await up(TIERS)
    await asyncio.sleep(1)
    calls, serial, passes = b.engine.calls, b.seen.serial, len(b.passes)
    b.loop.wake("an event")
    await asyncio.sleep(1)
    assert (b.engine.calls - calls, len(b.passes) - passes) == (1, 1)
    assert b.passes[-1] == "idle"
    assert b.seen.serial == serial
    await b.end()


@virtual
async def test_idle_loop_observes_once_per_resync() -> None:
    b = await up(TIERS)
    await asyncio.sleep(35)
    calls = b.engine.calls
    await asyncio.sleep(600)
    assert b.engine.calls - calls == 10
    await b.end()


@virtual
async def test_each_pause_is_repaired_after_30_seconds() -> None:
    # The step equals the previous one, but that one did have an effect.
    b = await up(ONE)
    for _ in range(4):
        await asyncio.sleep(5)
        MEDDLING["paused"](b.engine)
        await asyncio.sleep(29)
        assert b.engine.containers()[0].state is State.PAUSED
        await asyncio.sleep(1.5)
        assert b.engine.containers()[0].state is State.RUNNING
        assert b.engine.up() == {"kafka"}
    assert b.loop.ledger.failures == {}
    await b.end()


@virtual
async def test_without_probes_readiness_is_the_engine_s() -> None:
    without_probes = engine()
    without_probes.can = ALL - {Capability.PROBE}
    b = bench(a_stack({"main": [DB]}), engine=without_probes)
    b.want(desire(b.stack, "main"))
    # The simulated engine reports health after a whole interval of 30 s.
    assert await b.converged() > 29.0
    assert not any(container.probed for container in b.loop.observed.containers)
    await b.end()
