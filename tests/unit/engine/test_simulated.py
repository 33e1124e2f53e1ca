"""What the simulated engine does on command. How it answers like a real one: ``tests/engine``."""

from __future__ import annotations

import asyncio

import pytest

from reconciler.engine.simulated.engine import SimulatedEngine
from reconciler.engine.simulated.scripts import ContainerScript, FaultInjection
from reconciler.errors import (
    BatchFailed,
    ContainerGone,
    EngineUnavailable,
    OutcomeUnknown,
    PermanentStepFailure,
    StepFailed,
)
from reconciler.model.observed import Action, Command, Health, State
from tests.support.fixtures.builders import a_stack, container, service
from tests.support.fixtures.virtual_time import run_virtually

DB = service("db", check=True)
APP = service("app")
STACK = a_stack({"g": [DB, APP]})
CREATE = Command(Action.CREATE, ("db", "app"))


async def made(**fields: object) -> SimulatedEngine:
    engine = SimulatedEngine(**fields)  # type: ignore[arg-type]
    await engine.observe(STACK)
    await engine.act(CREATE, STACK)
    return engine


def order(engine: SimulatedEngine, action: Action, name: str = "db", value: str = "") -> Command:
    return Command(action, (name,), engine.containers(name)[0].id, value=value)


def test_a_container_becomes_ready_for_probes_first_and_for_the_engine_later() -> None:
    async def story() -> None:
        engine = await made(behaviours={"db": ContainerScript(ready_after=2.0)})
        await engine.act(order(engine, Action.START), STACK)
        (db,) = engine.containers("db")
        assert (db.state, db.health) == (State.RUNNING, Health.STARTING)
        assert not await engine.probe(db, 1.0)
        await asyncio.sleep(2)
        assert await engine.probe(db, 1.0)
        assert engine.containers("db")[0].health is Health.STARTING
        await asyncio.sleep(30)
        assert engine.containers("db")[0].health is Health.HEALTHY
        await engine.close()

    run_virtually(story())


def test_done_already_is_success_and_gone_is_gone() -> None:
    async def story() -> None:
        engine = await made()
        start = order(engine, Action.START)
        await engine.act(start, STACK)
        await engine.act(start, STACK)
        await engine.act(CREATE, STACK)
        assert len(engine.containers()) == 2
        engine.drop(start.container)
        with pytest.raises(ContainerGone):
            await engine.act(start, STACK)
        await engine.act(start._replace(action=Action.STOP), STACK)
        await engine.act(start._replace(action=Action.REMOVE), STACK)

    run_virtually(story())


def test_what_runs_is_not_removed_and_what_is_paused_not_stopped() -> None:
    async def story() -> None:
        engine = await made()
        await engine.act(order(engine, Action.START), STACK)
        with pytest.raises(StepFailed):
            await engine.act(order(engine, Action.REMOVE), STACK)
        engine.alter(engine.containers("db")[0].id, state=State.PAUSED)
        with pytest.raises(StepFailed):
            await engine.act(order(engine, Action.STOP), STACK)
        await engine.act(order(engine, Action.UNPAUSE), STACK)
        await engine.act(order(engine, Action.RENAME, value="new"), STACK)
        await engine.act(order(engine, Action.UPDATE, value="no"), STACK)
        (db,) = engine.containers("db")
        assert (db.state, db.name, db.restart) == (State.RUNNING, "new", "no")

    run_virtually(story())


def test_a_batch_makes_what_it_can_and_says_which_it_could_not() -> None:
    async def story() -> None:
        engine = SimulatedEngine()
        await engine.observe(STACK)
        engine.foreign["db"] = "x"
        with pytest.raises(BatchFailed) as caught:
            await engine.act(CREATE, STACK)
        assert set(caught.value.failed) == {"db"}
        assert [c.service for c in engine.containers()] == ["app"]
        assert engine.history[-1][1].services == ("app",)

    run_virtually(story())


def test_a_remake_that_can_not_succeed_leaves_the_old_one() -> None:
    async def story() -> None:
        engine = await made()
        engine.auto_images = False
        engine.images.clear()
        with pytest.raises(PermanentStepFailure):
            await engine.act(order(engine, Action.RECREATE), STACK)
        assert len(engine.containers("db")) == 1

    run_virtually(story())


