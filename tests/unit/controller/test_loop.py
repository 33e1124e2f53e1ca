"""The loop on a simulated engine, in virtual time: order, speed, and what drifts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from reconciler.controller.executor import Concurrency
from reconciler.controller.loop import LoopTimings
from reconciler.engine.simulated.engine import ContainerScript, FaultInjection
from reconciler.model.ledger_updates import expected_start_time
from reconciler.model.observed import Action, State
from tests.support.fixtures.builders import a_stack, desire, service
from tests.support.fixtures.control_loop import DB, ONE, TIERS, engine, up, virtual
from tests.support.fixtures.recording_engine import RecordingEngine, bench

# --- order and speed ----------------------------------------------------------------------------


@virtual
async def test_services_are_made_at_once_and_started_in_order() -> None:
    b = await up(TIERS, engine=engine(db=ContainerScript(ready_after=2.0)))
    assert b.engine.log() == ["create db", "create app", "create web", "start db", "start app", "start web"]
    assert sum(1 for _, c in b.engine.orders if c.action is Action.CREATE) == 1
    await b.end()


@virtual
async def test_readiness_is_noticed_long_before_the_engine_probes() -> None:
    b = bench(TIERS, engine=engine(db=ContainerScript(ready_after=3.0)))
    b.want(desire(TIERS, "main"))
    assert await b.converged() < 5.0
    await b.end()


@virtual
async def test_a_stop_goes_in_reverse_order() -> None:
    b = await up(TIERS)
    b.want(desire(TIERS))
    await b.converged()
    assert b.engine.log(Action.STOP) == ["stop web", "stop app", "stop db"]
    assert b.engine.up() == set()
    await b.end()


@virtual
async def test_independent_services_start_side_by_side_within_the_limit() -> None:
    many = a_stack({"main": [service(f"s{i}") for i in range(9)]})
    behaviours = {f"s{i}": ContainerScript(start_takes=1.0) for i in range(9)}
    flying: list[int] = []
    b = bench(many, engine=engine(**behaviours), settings=LoopTimings(limits=Concurrency(start=3)))
    b.want(desire(many, "main"))
    took = await b.until(
        lambda s: flying.append(sum(v.step == "start" for v in s.groups["main"].services)) or s.converged
    )
    assert max(flying) == 3
    assert took < 4.0
    await b.end()


@virtual
async def test_the_heaviest_chain_is_started_first() -> None:
    chain = [service("a0"), service("a1"), service("z0"), service("z1", "z0"), service("z2", "z1")]
    stack = a_stack({"main": chain})
    b = await up(stack, settings=LoopTimings(limits=Concurrency(start=1)))
    assert b.engine.log(Action.START)[:2] == ["start z0", "start z1"]
    await b.end()


@virtual
async def test_a_group_that_needs_another_to_be_ready_starts_after_all_of_it() -> None:
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
async def test_a_one_shot_runs_once_and_what_waits_for_it_comes_after() -> None:
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
async def test_a_generation_is_not_converged_while_its_one_shot_runs() -> None:
    stack = a_stack({"main": [service("init"), service("app", "init:completed")]})
    b = bench(stack, engine=engine(init=ContainerScript(exits_after=50.0)))
    b.want(desire(stack, "main"))
    await asyncio.sleep(40)
    assert b.seen.progress.state == "progressing"
    assert not b.seen.converged
    await b.converged()
    await b.end()


@virtual
async def test_a_service_without_restart_policy_comes_back_when_its_group_does() -> None:
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
async def test_a_killed_container_runs_again_at_once_and_by_event() -> None:
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
async def test_drift_is_repaired_by_event_and_then_left_alone(how: str) -> None:
    b = await up(ONE)
    await asyncio.sleep(1)
    b.engine.doubled.add("kafka")
    MEDDLING[how](b.engine)
    await b.until(lambda s: not s.converged)
    assert await b.converged() < 1.5
    (left,) = b.engine.containers()
    assert (left.name, left.state, left.restart) == ("kafka", State.RUNNING, "unless-stopped")
    assert (left.networks, left.image) == (("net",), b.engine.images["kafka:1"])
    orders = len(b.engine.orders)
    await asyncio.sleep(200)
    assert len(b.engine.orders) == orders
    await b.end()


@virtual
async def test_what_an_engine_revives_when_it_restarts_is_stopped_again_where_it_is_off() -> None:
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
async def test_what_an_engine_does_not_revive_when_it_restarts_is_started_in_order() -> None:
    plain = {name: replace(s, restart="no") for name, s in TIERS.services.items()}
    b = await up(replace(TIERS, services=plain))
    done = len(b.engine.history)
    b.engine.restart()
    await asyncio.sleep(3)
    assert b.engine.log()[done + 2 :] == ["start db", "start app", "start web"]
    await b.end()


@virtual
async def test_what_is_off_is_stopped_again_when_somebody_starts_it() -> None:
    b = await up(ONE)
    b.want(desire(ONE))
    await b.converged()
    b.engine.alter(b.engine.containers()[0].id, state=State.RUNNING)
    await b.until(lambda s: not s.converged)
    assert await b.converged() < 0.5
    assert b.engine.up() == set()
    await b.end()


@virtual
async def test_when_events_are_lost_the_resync_repairs() -> None:
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
async def test_a_pass_woken_by_an_event_with_nothing_to_do_costs_one_call_and_shows_nothing_new() -> None:
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
async def test_an_idle_loop_asks_once_per_resync() -> None:
    b = await up(TIERS)
    await asyncio.sleep(35)
    calls = b.engine.calls
    await asyncio.sleep(600)
    assert b.engine.calls - calls == 10
    await b.end()


@virtual
async def test_a_mended_pause_is_mended_again_at_once() -> None:
    # The step is the same as the one before, and yet it is not one that had no effect.
    b = await up(ONE)
    for _ in range(4):
        await asyncio.sleep(5)
        MEDDLING["paused"](b.engine)
        await asyncio.sleep(0.1)
        assert b.engine.up() == {"kafka"}
    assert b.loop.ledger.failures == {}
    await b.end()
