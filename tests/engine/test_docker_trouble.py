"""The Docker adapter with an engine, a health check or a Compose that misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from reconciler.engine.compose import engine as compose_module
from reconciler.engine.compose.subprocess import hold_lock
from reconciler.engine.docker import container_commands
from reconciler.engine.docker.engine import DockerEngine
from reconciler.errors import EngineUnavailable, OutcomeUnknown, StepFailed
from reconciler.model.observed import Action, Command, State
from tests.support.harness.adapter import PLAIN, AdapterHarness, Make
from tests.support.harness.private_engine import PrivateEngine, by_service, until

# --- an engine that misbehaves ---


async def _listen(events: AsyncIterator[str]) -> None:
    async for _ in events:
        pass


@pytest.mark.pitfall(13)
async def test_a_restart_of_the_engine_ends_the_stream_and_passes(bench: Make) -> None:
    b: AdapterHarness = await bench(PLAIN)
    container = await b.running("plain")
    events = b.engine.events(b.stack)
    await anext(events)
    listening = asyncio.ensure_future(_listen(events))
    await asyncio.to_thread(b.bed.stop)
    with pytest.raises(EngineUnavailable):
        await asyncio.wait_for(listening, 20)
    with pytest.raises(EngineUnavailable) as caught:
        await b.look()
    assert "is Docker running?" in str(caught.value)
    with pytest.raises(EngineUnavailable):
        await b.act(Action.START, "plain", container=container.id)
    await asyncio.to_thread(b.bed.start)
    async with aclosing(b.engine.events(b.stack)) as again:
        assert await anext(again) == "subscribed"
        stopped = await b.seen("plain")
        assert stopped.id == container.id
        assert stopped.state is State.EXITED
        await b.act(Action.START, "plain", container=container.id)
        assert (await b.seen("plain")).state is State.RUNNING


@pytest.mark.pitfall(9)
async def test_a_command_without_a_response_has_an_unknown_outcome(
    bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    b: AdapterHarness = await bench(PLAIN)
    container = await b.created("plain")
    # A client with the usual deadline of its own, so that closing could wait for it.
    await b.act(Action.STOP, "plain", container=container.id, grace=1.0)
    monkeypatch.setattr(b.engine._http, "_patience", 1.0)
    monkeypatch.setattr(container_commands, "_DEADLINE", 1.0)
    with b.bed.frozen():
        with pytest.raises(OutcomeUnknown):
            await b.act(Action.START, "plain", container=container.id)
        began = time.monotonic()
        await b.engine.close()
        assert time.monotonic() - began < 10.0
    # Docker 20.10 carries it out anyway, 26.1 cancels it; repeating it succeeds on both.
    other = DockerEngine(b.state, environ=b.bed.environ)
    await other.act(Command(Action.START, ("plain",), container=container.id), b.stack)
    await until(lambda: other.observe(b.stack), lambda seen: by_service(seen)["plain"].state is State.RUNNING)
    await other.close()


@pytest.mark.pitfall(13)
async def test_a_silent_stream_is_lost_after_a_command(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from reconciler.engine.docker import engine, streams

    monkeypatch.setattr(engine, "_EVENT_WITHIN", 0.3)
    monkeypatch.setattr(streams.Events, "_on_event", lambda *_: None)
    b: AdapterHarness = await bench(PLAIN)
    container = await b.created("plain")
    events = b.engine.events(b.stack)
    await anext(events)
    waiting = asyncio.ensure_future(anext(events))
    await b.act(Action.START, "plain", container=container.id)
    with pytest.raises(EngineUnavailable, match="silent"):
        await asyncio.wait_for(waiting, 20)


async def test_acting_does_not_make_a_live_stream_look_dead(
    bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reconciler.engine.docker import engine

    monkeypatch.setattr(engine, "_EVENT_WITHIN", 2.0)
    b: AdapterHarness = await bench(PLAIN)
    container = await b.created("plain")
    async with aclosing(b.engine.events(b.stack)) as events:
        await anext(events)
        await b.act(Action.START, "plain", container=container.id)
        await b.act(Action.STOP, "plain", container=container.id, grace=2.0)
        await b.act(Action.REMOVE, "plain", container=container.id)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(_listen(events), 3.0)


@pytest.mark.pitfall(15)
async def test_an_inspection_that_hangs_costs_one_deadline(
    bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    b: AdapterHarness = await bench(PLAIN)
    container = await b.running("plain")
    original = b.engine._http._ask

    async def hanging(method: str, target: str, body: bytes | None, within: float) -> Any:
        if target.endswith(f"/{container.id}/json"):
            raise EngineUnavailable("stuck", "engine_silent")
        return await original(method, target, body, within)

    monkeypatch.setattr(b.engine._http, "_ask", hanging)
    observed = await b.engine.observe(b.stack, full=True)
    assert observed.complete, "known from before, and the list has its state"
    assert by_service(observed)["plain"].restart == container.restart
    stranger = DockerEngine(b.state, environ=b.bed.environ)
    monkeypatch.setattr(stranger._http, "_ask", hanging)
    observed = await stranger.observe(b.stack)
    assert observed.complete, "one container never makes the whole look incomplete"
    assert by_service(observed)["plain"].state is State.UNKNOWN
    await stranger.close()


# --- probes ---


@pytest.mark.pitfall(24)
async def test_a_hanging_check_runs_at_most_once(bench: Make) -> None:
    b: AdapterHarness = await bench(
        """
        services:
          hang: {image: "bed/standin:1", init: true, healthcheck: {test: [CMD, sleep, "777"], interval: 1h}}
        """
    )
    container = await b.running("hang")

    def hanging() -> int:
        top = b.client.top(container.id)
        return sum(process[-1].endswith("sleep 777") for process in top["Processes"])

    first = asyncio.ensure_future(b.engine.probe(container, 5.0))
    await until(lambda: asyncio.to_thread(hanging), lambda found: found == 1)
    began = time.monotonic()
    assert not await b.engine.probe(container, 10.0), "one is in flight"
    assert time.monotonic() - began < 5.0
    assert not await first
    assert not await b.engine.probe(container, 10.0), "the one that was given up still runs"
    assert hanging() == 1


# --- Compose's process ---


@pytest.mark.pitfall(7)
async def test_a_child_of_a_killed_daemon_is_awaited(tmp_path: Path) -> None:
    lock = tmp_path / "state" / "compose-only.lock"
    program = textwrap.dedent(
        f"""
        import asyncio, os, signal, subprocess
        from pathlib import Path
        from reconciler.engine.compose.subprocess import hold_lock

        async def main():
            async with hold_lock(Path({str(lock)!r}), 5.0) as descriptor:
                quiet = {{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}}
                child = subprocess.Popen(["sleep", "1000"], pass_fds=(descriptor,), **quiet)
                print(child.pid, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)

        asyncio.run(main())
        """
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    child = int(done.stdout)
    try:
        with pytest.raises(StepFailed) as caught:
            async with hold_lock(lock, 0.3):
                pass
        assert caught.value.reason == "compose_busy"
    finally:
        os.kill(child, signal.SIGKILL)
    async with hold_lock(lock, 5.0):
        assert stat.S_IMODE(lock.stat().st_mode) == 0o600


@pytest.fixture
def slow_compose(clean: PrivateEngine, tmp_path: Path) -> Iterator[Callable[[], Path]]:
    """Install a Compose that never ends as the user's plugin; return the file with its pid."""
    script = Path(clean.environ["DOCKER_CONFIG"]) / "cli-plugins" / "docker-compose"
    told = tmp_path / "pid"

    def install() -> Path:
        script.parent.mkdir(parents=True, exist_ok=True)
        version = '[ "$1" = version ] && { echo 2.99.0; exit; }'
        script.write_text(f"#!/bin/sh\n{version}\nsleep 1000 &\necho $! >{told}\nwait\n")
        script.chmod(0o755)
        return told

    yield install
    script.unlink(missing_ok=True)


