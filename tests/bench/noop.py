"""A pass woken by an event with nothing to do: its duration and its engine calls.

In this process: ``Loop`` and ``DockerEngine`` as the daemon wires them, with ``LoopHooks.on_pass`` for the
duration (observe, plan, publish). Durations are measured without the proxy that counts the calls.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

from reconciler.controller.loop import Loop
from reconciler.controller.loop_hooks import LoopHooks
from reconciler.controller.snapshot import SnapshotPublisher
from reconciler.desired_state.store import Store
from reconciler.engine.compose.resolve import resolve
from reconciler.engine.docker.engine import DockerEngine
from reconciler.model.accepted_state import AcceptedState
from reconciler.model.desired import Desired, GroupState
from tests.bench.harness import BenchHarness, say
from tests.bench.recording_proxy import RecordingProxy
from tests.support.harness.private_engine import IMAGE

from .figures import Figure

_TIMES = 20
_APART = 0.4


def scenario(bench: BenchHarness) -> Iterator[Figure]:
    """Two events: one about a foreign container with a name of the stack, one about a running service."""
    bench.stand.use_interval(None)
    bench.stand.compose("up", "-d", "--wait", *_without_checks(bench))
    bench.engine.import_image(IMAGE)
    docker = bench.stand.docker
    # A foreign container takes and releases the name of an unmanaged service: worth one observation.
    stranger = docker.create_container(IMAGE, name="stranger")["Id"]
    names = [bench.stand.container("minio-init"), "stranger"]
    managed = bench.stand.container("alert-engine")
    pokes = {
        "a stranger was renamed": lambda n: docker.rename(stranger, names[n % 2]),
        "a service's container was updated (to the same)": lambda _: docker.update_container(
            managed, restart_policy={"Name": "unless-stopped"}
        ),
    }
    with RecordingProxy(bench.engine.socket, bench.folder / "noop.sock") as proxy:
        for what, poke in pokes.items():
            took = asyncio.run(_passes(bench, bench.engine.host, poke))
            begun = len(proxy.calls)
            asyncio.run(_passes(bench, proxy.host, poke, proxy))
            counts = [float(n) for n in _COUNTS]
            say(f"  {what}: {[c.path for c in proxy.calls[begun:][-3:]]}")
            limit = 1.0 if "stranger" in what else None
            yield Figure(what=f"no-op pass, {what}", values=took, unit="ms", limit=10)
            yield Figure(what="calls of the engine in it", values=counts, unit="calls", limit=limit)
    docker.remove_container(stranger, force=True)
    bench.stand.compose_stop()


_COUNTS: list[int] = []


async def _passes(
    bench: BenchHarness, host: str, poke: object, proxy: RecordingProxy | None = None
) -> list[float]:
    took: list[float] = []
    _COUNTS.clear()
    async with _converged(bench, host, took):
        for number in range(_TIMES):
            took_before, began = len(took), time.monotonic()
            await asyncio.to_thread(poke, number)  # type: ignore[arg-type]
            await asyncio.sleep(_APART)
            if proxy is not None:
                _COUNTS.append(len(proxy.since(began)))
            if len(took) == took_before:
                raise RuntimeError("the event woke no pass")
    return [seconds * 1000 for seconds in took]


@asynccontextmanager
async def _converged(bench: BenchHarness, host: str, took: list[float]) -> AsyncIterator[None]:
    """The loop on the converged stack."""
    store = Store(
        bench.stand.desired,
        lambda *given: resolve(*given, environ=bench.engine.environ),
        extra_compose=list(bench.stand.files),
    )
    state = bench.state()
    state.mkdir()
    loaded = await store.load()
    model = state / "model.json"
    model.write_bytes(loaded.resolved.text)
    stack = replace(loaded.stack, model=str(model))
    engine = DockerEngine(state, environ={**bench.engine.environ, "DOCKER_HOST": host})
    snapshots = SnapshotPublisher()
    loop = Loop(
        engine,
        snapshots,
        wall=time.time,
        chance=random.random,
        hooks=LoopHooks(on_pass=lambda seconds, _: took.append(seconds)),
    )
    desired = Desired(groups={name: GroupState(on=True) for name in stack.groups}, generation=1)
    loop.set_target(AcceptedState(stack, desired, time.time()))
    running = asyncio.create_task(loop.run())
    try:
        async with asyncio.timeout(60):
            while not snapshots.current.converged:
                await snapshots.newer_than(snapshots.current.serial)
        # Health check results of the engine still arrive as events.
        await asyncio.sleep(1.0)
        took.clear()
        yield
    finally:
        await loop.stop()
        await running
        await engine.close()


def _without_checks(bench: BenchHarness) -> list[str]:
    return list(bench.stand.services)
