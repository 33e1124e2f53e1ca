"""The loop on a simulated engine: hours of back-off pass in milliseconds."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from typing import Any

import pytest

from reconciler.controller.ledger_codec import decode_ledger, encode_ledger
from reconciler.engine.simulated.engine import ContainerScript, FaultInjection
from reconciler.errors import OutcomeUnknown, StepFailed
from reconciler.model.desired import GroupState
from reconciler.model.ledger import Clock
from reconciler.model.observed import Action, Command, Container, Health, State
from reconciler.model.stack import Stack
from tests.support.fixtures.builders import a_stack, desire, service
from tests.support.fixtures.control_loop import DB, ONE, TIERS, engine, up, virtual
from tests.support.fixtures.recording_engine import RecordingEngine, bench

# --- back-off -------------------------------------------------------------------------------------


def gaps(times: list[float]) -> list[float]:
    return [round(b - a) for a, b in itertools.pairwise(times)]


@virtual
async def test_a_step_that_fails_is_tried_again_ever_more_rarely() -> None:
    mischief = FaultInjection(fail=lambda c: StepFailed("no") if c.action is Action.START else None)
    b = bench(ONE, engine=engine(mischief))
    b.want(desire(ONE, "main"))
    await asyncio.sleep(3600)
    assert gaps(b.engine.times(Action.START, "kafka"))[:11] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    await b.end()


@virtual
async def test_a_service_that_keeps_ending_is_started_at_once_the_first_time_only() -> None:
    b = bench(ONE, engine=engine(kafka=ContainerScript(exits_after=0.5, exit_code=1)))
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
    mischief = FaultInjection(fail=lambda c: StepFailed("no") if c.action is Action.START else None)
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
    mischief = FaultInjection(fail=lambda c: StepFailed("no") if c.services == ("bad",) else None)
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
    class Liar(RecordingEngine):
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
    mischief = FaultInjection(partial=lambda: True)
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
    mischief = FaultInjection(fail=lambda c: StepFailed("no") if c.action is Action.START else None)
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
    class Broken(RecordingEngine):
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
async def test_a_failed_look_is_logged_once_per_error_until_one_succeeds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(RecordingEngine):
        error: Exception | None = ZeroDivisionError("first")

        async def observe(self, stack: Stack, *, full: bool = False) -> Any:
            if self.error is not None:
                raise self.error
            return await super().observe(stack, full=full)

    def logged() -> list[str]:
        return [r.message for r in caplog.records if r.message.startswith("observing the engine failed")]

    engine = Broken()
    b = bench(ONE, engine=engine)
    b.want(desire(ONE, "main"))
    await asyncio.sleep(60)
    assert len(logged()) == 1
    engine.error = StepFailed("half an answer")
    await asyncio.sleep(60)
    engine.error = ZeroDivisionError("first")
    await asyncio.sleep(60)
    assert len(logged()) == 2
    engine.error = None
    await b.converged()
    engine.error = ZeroDivisionError("first")
    await asyncio.sleep(120)
    assert len(logged()) == 3
    await b.end()


@virtual
async def test_a_call_that_fails_and_yet_happened_is_not_repeated() -> None:
    mischief = FaultInjection(lie=lambda _: OutcomeUnknown("no answer"))
    b = bench(TIERS, engine=engine(mischief))
    b.want(desire(TIERS, "main"))
    await b.converged()
    assert b.engine.log() == ["create db", "create app", "create web", "start db", "start app", "start web"]
    assert len(b.engine.orders) == 4
    await b.end()


@virtual
async def test_an_unknown_outcome_is_followed_by_a_look_and_not_by_a_repeat() -> None:
    order: list[str] = []

    class Watched(RecordingEngine):
        async def observe(self, stack: Stack, *, full: bool = False) -> Any:
            order.append("look")
            return await super().observe(stack, full=full)

        async def act(self, command: Command, stack: Stack) -> None:
            order.append(str(command.action))
            await super().act(command, stack)

    mischief = FaultInjection(fail=lambda _: OutcomeUnknown("no answer"))
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
    mischief = FaultInjection()
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


# --- a daemon that dies ---------------------------------------------------------------------------------


@pytest.mark.parametrize("keeps_ledger", [True, False])
@virtual
async def test_killed_at_any_moment_the_next_daemon_brings_it_to_the_end(keeps_ledger: bool) -> None:
    new = service("db", check=True, definition="new", config_hash="new")
    changed = replace(TIERS, services={**TIERS.services, "db": new})
    for moment in range(40):
        b = bench(TIERS, engine=engine(db=ContainerScript(ready_after=0.4)))
        b.want(desire(TIERS, "main"))
        await asyncio.sleep(0.02 * moment)
        if moment % 2:
            b.want(desire(changed, "main"), changed)
            await asyncio.sleep(0.01 * moment)
        await b.crash()
        if keeps_ledger:
            saved = encode_ledger(b.loop.ledger)
            b.ledger = decode_ledger(saved, Clock(b.engine.wall(), asyncio.get_running_loop().time()))
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
