"""The loop on a simulated engine: hours of back-off pass in milliseconds."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from typing import Any

import pytest

from reconciler.controller.ledger_codec import decode_ledger, encode_ledger
from reconciler.engine.simulated.scripts import ContainerScript, FaultInjection
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
async def test_failed_step_is_retried_with_back_off() -> None:
    mischief = FaultInjection(fail=lambda c: StepFailed("no") if c.action is Action.START else None)
    b = bench(ONE, engine=engine(mischief))
    b.want(desire(ONE, "main"))
    await asyncio.sleep(3600)
    assert gaps(b.engine.times(Action.START, "kafka"))[:11] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    await b.end()


@virtual
async def test_only_the_first_repair_of_a_crashing_service_is_immediate() -> None:
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
async def test_changed_inputs_end_the_back_off() -> None:
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
async def test_failing_service_delays_no_other() -> None:
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
async def test_service_that_cannot_be_created_does_not_delay_its_batch() -> None:
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
async def test_step_without_effect_is_not_repeated_in_a_tight_loop() -> None:
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


# --- unreachable engine, incomplete observations -------------------------------------------------------


@virtual
async def test_unreachable_engine_gets_no_steps_and_the_loop_recovers() -> None:
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
async def test_incomplete_observation_causes_no_steps_and_is_repeated_soon() -> None:
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
async def test_incomplete_observations_are_not_repeated_in_a_tight_loop() -> None:
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
async def test_adapter_exception_does_not_end_the_loop() -> None:
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
async def test_failed_observation_is_logged_once_per_error_until_one_succeeds(
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
async def test_call_that_failed_but_took_effect_is_not_repeated() -> None:
    mischief = FaultInjection(lie=lambda _: OutcomeUnknown("no answer"))
    b = bench(TIERS, engine=engine(mischief))
    b.want(desire(TIERS, "main"))
    await b.converged()
    assert b.engine.log() == ["create db", "create app", "create web", "start db", "start app", "start web"]
    assert len(b.engine.orders) == 4
    await b.end()


@virtual
async def test_unknown_outcome_is_observed_not_repeated() -> None:
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
async def test_step_is_not_repeated_on_an_observation_older_than_its_result() -> None:
    b = await up(ONE)
    b.engine.kill("kafka")
    for _ in range(20):
        b.loop.wake("impatience")
        await asyncio.sleep(0.005)
    await b.converged()
    assert len(b.engine.times(Action.START, "kafka")) == 2
    await b.end()


@virtual
async def test_stale_lists_only_delay_convergence() -> None:
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


# --- restarts of the daemon ----------------------------------------------------------------------------


@pytest.mark.parametrize("keeps_ledger", [True, False])
@virtual
async def test_next_daemon_completes_the_work_of_a_killed_one(keeps_ledger: bool) -> None:
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
        # Twice only if the engine was still busy at the first observation of the next daemon.
        assert len(b.engine.log(Action.RECREATE)) <= 2
        await b.end()


@virtual
async def test_restarted_daemon_does_nothing_if_all_is_as_desired() -> None:
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
async def test_containers_created_by_compose_are_adopted() -> None:
    recorder = engine()
    b = await up(ONE, engine=recorder)
    assert b.loop.ledger.made[recorder.containers()[0].id].definition == "def-kafka"
    await b.crash()
    b.ledger = None
    b.begin()
    # A newer Compose hashes the same inputs differently: adopted containers are not recreated.
    b.want(desire(ONE, "main"))
    await b.converged()
    newer = a_stack({"main": [service("kafka", config_hash="otherwise")]})
    b.want(desire(newer, "main"), newer)
    await b.converged()
    assert recorder.log(Action.RECREATE) == []
    await b.end()


@virtual
async def test_late_health_failure_is_published() -> None:
    b = await up(TIERS)
    db = b.engine.containers("db")[0]
    b.engine.alter(db.id, health=Health.UNHEALTHY)
    await b.until(lambda s: s.groups["main"].phase == "degraded")
    assert b.seen.groups["main"].reason == "unhealthy"
    assert b.engine.up() == {"db", "app", "web"}
    await b.end()


# --- unhealthy services ----------------------------------------------------------------------------


@virtual
async def test_unhealthy_service_is_restarted_up_to_its_limit() -> None:
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
async def test_logs_are_saved_of_exited_and_recreated_containers() -> None:
    saved: list[tuple[str, State, tuple[str, ...]]] = []

    async def save_log(container: Container) -> None:
        await asyncio.sleep(0.5)
        saved.append((container.service, container.state, tuple(b.engine.log(Action.RECREATE))))

    b = await up(ONE, save_log=save_log)
    assert saved == []
    b.engine.kill("kafka", 3)
    await b.until(lambda s: not s.converged)
    await b.converged()
    # Before the next start, whose lines would displace them.
    assert saved == [("kafka", State.EXITED, ())]
    assert b.engine.log(Action.START) == ["start kafka"] * 2
    assert b.seen.groups["main"].services[0].last_error.startswith("exited with code 3")
    changed = a_stack({"main": [replace(ONE.services["kafka"], config_hash="new", definition="new")]})
    b.want(desire(changed, "main"), changed)
    await b.converged()
    assert saved[1:] == [("kafka", State.EXITED, ())]
    assert b.engine.log(Action.RECREATE) == ["recreate kafka"]
    assert b.seen.groups["main"].services[0].last_error.startswith("exited with code 3")
    await b.end()


@pytest.mark.pitfall(36)
@virtual
@pytest.mark.parametrize("jump", [-315_000_000.0, -3600.0, 3600.0, 315_000_000.0])
async def test_clock_jump_causes_no_steps_and_no_extra_passes(
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
    # One resync a minute, and none of them requests another pass.
    assert len(b.passes) - passes <= 21
    b.engine.kill("app")
    await b.until(lambda s: not s.converged)
    assert await b.converged() < 5.0
    await b.end()
