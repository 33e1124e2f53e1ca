"""Named tasks: which of them may end, and how they are stopped."""

from __future__ import annotations

import asyncio

import pytest

from reconciler.daemon.task_runner import TaskRunner


async def test_a_stop_signal_ends_the_wait_and_cancel_ends_all_components() -> None:
    tasks, stop = TaskRunner(), asyncio.Event()
    running, ended = asyncio.Event(), asyncio.Event()

    async def component() -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    tasks.start("component", component)
    await running.wait()
    stop.set()
    await tasks.wait(stop)
    assert not ended.is_set()
    await tasks.cancel()
    assert ended.is_set()


async def test_a_component_that_returns_ends_the_daemon(caplog: pytest.LogCaptureFixture) -> None:
    tasks = TaskRunner()

    async def component() -> None:
        """Return at once."""

    tasks.start("component", component)
    with pytest.raises(SystemExit):
        await tasks.wait(asyncio.Event())
    assert [record.__dict__["part"] for record in caplog.records] == ["component"]


async def test_an_error_ends_the_daemon_only_without_restart() -> None:
    tasks, failed = TaskRunner(), asyncio.Event()

    async def component() -> None:
        failed.set()
        raise ValueError("broken")

    tasks.start("restarted", component)
    await failed.wait()
    tasks.start("http", component, restart=False)
    with pytest.raises(SystemExit):
        await tasks.wait(asyncio.Event())
    await tasks.cancel()


async def test_the_named_components_may_end_before_the_others_are_cancelled() -> None:
    tasks, order = TaskRunner(), list[str]()
    stop = asyncio.Event()

    async def loop() -> None:
        await stop.wait()
        order.append("loop ended")

    async def watch() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            order.append("watch cancelled")

    tasks.start("loop", loop)
    tasks.start("watch", watch)
    await asyncio.sleep(0)
    stop.set()
    await tasks.wait_for_end("loop", timeout=5.0)
    await tasks.cancel()
    assert order == ["loop ended", "watch cancelled"]
