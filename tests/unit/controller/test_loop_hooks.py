"""Lifecycle hooks in the loop, on a simulated engine in virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from reconciler.controller.executor import Concurrency
from reconciler.controller.ledger_codec import decode_ledger, encode_ledger
from reconciler.controller.loop_hooks import LoopTimings
from reconciler.engine.simulated.hooks import HookScript
from reconciler.engine.simulated.scripts import ContainerScript
from reconciler.model.desired import GroupState
from reconciler.model.ledger import Clock
from reconciler.model.observed import Action, State
from reconciler.model.stack import Stack
from reconciler.model.start_work import Hook, InjectedFile, StartWork
from tests.support.fixtures.builders import a_stack, container, desire, service
from tests.support.fixtures.control_loop import engine, up, virtual
from tests.support.fixtures.recording_engine import LoopHarness, bench

HOOKED = StartWork(
    files=(InjectedFile(kind="config", source="c", target="/etc/c", content="hello"),),
    pre_start=(Hook(command=("before",)),),
    post_start=(Hook(command=("one",)), Hook(command=("two",))),
    pre_stop=(Hook(command=("bye",)),),
)
AFTER = replace(HOOKED, pre_start=())


def stack_of(work: StartWork = AFTER, **fields: object) -> Stack:
    return a_stack({"main": [service("web", start=work, **fields), service("next", "web")]})


def stages(b: LoopHarness) -> list[str]:
    return [run.stage for run in b.engine.start_work.runs]


def posts(b: LoopHarness) -> list[float]:
    return b.engine.times(Action.POST_START, "web")


@virtual
async def test_hooks_run_once_around_a_start_and_a_stop() -> None:
    stack = stack_of(HOOKED)
    b = await up(stack)
    assert stages(b) == ["pre_start", "post_start", "post_start"]
    (web,) = b.engine.containers("web")
    assert b.engine.start_work.files[web.id] == {"/etc/c": "hello"}
    b.want(desire(stack))
    await b.converged()
    assert stages(b)[3:] == ["pre_stop"]
    await b.end()


@virtual
async def test_a_dependent_starts_after_the_hooks() -> None:
    stack = stack_of()
    b = await up(stack, engine=engine(web=ContainerScript(hooks=HookScript(takes=5.0))))
    assert b.engine.log()[-3:] == ["start web", "post_start web", "start next"]
    assert b.engine.times(Action.START, "next")[0] >= 10.0
    await b.end()


@virtual
async def test_hooks_run_again_after_a_kill_a_restart_and_a_recreation() -> None:
    stack = stack_of(replace(HOOKED, pre_start=()))
    b = await up(stack)
    b.engine.kill("web")
    await b.until(lambda s: s.converged and len(posts(b)) == 2)
    await asyncio.sleep(1)
    restart = GroupState(on=True, restarted_at=b.engine.wall())
    b.want(desire(stack, main=restart, generation=2))
    await b.until(lambda s: s.converged and len(posts(b)) == 3)
    assert stages(b).count("pre_stop") == 1
    changed = a_stack(
        {"main": [service("web", start=AFTER, definition="new", config_hash="new"), service("next", "web")]}
    )
    b.want(desire(changed, main=restart, generation=3), changed)
    await b.until(lambda s: s.converged and len(posts(b)) == 4)
    assert stages(b).count("pre_stop") == 2
    assert stages(b).count("post_start") == 8
    await b.end()


@virtual
async def test_a_container_started_by_hand_runs_no_hooks() -> None:
    stack = stack_of()
    recorder = engine()
    for name in ("web", "next"):
        one = stack.services[name]
        recorder.add(container(one, image=f"sha256:{one.image}"))
    b = await up(stack, engine=recorder)
    await asyncio.sleep(60)
    assert stages(b) == []
    assert b.engine.log() == []
    await b.end()


@virtual
async def test_a_failing_hook_is_a_failed_start_and_is_retried_with_back_off() -> None:
    stack = stack_of()
    b = bench(stack, engine=engine(web=ContainerScript(hooks=HookScript({"post_start": 3}))))
    b.want(desire(stack, "main"))
    await asyncio.sleep(600)
    starts = b.engine.times(Action.START, "web")
    assert 5 < len(starts) < 12
    assert len(b.engine.times(Action.STOP, "web")) == len(starts)
    assert b.engine.up() == set()
    group = b.seen.groups["main"]
    assert (group.phase, group.reason) == ("degraded", "hook_failed")
    assert "exit code 3" in group.message
    assert b.engine.containers("next")[0].state is State.CREATED
    assert b.loop.ledger.exits == {}
    b.engine.behaviours["web"] = ContainerScript()
    await b.converged(400)
    await b.end()


@virtual
async def test_a_one_shot_whose_hook_failed_is_not_done() -> None:
    stack = stack_of(restart="no")
    b = bench(stack, engine=engine(web=ContainerScript(hooks=HookScript({"post_start": 1}))))
    b.want(desire(stack, "main"))
    await asyncio.sleep(30)
    assert len(b.engine.times(Action.START, "web")) > 2
    assert b.engine.up() == set()
    await b.end()


@pytest.mark.parametrize("work", [AFTER, replace(HOOKED, post_start=())])
@virtual
async def test_a_hanging_hook_blocks_no_other_start_and_no_stop(work: StartWork) -> None:
    others = [service(f"s{i}") for i in range(3)]
    stack = a_stack({"main": [service("web", start=work)], "other": others})
    hangs = ContainerScript(hooks=HookScript(takes=1e6))
    b = bench(stack, engine=engine(web=hangs), timings=LoopTimings(limits=Concurrency(start=1)))
    b.want(desire(stack, "main", "other"))
    await b.until(lambda s: s.groups["other"].phase == "converged", 5.0)
    b.engine.behaviours["web"] = ContainerScript()
    b.want(desire(stack, "other", generation=2))
    await b.converged(30.0)
    assert "web" not in b.engine.up()
    await b.end()


@virtual
async def test_a_pre_stop_hook_that_fails_or_hangs_prevents_no_stop(caplog: pytest.LogCaptureFixture) -> None:
    for hooks, problem in ((HookScript({"pre_stop": 9}), "exit code 9"), (HookScript(takes=1e6), "in time")):
        stack = stack_of(replace(AFTER, post_start=()))
        b = await up(stack, engine=engine(web=ContainerScript(hooks=hooks)))
        b.want(desire(stack))
        await b.converged(30.0)
        assert b.engine.up() == set()
        (record,) = [r for r in caplog.records if r.message == "step done with a warning"]
        assert problem in record.problem
        caplog.clear()
        await b.end()


@virtual
async def test_hooks_that_a_killed_daemon_left_are_run_by_the_next_one() -> None:
    stack = stack_of()
    b = bench(stack, engine=engine(web=ContainerScript(hooks=HookScript(takes=50.0))))
    b.want(desire(stack, "main"))
    await b.until(lambda _: bool(stages(b)))
    saved = encode_ledger(b.loop.ledger)
    await b.loop.stop(0)
    again = bench(stack, engine=b.engine, ledger=decode_ledger(saved, Clock(0.0, 0.0)))
    b.engine.behaviours["web"] = ContainerScript()
    again.want(desire(stack, "main"))
    await again.converged(200)
    assert again.loop.ledger.hooks == {}
    assert len(b.engine.times(Action.START, "web")) == 1
    await again.end()
