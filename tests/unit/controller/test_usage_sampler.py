"""When memory and CPU are sampled: often while there are readers, else seldom, soon after a start."""

from __future__ import annotations

import asyncio

from reconciler.controller.usage_sampler import Sampler
from tests.support.fixtures.builders import a_stack, desire, service
from tests.support.fixtures.recording_engine import LoopHarness, bench
from tests.support.fixtures.virtual_time import run_virtually

STACK = a_stack({"main": [service("web")]})


async def sampled(b: LoopHarness) -> list[float]:
    """The times at which the engine is sampled, a list that grows."""
    times: list[float] = []
    ask = b.engine.stats

    async def stats(containers: object) -> object:
        times.append(asyncio.get_running_loop().time())
        return await ask(containers)  # type: ignore[arg-type]

    b.engine.stats = stats  # type: ignore[method-assign,assignment]
    return times


def test_started_containers_are_measured_soon() -> None:
    async def scenario() -> None:
        b = bench(STACK)
        times = await sampled(b)
        task = asyncio.create_task(Sampler(b.engine, b.loop, b.snapshots).run())
        b.want(desire(STACK))
        await asyncio.sleep(100)
        assert times == []
        b.want(desire(STACK, "main"))
        began = asyncio.get_running_loop().time()
        await b.until(lambda seen: seen.groups["main"].memory > 0)
        assert times[0] - began < 3
        task.cancel()
        await b.end()

    run_virtually(scenario())


def test_usage_is_sampled_often_only_while_there_are_readers() -> None:
    async def scenario() -> None:
        b = bench(STACK)
        b.want(desire(STACK, "main"))
        await b.converged()
        times = await sampled(b)
        task = asyncio.create_task(Sampler(b.engine, b.loop, b.snapshots).run())
        await asyncio.sleep(300)
        assert 9 <= len(times) <= 12
        times.clear()
        clock = asyncio.get_running_loop().time
        for _ in range(100):
            b.snapshots.note_reader(clock())
            await asyncio.sleep(3)
        assert 28 <= len(times) <= 32
        task.cancel()
        await b.end()

    run_virtually(scenario())