def _content(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def _alive(process: int) -> bool:
    with contextlib.suppress(OSError):
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    return False


async def test_cancelling_kills_compose_and_its_children(
    bench: Make, slow_compose: Callable[[], Path]
) -> None:
    b: AdapterHarness = await bench(PLAIN)
    told = slow_compose()
    task = asyncio.ensure_future(b.act(Action.CREATE, "plain"))
    process = int(await until(lambda: asyncio.to_thread(_content, told), bool))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: asyncio.to_thread(_alive, process), lambda alive: not alive)


async def test_a_silent_compose_is_killed(
    bench: Make, slow_compose: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compose_module, "_CREATE_QUIET", 3.0)
    b: AdapterHarness = await bench(PLAIN)
    told = slow_compose()
    with pytest.raises(OutcomeUnknown):
        await b.act(Action.CREATE, "plain")
    await until(lambda: asyncio.to_thread(_alive, int(_content(told))), lambda alive: not alive)
    async with hold_lock(b.state / "compose-only.lock", 1.0):
        pass


async def test_without_compose_the_error_has_the_remedy(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    b: AdapterHarness = await bench(PLAIN)
    monkeypatch.setattr("reconciler.engine.compose.discovery._candidates", lambda _: iter(()))
    with pytest.raises(StepFailed, match="install") as caught:
        await b.act(Action.CREATE, "plain")
    assert caught.value.reason == "compose_missing"
    assert (await b.engine.info()).compose == ""
