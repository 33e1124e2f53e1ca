"""The loop on a simulated engine: services with several containers, and with none."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from reconciler.controller.snapshot import ServiceView
from reconciler.engine.simulated.scripts import ContainerScript
from reconciler.model.desired import GroupState
from reconciler.model.observed import Action, State
from tests.support.fixtures.builders import a_stack, desire, service
from tests.support.fixtures.control_loop import engine, up, virtual
from tests.support.fixtures.recording_engine import LoopHarness

WEB = service("web", check=True, replicas=3)
STACK = a_stack({"main": [WEB, service("seed", replicas=0), service("app", "web:healthy", "seed:completed")]})


def view(b: LoopHarness, name: str) -> ServiceView:
    return next(s for s in b.seen.groups["main"].services if s.name == name)


@virtual
async def test_replicas_start_are_repaired_and_stop_together() -> None:
    b = await up(STACK)
    assert b.engine.log(Action.CREATE) == ["create web", "create app"]
    assert sorted(c.number for c in b.engine.containers("web")) == [1, 2, 3]
    assert b.engine.containers("seed") == ()
    assert (view(b, "seed").reason, view(b, "seed").status) == ("scaled_to_zero", "absent")
    assert b.seen.groups["main"].status == "running"
    first, second, third = sorted(b.engine.containers("web"), key=lambda c: c.number)
    b.engine.drop(second.id)
    b.engine.alter(third.id, state=State.EXITED, exit_code=137)
    await b.until(lambda s: not s.converged)
    assert not view(b, "web").ready
    await b.converged()
    replicas = {c.number: c for c in b.engine.containers("web")}
    assert replicas.keys() == {1, 3, 4}
    assert (replicas[1].id, replicas[3].id) == (first.id, third.id)
    b.want(desire(STACK))
    await b.converged()
    assert not b.engine.up()
    assert view(b, "seed").reason == "scaled_to_zero"
    b.want(desire(STACK, "main"))
    await b.converged()
    assert len([c for c in b.engine.containers("web") if c.state is State.RUNNING]) == 3
    await b.end()


@virtual
async def test_new_definition_recreates_replicas_one_at_a_time() -> None:
    b = await up(STACK)
    alive: list[int] = []
    changed = b.engine._changed

    def noted(event: str) -> None:
        alive.append(sum(c.state is State.RUNNING for c in b.engine.containers("web")))
        changed(event)

    b.engine._changed = noted  # type: ignore[method-assign]
    new = replace(WEB, config_hash="new", definition="new")
    stack = replace(STACK, services={**STACK.services, "web": new})
    b.want(desire(stack, "main"), stack)
    await b.converged(300)
    assert b.engine.log(Action.RECREATE) == ["recreate web"] * 3
    assert {c.config_hash for c in b.engine.containers("web")} == {"new"}
    assert sorted(c.number for c in b.engine.containers("web")) == [1, 2, 3]
    assert min(alive) == 2
    assert b.engine.log(Action.STOP) == ["stop web"] * 3
    await b.end()


@virtual
async def test_surplus_replicas_run_until_their_removal_is_accepted() -> None:
    b = await up(STACK)
    third = max(b.engine.containers("web"), key=lambda c: c.number)
    b.engine.add(replace(third, id="zzz", name="web-4", number=4))
    await b.until(lambda s: any(d.kind == "duplicate" for d in s.drifts))
    await asyncio.sleep(300)
    assert view(b, "web").reason == "held_back"
    assert view(b, "web").ready
    assert b.engine.log(Action.STOP) == []
    b.want(desire(STACK, main=GroupState(on=True, accepted_at=b.engine.wall())))
    await b.converged()
    assert sorted(c.number for c in b.engine.containers("web")) == [1, 2, 3]
    assert (b.engine.log(Action.STOP), b.engine.log(Action.REMOVE)) == (["stop web"], ["remove web"])
    await b.end()


@virtual
async def test_failing_replica_backs_off_while_the_others_run() -> None:
    b = await up(STACK, engine=engine(web=ContainerScript()))
    before = {c.id: c.started_at for c in b.engine.containers("web")}
    victim = b.engine.containers("web")[0]
    for _ in range(4):
        await b.until(lambda s: s.converged)
        b.engine.alter(victim.id, state=State.EXITED, exit_code=1, finished_at=b.engine.wall())
        await b.until(lambda s: not s.converged)
    assert "exited with code 1" in view(b, "web").last_error
    await b.converged(600)
    started = {c.id: c.started_at for c in b.engine.containers("web")}
    assert [id_ for id_ in before if started[id_] != before[id_]] == [victim.id]
    await b.end()
