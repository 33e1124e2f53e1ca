"""The loop on a simulated engine: changes of desired state, and what readers see of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from reconciler.engine.simulated.scripts import ContainerScript, FaultInjection
from reconciler.errors import Mistake, StepFailed
from reconciler.model.desired import GroupState, Suspension
from reconciler.model.observed import Action, State
from reconciler.model.stack import Stack
from tests.support.fixtures.builders import a_stack, desire, service
from tests.support.fixtures.control_loop import DB, ONE, TIERS, engine, up, virtual
from tests.support.fixtures.recording_engine import RecordingEngine, bench

# --- changes --------------------------------------------------------------------------------------


@virtual
async def test_new_definition_recreates_only_that_service_once() -> None:
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
async def test_unexpected_label_of_a_new_container_is_accepted() -> None:
    # PITFALLS row 1: what Compose writes for these inputs is right by definition.
    class Other(RecordingEngine):
        def _create(self, stack: Stack, service: Any, *, recreate: bool) -> None:
            super()._create(stack, replace(service, config_hash="odd"), recreate=recreate)

    b = await up(TIERS, engine=Other())
    await asyncio.sleep(300)
    assert b.engine.log(Action.RECREATE) == []
    await b.end()


@virtual
async def test_failed_recreate_does_not_count_as_done() -> None:
    # The old container is observed during the recreate, and must not be recorded with the new inputs.
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
async def test_unattachable_network_does_not_cause_endless_recreates() -> None:
    class Offline(RecordingEngine):
        def _create(self, stack: Stack, service: Any, *, recreate: bool) -> None:
            super()._create(stack, replace(service, networks=()), recreate=recreate)

    b = await up(ONE, engine=Offline())
    await asyncio.sleep(600)
    assert b.engine.log() == ["create kafka", "recreate kafka", "start kafka"]
    await b.end()


@virtual
async def test_requested_restart_happens_once_stops_in_reverse_starts_in_order() -> None:
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
async def test_restart_is_completed_after_a_failed_stop() -> None:
    mischief = FaultInjection()
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
async def test_slow_stop_by_the_daemon_is_not_recorded_as_a_failure() -> None:
    b = await up(ONE, engine=engine(kafka=ContainerScript(stop_takes=8.0)))
    await asyncio.sleep(1)
    b.want(desire(ONE, main=GroupState(on=True, restarted_at=b.engine.wall())))
    for _ in range(5):
        await asyncio.sleep(1)
        b.loop.wake("a reader looks")
    await b.converged()
    assert b.loop.ledger.failures == {}
    assert b.loop.ledger.exits == {}
    await b.end()


@virtual
async def test_suspended_group_is_untouched_until_the_suspension_ends() -> None:
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
async def test_restart_in_the_future_happens_when_due() -> None:
    b = await up(ONE)
    b.want(desire(ONE, main=GroupState(on=True, restarted_at=b.engine.wall() + 100)))
    await asyncio.sleep(99)
    assert b.engine.log(Action.STOP) == []
    await asyncio.sleep(2)
    assert b.engine.log(Action.STOP) == ["stop kafka"]
    assert b.engine.up() == {"kafka"}
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
async def test_waiting_publishes_no_new_snapshots() -> None:
    stack = a_stack({"main": [service("db", check=True), service("bad"), service("app", "db:healthy")]})
    mischief = FaultInjection(fail=lambda c: StepFailed("no") if c.services == ("bad",) else None)
    b = bench(stack, engine=engine(mischief, db=ContainerScript(ready_after=500.0)))
    b.want(desire(stack, "main"))
    await asyncio.sleep(299)
    serial = b.seen.serial
    for _ in range(20):
        await asyncio.sleep(0.3)
        b.loop.wake("an event")
    assert b.seen.serial == serial
    await b.end()


@virtual
async def test_end_of_a_generation_is_reported_once() -> None:
    b = bench(TIERS, engine=engine(db=ContainerScript(ready_after=2.0)))
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
async def test_overtaken_generation_is_superseded() -> None:
    b = bench(TIERS, engine=engine(db=ContainerScript(ready_after=20.0)))
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
async def test_blocked_group_ends_the_generation_as_degraded_with_its_reason() -> None:
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
async def test_mistakes_in_files_are_published_and_convergence_continues() -> None:
    b = await up(ONE)
    b.loop.report_mistakes([Mistake("groups.yaml", 1, 1, "no")])
    assert not b.seen.valid
    b.engine.kill("kafka")
    await asyncio.sleep(1)
    assert b.engine.up() == {"kafka"}
    b.loop.report_mistakes([])
    assert b.seen.valid
    await b.end()


@virtual
async def test_stopping_loop_sends_no_further_steps() -> None:
    b = await up(ONE)
    b.engine.kill("kafka")
    await b.loop.stop()
    await b.task
    orders = len(b.engine.orders)
    await asyncio.sleep(5)
    assert len(b.engine.orders) == orders
