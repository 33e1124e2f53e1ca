"""The scripts of the simulated engine. ``tests/engine`` checks that it behaves like a real one."""

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


def test_probes_see_readiness_before_the_engine_does() -> None:
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


def test_repeated_commands_succeed_and_missing_containers_are_reported() -> None:
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


def test_running_containers_are_not_removed_and_paused_ones_not_stopped() -> None:
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


def test_a_batch_creates_what_it_can_and_names_the_failed_services() -> None:
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


def test_a_failed_recreation_leaves_the_old_container() -> None:
    async def story() -> None:
        engine = await made()
        engine.auto_images = False
        engine.images.clear()
        with pytest.raises(PermanentStepFailure):
            await engine.act(order(engine, Action.RECREATE), STACK)
        assert len(engine.containers("db")) == 1

    run_virtually(story())


def test_images_are_pulled_or_built() -> None:
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


def test_faults_before_and_after_commands_and_in_observations() -> None:
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


def test_an_unavailable_engine_rejects_calls_and_ends_its_events() -> None:
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


def test_an_engine_restart_restarts_containers_by_policy() -> None:
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


def test_a_container_may_crash_a_few_times_and_then_stay_up() -> None:
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


def test_a_one_shot_exits_with_success_unless_scripted_otherwise() -> None:
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
