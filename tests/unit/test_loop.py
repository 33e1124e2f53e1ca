"""The loop on a simulated engine, in virtual time: hours of back-off pass in milliseconds."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import wraps
from typing import Any

import pytest

from reconciler import ledger as ledgers
from reconciler.desired import GroupState, Suspension
from reconciler.engine.simulated import Behaviour, Mischief
from reconciler.errors import Mistake, OutcomeUnknown, StepFailed
from reconciler.executor import Limits
from reconciler.ledger import Now
from reconciler.loop import Settings
from reconciler.observed import Action, Command, Container, Health, State
from reconciler.stack import Stack
from tests.builders import a_stack, desire, service
from tests.recorder import Bench, Recorder, bench
from tests.virtual import run_virtually

DB = service("db", check=True)
TIERS = a_stack({"main": [DB, service("app", "db:healthy"), service("web", "app")]})
ONE = a_stack({"main": [service("kafka")]})


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        run_virtually(test(*args, **kwargs))

    return run


async def up(stack: Stack, *on: str, **fields: Any) -> Bench:
    """A bench that converged with these groups on."""
    b = bench(stack, **fields)
    b.want(desire(stack, *(on or stack.groups)))
    await b.converged()
    return b


def engine(mischief: Mischief | None = None, **behaviours: Behaviour) -> Recorder:
    return Recorder(behaviours, mischief=mischief)


# --- order and speed ----------------------------------------------------------------------------


@virtual
async def test_services_are_made_at_once_and_started_in_order() -> None:
    b = await up(TIERS, engine=engine(db=Behaviour(ready_after=2.0)))
    assert b.engine.log() == ["create db", "create app", "create web", "start db", "start app", "start web"]
    assert sum(1 for _, c in b.engine.orders if c.action is Action.CREATE) == 1
    await b.end()


@virtual
async def test_readiness_is_noticed_long_before_the_engine_probes() -> None:
    b = bench(TIERS, engine=engine(db=Behaviour(ready_after=3.0)))
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
    behaviours = {f"s{i}": Behaviour(start_takes=1.0) for i in range(9)}
    flying: list[int] = []
    b = bench(many, engine=engine(**behaviours), settings=Settings(limits=Limits(start=3)))
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
    b = await up(stack, settings=Settings(limits=Limits(start=1)))
    assert b.engine.log(Action.START)[:2] == ["start z0", "start z1"]
    await b.end()


@virtual
async def test_a_group_that_needs_another_to_be_ready_starts_after_all_of_it() -> None:
    stack = a_stack({"base": [DB, service("slow", check=True)], "top needs base:ready": [service("api")]})
    b = await up(stack, engine=engine(slow=Behaviour(ready_after=20.0)))
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
    b = await up(stack, engine=engine(init=Behaviour(exits_after=4.0)))
    assert b.engine.times(Action.START, "app")[0] >= 4.0
    await asyncio.sleep(600)
    assert b.engine.log(Action.START) == ["start init", "start app"]
    view = {s.name: s for s in b.seen.groups["main"].services}
    assert view["init"].done
    assert b.seen.groups["main"].status == "running"
    assert ledgers.expected(b.loop.ledger, "init") == pytest.approx(4.0)
    await b.end()


@virtual
async def test_a_generation_is_not_converged_while_its_one_shot_runs() -> None:
    stack = a_stack({"main": [service("init"), service("app", "init:completed")]})
    b = bench(stack, engine=engine(init=Behaviour(exits_after=50.0)))
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


MEDDLING: dict[str, Callable[[Recorder], None]] = {
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
    mischief = Mischief()
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


# --- changes --------------------------------------------------------------------------------------


@virtual
async def test_a_new_definition_remakes_once_and_only_that_service() -> None:
    b = await up(TIERS)
    new = service("app", "db:healthy", config_hash="new", definition="new")
    b.want(desire(TIERS, "main"), replace(TIERS, services={**TIERS.services, "app": new}))
    await b.converged()
    await asyncio.sleep(300)
    assert b.engine.log(Action.RECREATE) == ["recreate app"]
    assert b.engine.log(Action.STOP) == ["stop app"]
    assert b.engine.up() == {"db", "app", "web"}
    await b.end()


@pytest.mark.pitfall(1)
@virtual
async def test_a_label_that_differs_from_what_was_asked_for_is_accepted_once_made() -> None:
    # PITFALLS row 1: what Compose writes for these inputs is right by definition.
    class Other(Recorder):
        def _create(self, stack: Stack, service: Any, *, recreate: bool) -> None:
            super()._create(stack, replace(service, config_hash="odd"), recreate=recreate)

    b = await up(TIERS, engine=Other())
    await asyncio.sleep(300)
    assert b.engine.log(Action.RECREATE) == []
    await b.end()


@virtual
async def test_a_remake_that_fails_does_not_pass_for_done() -> None:
    # The old container is looked at while the remake is under way, and must not get its inputs.
    b = await up(ONE)
    b.engine.alter(b.engine.containers()[0].id, config_hash="old", state=State.EXITED)
    await b.crash()
    mischief = b.engine.mischief
    mischief.fail = lambda c: StepFailed("no") if c.action is Action.RECREATE else None
    b.begin()
    new = service("kafka", definition="new", config_hash="new")
    stack = a_stack({"main": [new]})
    b.want(desire(stack, "main"), stack)
    await asyncio.sleep(0.05)
    b.loop.wake("in the middle")
    await asyncio.sleep(5)
    mischief.fail = lambda _: None
    await b.converged(400)
    assert [c.config_hash for c in b.engine.containers()] == ["new"]
    await b.end()


@virtual
async def test_a_network_that_never_comes_is_no_reason_to_remake_for_ever() -> None:
    class Offline(Recorder):
        def _create(self, stack: Stack, service: Any, *, recreate: bool) -> None:
            super()._create(stack, replace(service, networks=()), recreate=recreate)

    b = await up(ONE, engine=Offline())
    await asyncio.sleep(600)
    assert b.engine.log() == ["create kafka", "recreate kafka", "start kafka"]
    await b.end()


@virtual
async def test_a_restart_asked_for_happens_once_in_reverse_and_forward_order() -> None:
    b = await up(TIERS)
    await asyncio.sleep(5)
    done = len(b.engine.history)
    b.want(desire(TIERS, main=GroupState(on=True, restarted_at=b.engine.wall())))
    await b.converged()
    await asyncio.sleep(300)
    assert b.engine.log()[done + 2 :] == [
        *("stop web", "stop app", "stop db"),
        *("start db", "start app", "start web"),
    ]
    await b.end()


@virtual
async def test_a_restart_whose_stop_fails_is_still_carried_out() -> None:
    mischief = Mischief()
    b = await up(ONE, engine=engine(mischief))
    await asyncio.sleep(1)
    mischief.fail = lambda c: StepFailed("busy") if c.action is Action.STOP else None
    before = b.engine.containers()[0].started_at
    b.want(desire(ONE, main=GroupState(on=True, restarted_at=b.engine.wall())))
    await asyncio.sleep(3)
    mischief.fail = lambda _: None
    await b.converged(60)
    assert b.engine.containers()[0].started_at > before
    await b.end()


@virtual
async def test_a_slow_stop_of_ours_is_no_failure_however_many_passes_see_it_running() -> None:
    b = await up(ONE, engine=engine(kafka=Behaviour(stop_takes=8.0)))
    await asyncio.sleep(1)
    b.want(desire(ONE, main=GroupState(on=True, restarted_at=b.engine.wall())))
    for _ in range(5):
        await asyncio.sleep(1)
        b.loop.wake("somebody looks")
    await b.converged()
    assert b.loop.ledger.failures == {}
    assert b.loop.ledger.exits == {}
    await b.end()


@virtual
async def test_a_suspended_group_is_left_alone_until_the_very_moment_it_ends() -> None:
    b = await up(ONE)
    until = b.engine.wall() + 30
    b.want(desire(ONE, main=GroupState(on=True, suspend=Suspension(until))))
    b.engine.kill("kafka")
    orders = len(b.engine.orders)
    await asyncio.sleep(29.9)
    assert len(b.engine.orders) == orders
    assert b.seen.groups["main"].phase == "suspended"
    await asyncio.sleep(0.5)
    assert b.engine.up() == {"kafka"}
    await b.end()


@virtual
async def test_a_restart_in_the_future_happens_when_its_time_comes() -> None:
    b = await up(ONE)
    b.want(desire(ONE, main=GroupState(on=True, restarted_at=b.engine.wall() + 100)))
    await asyncio.sleep(99)
    assert b.engine.log(Action.STOP) == []
    await asyncio.sleep(2)
    assert b.engine.log(Action.STOP) == ["stop kafka"]
    assert b.engine.up() == {"kafka"}
    await b.end()


# --- back-off -------------------------------------------------------------------------------------


def gaps(times: list[float]) -> list[float]:
    return [round(b - a) for a, b in itertools.pairwise(times)]


@virtual
async def test_a_step_that_fails_is_tried_again_ever_more_rarely() -> None:
    mischief = Mischief(fail=lambda c: StepFailed("no") if c.action is Action.START else None)
    b = bench(ONE, engine=engine(mischief))
    b.want(desire(ONE, "main"))
    await asyncio.sleep(3600)
    assert gaps(b.engine.times(Action.START, "kafka"))[:11] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    await b.end()


@virtual
async def test_a_service_that_keeps_ending_is_started_at_once_the_first_time_only() -> None:
    b = bench(ONE, engine=engine(kafka=Behaviour(exits_after=0.5, exit_code=1)))
    b.want(desire(ONE, "main"))
    await asyncio.sleep(1200)
    starts = b.engine.times(Action.START, "kafka")
    assert gaps(starts)[:5] == [1, 2, 3, 5, 9]
    assert len(starts) < 16
    assert b.seen.groups["main"].phase == "degraded"
    assert not b.seen.converged
    await b.end()


@virtual
async def test_ten_minutes_of_health_make_the_next_repair_immediate_again() -> None:
    b = await up(ONE)
    for _ in range(3):
        await asyncio.sleep(20)
        b.engine.kill("kafka")
    await asyncio.sleep(20)
    assert b.loop.ledger.failures["kafka"].attempts == 3
    await asyncio.sleep(700)
    assert b.loop.ledger.failures == {}
    b.engine.kill("kafka")
    await asyncio.sleep(0.2)
    assert b.engine.up() == {"kafka"}
    await b.end()


@virtual
async def test_a_change_of_its_inputs_ends_the_back_off() -> None:
    mischief = Mischief(fail=lambda c: StepFailed("no") if c.action is Action.START else None)
    b = bench(ONE, engine=engine(mischief))
    b.want(desire(ONE, "main"))
    await asyncio.sleep(300)
    mischief.fail = lambda _: None
    stack = a_stack({"main": [service("kafka", definition="new", config_hash="new")]})
    b.want(desire(stack, "main"), stack)
    assert await b.converged() < 1
    await b.end()


@virtual
async def test_one_failing_service_delays_no_other() -> None:
    stack = a_stack({"main": [service("bad"), service("needs", "bad"), service("good"), service("best")]})
    mischief = Mischief(fail=lambda c: StepFailed("no") if c.services == ("bad",) else None)
    b = bench(stack, engine=engine(mischief))
    b.want(desire(stack, "main"))
    await asyncio.sleep(1)
    assert b.engine.up() == {"good", "best"}
    await b.until(lambda s: s.progress.state == "degraded")
    assert b.seen.observed_generation == 1
    assert not b.seen.converged
    mischief.fail = lambda _: None
    await b.converged(400)
    assert b.ended[-1].state == "converged"
    await b.end()


@virtual
async def test_one_service_that_can_not_be_made_does_not_hold_up_the_batch() -> None:
    recorder = engine()
    recorder.auto_images = False
    recorder.images = {f"{name}:1": name for name in ("bad", "good")}
    recorder.foreign = {"bad": "x"}
    stack = a_stack({"main": [service("bad"), service("good"), service("gone")]})
    b = bench(stack, engine=recorder)
    b.want(desire(stack, "main"))
    await asyncio.sleep(20)
    assert b.engine.up() == {"good"}
    reasons = {s.name: s.reason for s in b.seen.groups["main"].services}
    assert reasons == {"bad": "name_conflict", "gone": "image_unavailable", "good": "as_desired"}
    recorder.foreign.clear()
    recorder.pullable["gone:1"] = "sha"
    await b.converged(200)
    await b.end()


@pytest.mark.pitfall(23)
@virtual
async def test_an_engine_that_only_says_done_is_not_asked_in_a_tight_loop() -> None:
    class Liar(Recorder):
        async def _start(self, command: Command) -> None:
            await asyncio.sleep(0)

    b = bench(ONE, engine=Liar())
    b.want(desire(ONE, "main"))
    await asyncio.sleep(60)
    assert 3 < len(b.engine.times(Action.START, "kafka")) < 10
    assert b.seen.groups["main"].phase == "degraded"
    assert b.seen.groups["main"].reason == "no_effect"
    await b.end()


# --- an engine that is away, or says half -------------------------------------------------------------


@virtual
async def test_with_no_engine_nothing_is_sent_and_all_comes_back() -> None:
    recorder = engine()
    recorder.unavailable = True
    b = bench(ONE, engine=recorder)
    b.want(desire(ONE, "main"))
    await asyncio.sleep(300)
    assert recorder.orders == []
    assert not b.seen.engine.reachable
    assert recorder.calls < 250
    recorder.unavailable = False
    assert await b.converged() < 6
    assert b.seen.engine.reachable
    serial = b.seen.serial
    recorder.unavailable = True
    recorder._hang_up()
    await asyncio.sleep(120)
    assert not b.seen.converged
    assert b.seen.serial == serial + 1
    assert b.seen.groups["main"].services[0].status == "running"
    recorder.unavailable = False
    assert await b.converged() < 6
    assert b.engine.log() == ["create kafka", "start kafka"]
    await b.end()


@virtual
async def test_on_half_a_look_nothing_is_done_and_another_is_taken_soon() -> None:
    mischief = Mischief(partial=lambda: True)
    b = bench(ONE, engine=engine(mischief))
    b.want(desire(ONE, "main"))
    await asyncio.sleep(100)
    assert b.engine.orders == []
    assert 20 < b.engine.calls < 60
    mischief.partial = lambda: False
    assert await b.converged() < 6
    await b.end()


@virtual
async def test_half_looks_while_a_retry_is_due_are_not_taken_in_a_tight_loop() -> None:
    mischief = Mischief(fail=lambda c: StepFailed("no") if c.action is Action.START else None)
    b = bench(ONE, engine=engine(mischief))
    b.want(desire(ONE, "main"))
    await asyncio.sleep(2.5)
    mischief.partial = lambda: True
    calls = b.engine.calls
    await asyncio.sleep(60)
    assert b.engine.calls - calls < 40
    await b.end()


@virtual
async def test_an_adapter_that_breaks_does_not_end_the_loop() -> None:
    class Broken(Recorder):
        broken = True

        async def observe(self, stack: Stack, *, full: bool = False) -> Any:
            if self.broken:
                raise ZeroDivisionError
            return await super().observe(stack, full=full)

    b = bench(ONE, engine=Broken())
    b.want(desire(ONE, "main"))
    await asyncio.sleep(30)
    b.engine.broken = False  # type: ignore[attr-defined]
    assert await b.converged() < 6
    await b.end()


@pytest.mark.pitfall(9)
@virtual
async def test_a_call_that_fails_and_yet_happened_is_not_repeated() -> None:
    mischief = Mischief(lie=lambda _: OutcomeUnknown("no answer"))
    b = bench(TIERS, engine=engine(mischief))
    b.want(desire(TIERS, "main"))
    await b.converged()
    assert b.engine.log() == ["create db", "create app", "create web", "start db", "start app", "start web"]
    assert len(b.engine.orders) == 4
    await b.end()


@virtual
async def test_an_unknown_outcome_is_followed_by_a_look_and_not_by_a_repeat() -> None:
    order: list[str] = []

    class Watched(Recorder):
        async def observe(self, stack: Stack, *, full: bool = False) -> Any:
            order.append("look")
            return await super().observe(stack, full=full)

        async def act(self, command: Command, stack: Stack) -> None:
            order.append(str(command.action))
            await super().act(command, stack)

    mischief = Mischief(fail=lambda _: OutcomeUnknown("no answer"))
    b = bench(ONE, engine=Watched(mischief=mischief))
    b.want(desire(ONE, "main"))
    await asyncio.sleep(10)
    assert all(a == "look" for a, b_ in itertools.pairwise(order) if b_ == "create")
    assert 3 <= order.count("create") < 8
    mischief.fail = lambda _: None
    await b.converged(60)
    await b.end()


@virtual
async def test_a_step_is_not_sent_again_on_a_look_from_before_it_came_back() -> None:
    b = await up(ONE)
    b.engine.kill("kafka")
    for _ in range(20):
        b.loop.wake("impatience")
        await asyncio.sleep(0.005)
    await b.converged()
    assert len(b.engine.times(Action.START, "kafka")) == 2
    await b.end()


@virtual
async def test_stale_lists_delay_and_never_mislead_for_good() -> None:
    mischief = Mischief()
    b = await up(TIERS, engine=engine(mischief))
    mischief.stale = lambda: 3
    for name in ("db", "app", "web"):
        b.engine.kill(name)
        await asyncio.sleep(7)
    mischief.stale = lambda: 0
    await asyncio.sleep(65)
    await b.converged(400)
    assert b.engine.up() == {"db", "app", "web"}
    await b.end()


# --- readers ------------------------------------------------------------------------------------------


@virtual
async def test_readers_see_a_new_generation_at_once() -> None:
    b = await up(ONE)
    generation = b.want(desire(ONE))
    assert b.seen.generation == generation
    assert not b.seen.groups["main"].desired
    assert not b.seen.converged
    assert b.seen.observed_generation == generation - 1
    await b.end()


@virtual
async def test_nothing_ticks_while_something_is_waited_for() -> None:
    stack = a_stack({"main": [service("db", check=True), service("bad"), service("app", "db:healthy")]})
    mischief = Mischief(fail=lambda c: StepFailed("no") if c.services == ("bad",) else None)
    b = bench(stack, engine=engine(mischief, db=Behaviour(ready_after=500.0)))
    b.want(desire(stack, "main"))
    await asyncio.sleep(299)
    serial = b.seen.serial
    for _ in range(20):
        await asyncio.sleep(0.3)
        b.loop.wake("an event")
    assert b.seen.serial == serial
    await b.end()


@virtual
async def test_progress_goes_from_progressing_to_its_end_and_the_end_is_told_once() -> None:
    b = bench(TIERS, engine=engine(db=Behaviour(ready_after=2.0)))
    b.want(desire(TIERS, "main"))
    await asyncio.sleep(1)
    progress = b.seen.progress
    assert (progress.state, progress.done, progress.total) == ("progressing", 0, 3)
    assert b.seen.observed_generation == 0
    assert {(s.service, s.action, s.state) for s in progress.steps} >= {
        ("db", "start", "done"),
        ("app", "start", "waiting"),
    }
    await b.converged()
    await asyncio.sleep(100)
    assert [(p.generation, p.state) for p in b.ended] == [(1, "converged")]
    assert (b.seen.progress.percent, b.seen.progress.done) == (100, 3)
    await b.end()


@virtual
async def test_a_generation_that_a_newer_one_overtakes_is_superseded() -> None:
    b = bench(TIERS, engine=engine(db=Behaviour(ready_after=20.0)))
    b.want(desire(TIERS, "main"))
    await asyncio.sleep(5)
    b.want(desire(TIERS))
    await b.converged()
    assert [(p.generation, p.state) for p in b.ended] == [(1, "superseded"), (2, "converged")]
    first = b.snapshots.progress(1)
    assert first is not None
    assert first.state == "superseded"
    await b.end()


@virtual
async def test_a_blocked_group_ends_the_generation_as_degraded_with_its_reason() -> None:
    stack = a_stack({"base": [DB], "top needs base": [service("api")], "other": [service("x")]})
    b = bench(stack)
    b.want(desire(stack, "top", "other"))
    await b.until(lambda s: s.observed_generation == 1)
    assert b.engine.up() == {"x"}
    assert (b.seen.progress.state, b.seen.progress.reason) == ("degraded", "dependency_off")
    assert not b.seen.converged
    assert (b.seen.groups["top"].phase, b.seen.groups["other"].phase) == ("blocked", "converged")
    await b.end()


@virtual
async def test_suspended_groups_do_not_count_for_converged() -> None:
    stack = a_stack({"base": [DB], "other": [service("x")]})
    b = bench(stack)
    b.want(desire(stack, "other", base=GroupState(on=True, suspend=Suspension())))
    await b.converged()
    assert b.engine.up() == {"x"}
    assert b.seen.groups["base"].phase == "suspended"
    await b.end()


@virtual
async def test_mistakes_in_the_files_are_shown_and_convergence_goes_on() -> None:
    b = await up(ONE)
    b.loop.report([Mistake("groups.yaml", 1, 1, "no")])
    assert not b.seen.valid
    b.engine.kill("kafka")
    await asyncio.sleep(1)
    assert b.engine.up() == {"kafka"}
    b.loop.report([])
    assert b.seen.valid
    await b.end()


@virtual
async def test_a_loop_that_was_told_to_stop_sends_nothing_more() -> None:
    b = await up(ONE)
    b.engine.kill("kafka")
    await b.loop.stop()
    await b.task
    orders = len(b.engine.orders)
    await asyncio.sleep(5)
    assert len(b.engine.orders) == orders


# --- a daemon that dies ---------------------------------------------------------------------------------


@pytest.mark.parametrize("keeps_ledger", [True, False])
@virtual
async def test_killed_at_any_moment_the_next_daemon_brings_it_to_the_end(keeps_ledger: bool) -> None:
    new = service("db", check=True, definition="new", config_hash="new")
    changed = replace(TIERS, services={**TIERS.services, "db": new})
    for moment in range(40):
        b = bench(TIERS, engine=engine(db=Behaviour(ready_after=0.4)))
        b.want(desire(TIERS, "main"))
        await asyncio.sleep(0.02 * moment)
        if moment % 2:
            b.want(desire(changed, "main"), changed)
            await asyncio.sleep(0.01 * moment)
        await b.crash()
        if keeps_ledger:
            saved = json.loads(json.dumps(ledgers.to_json(b.loop.ledger)))
            b.ledger = ledgers.from_json(saved, Now(b.engine.wall(), asyncio.get_running_loop().time()))
        b.begin()
        b.want(desire(changed, "main"), changed)
        await b.converged()
        assert b.engine.up() == {"db", "app", "web"}
        assert len(b.engine.containers()) == 3
        # Twice only where the engine was still at it when the next daemon had its first look.
        assert len(b.engine.log(Action.RECREATE)) <= 2
        await b.end()


@virtual
async def test_a_daemon_that_comes_back_to_what_is_as_wanted_does_nothing() -> None:
    b = await up(TIERS)
    orders = len(b.engine.orders)
    for ledger in (b.loop.ledger, None):
        await b.crash()
        b.ledger = ledger
        b.begin()
        b.want(desire(TIERS, "main"))
        await b.converged()
    assert len(b.engine.orders) == orders
    await b.end()


@virtual
async def test_containers_that_compose_made_are_adopted() -> None:
    recorder = engine()
    b = await up(ONE, engine=recorder)
    assert b.loop.ledger.made[recorder.containers()[0].id].definition == "def-kafka"
    await b.crash()
    b.ledger = None
    b.begin()
    # The same inputs, hashed otherwise by a newer Compose: nothing to remake once they were adopted.
    b.want(desire(ONE, "main"))
    await b.converged()
    newer = a_stack({"main": [service("kafka", config_hash="otherwise")]})
    b.want(desire(newer, "main"), newer)
    await b.converged()
    assert recorder.log(Action.RECREATE) == []
    await b.end()


@virtual
async def test_health_that_fails_after_all_is_shown() -> None:
    b = await up(TIERS)
    db = b.engine.containers("db")[0]
    b.engine.alter(db.id, health=Health.UNHEALTHY)
    await b.until(lambda s: s.groups["main"].phase == "degraded")
    assert b.seen.groups["main"].reason == "unhealthy"
    assert b.engine.up() == {"db", "app", "web"}
    await b.end()


# --- services that are not well ------------------------------------------------------------------


@virtual
async def test_an_unhealthy_service_is_restarted_up_to_its_limit_and_no_more() -> None:
    b = await up(a_stack({"main": [DB]}))
    for _ in range(5):
        b.engine.alter(b.engine.containers("db")[0].id, health=Health.UNHEALTHY)
        await asyncio.sleep(160)
    assert b.engine.log(Action.STOP) == ["stop db"] * 3
    assert b.seen.groups["main"].reason == "unhealthy"
    assert "3 attempts" in b.seen.groups["main"].message
    await asyncio.sleep(1800)
    assert len(b.engine.log(Action.STOP)) == 4
    await b.end()


@virtual
async def test_evidence_is_kept_of_what_ends_by_itself_and_of_what_is_remade() -> None:
    kept: list[tuple[str, State, tuple[str, ...]]] = []

    async def keep(container: Container) -> None:
        await asyncio.sleep(0.5)
        kept.append((container.service, container.state, tuple(b.engine.log(Action.RECREATE))))

    b = await up(ONE, keep=keep)
    assert kept == []
    b.engine.kill("kafka", 3)
    await b.until(lambda s: not s.converged)
    await b.converged()
    # Before it is started again, or its last words would drown in the next ones.
    assert kept == [("kafka", State.EXITED, ())]
    assert b.engine.log(Action.START) == ["start kafka"] * 2
    assert b.seen.groups["main"].services[0].last_error.startswith("exited with code 3")
    changed = a_stack({"main": [replace(ONE.services["kafka"], config_hash="new", definition="new")]})
    b.want(desire(changed, "main"), changed)
    await b.converged()
    assert kept[1:] == [("kafka", State.EXITED, ())]
    assert b.engine.log(Action.RECREATE) == ["recreate kafka"]
    assert b.seen.groups["main"].services[0].last_error.startswith("exited with code 3")
    await b.end()


@pytest.mark.pitfall(36)
@virtual
@pytest.mark.parametrize("jump", [-315_000_000.0, -3600.0, 3600.0, 315_000_000.0])
async def test_a_clock_that_jumps_moves_no_container_and_no_loop(
    jump: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = await up(TIERS)
    b.want(desire(TIERS, main=GroupState(on=True, restarted_at=b.engine.wall() - 1)))
    await b.converged()
    orders, passes = len(b.engine.orders), len(b.passes)
    wall = b.engine.wall
    for target in (b.engine, b.loop):
        monkeypatch.setattr(target, "_wall", lambda: wall() + jump)
    monkeypatch.setattr(b.engine, "wall", lambda: wall() + jump)
    await asyncio.sleep(600)
    assert len(b.engine.orders) == orders
    # A resync a minute, and none of them asked for another one.
    assert len(b.passes) - passes <= 21
    b.engine.kill("app")
    await b.until(lambda s: not s.converged)
    assert await b.converged() < 5.0
    await b.end()