def test_images_come_from_where_there_are_any() -> None:
    async def story() -> None:
        engine = SimulatedEngine()
        engine.auto_images = False
        with pytest.raises(PermanentStepFailure):
            await engine.act(Command(Action.PULL, ("db",)), STACK)
        engine.pullable["db:1"] = "sha"
        await engine.act(Command(Action.PULL, ("db",)), STACK)
        await engine.act(Command(Action.BUILD, ("app",)), STACK)
        assert dict((await engine.observe(STACK)).images) == {"db:1": "sha", "app:1": "sha256:app:1"}

    run_virtually(story())


def test_mischief_before_after_and_in_looks() -> None:
    async def story() -> None:
        mischief = FaultInjection()
        engine = await made(mischief=mischief)
        mischief.fail = lambda _: StepFailed("no")
        with pytest.raises(StepFailed):
            await engine.act(order(engine, Action.START), STACK)
        assert engine.containers("db")[0].state is State.CREATED
        mischief.fail, mischief.lie = (lambda _: None), (lambda _: OutcomeUnknown("silence"))
        with pytest.raises(OutcomeUnknown):
            await engine.act(order(engine, Action.START), STACK)
        assert engine.containers("db")[0].state is State.RUNNING
        mischief.stale = lambda: 1
        assert {c.state for c in (await engine.observe(STACK)).containers} == {State.CREATED}
        mischief.partial = lambda: True
        assert not (await engine.observe(STACK)).complete

    run_virtually(story())


def test_an_engine_that_is_away_answers_nothing_and_ends_its_events() -> None:
    async def story() -> None:
        engine = await made()
        heard: list[str] = []

        async def listen() -> None:
            heard.extend([event async for event in engine.events(STACK)])

        task = asyncio.create_task(listen())
        await asyncio.sleep(0)
        engine.kill("db")
        engine.add(container(APP, id="other"))
        engine.restart()
        await task
        assert heard == ["subscribed", "create"]
        engine.unavailable = True
        with pytest.raises(EngineUnavailable):
            await engine.observe(STACK)
        with pytest.raises(EngineUnavailable):
            await engine.act(CREATE, STACK)
        assert not await engine.probe(engine.containers("db")[0], 1.0)

    run_virtually(story())


def test_a_restart_of_the_engine_revives_by_policy() -> None:
    async def story() -> None:
        plain = service("plain", restart="no")
        stack = a_stack({"g": [DB, plain]})
        engine = SimulatedEngine()
        await engine.observe(stack)
        await engine.act(Command(Action.CREATE, ("db", "plain")), stack)
        for name in ("db", "plain"):
            await engine.act(order(engine, Action.START, name), stack)
        engine.restart()
        states = {c.service: (c.state, c.exit_code) for c in engine.containers()}
        assert states["db"][0] is State.RUNNING
        assert states["plain"] == (State.EXITED, 255)
        await engine.close()

    run_virtually(story())


def test_a_container_may_crash_a_few_times_and_then_stay() -> None:
    async def story() -> None:
        engine = await made(behaviours={"app": ContainerScript(exits_after=1.0, exit_code=3, crashes=1)})
        await engine.act(order(engine, Action.START, "app"), STACK)
        await asyncio.sleep(2)
        (app,) = engine.containers("app")
        assert (app.state, app.exit_code) == (State.EXITED, 3)
        await engine.act(order(engine, Action.START, "app"), STACK)
        await asyncio.sleep(100)
        assert engine.containers("app")[0].state is State.RUNNING

    run_virtually(story())


def test_a_one_shot_ends_well_by_itself_and_what_was_said_of_one_holds() -> None:
    stack = a_stack(
        {"g": [service("init"), service("broken"), service("app", "init:completed", "broken:completed")]}
    )

    async def story() -> None:
        engine = SimulatedEngine({"broken": ContainerScript(exits_after=1.0, exit_code=3)})
        await engine.observe(stack)
        await engine.act(Command(Action.CREATE, ("init", "broken", "app")), stack)
        for _ in range(2):
            for name in ("init", "broken", "app"):
                await engine.act(order(engine, Action.START, name), stack)
            assert engine.containers("init")[0].state is State.RUNNING
            await asyncio.sleep(2)
            ends = {c.service: (c.state, c.exit_code) for c in engine.containers()}
            assert ends["init"] == (State.EXITED, 0)
            assert ends["broken"] == (State.EXITED, 3)
            assert ends["app"][0] is State.RUNNING
        await engine.close()

    run_virtually(story())
