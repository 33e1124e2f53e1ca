"""Time until a killed container runs again, against the simplest possible restarter."""

from __future__ import annotations

import time
from collections.abc import Iterator

from tests.bench.daemon import Daemon
from tests.bench.event_recorder import EventRecorder
from tests.bench.figures import Figure, load
from tests.bench.harness import BenchHarness, say

# Services without dependents and health check; each is killed once per daemon, because a second failure
# within ten minutes waits for its back-off.
LEAVES = (
    "alert-engine",
    "kafka-ui",
    "kafka-consumer",
    "elasticsearch-consumer",
    "opensearch-dashboards",
    "promtail",
    "cadvisor",
)
_CALM = 1.5


class Restarter:
    """Starts what an event reports as ended, without order or desired state."""

    def __init__(self, bench: BenchHarness) -> None:
        self._client = bench.engine.client
        self.active = False

    def heard(self, action: str, name: str, id: str) -> None:
        """Start ended containers."""
        if self.active and action == "die":
            self._client.start(id)


def scenario(bench: BenchHarness) -> Iterator[Figure]:
    """From the kill to the engine's start event, by an independent listener."""
    bench.stand.use_interval(None)
    restarter = Restarter(bench)
    ours: list[float] = []
    theirs: list[float] = []
    bench.stand.switch(())
    with (
        Daemon(bench.stand, bench.state()) as daemon,
        EventRecorder(bench.engine) as listener,
        EventRecorder(bench.engine, restarter.heard),
    ):
        daemon.switch(None)
        time.sleep(_CALM)
        for leaf in LEAVES[: max(bench.runs, 1)]:
            ours.append(_kill(bench, listener, leaf))
            daemon.settled(0)
            # Suspended while the other side runs; it catches up afterwards.
            daemon.pause()
            restarter.active = True
            try:
                theirs.append(_kill(bench, listener, leaf))
            finally:
                restarter.active = False
                daemon.resume()
            time.sleep(_CALM)
            say(f"  {leaf}: ours {ours[-1] * 1000:.0f} ms, bare {theirs[-1] * 1000:.0f} ms  [{load()}]")
    bench.stand.compose_stop()
    yield Figure(
        what="killed container runs again, against a bare event-watching restart",
        values=[seconds * 1000 for seconds in ours],
        against=[seconds * 1000 for seconds in theirs],
        unit="ms",
        limit=1.2,
    )


def _kill(bench: BenchHarness, listener: EventRecorder, service: str) -> float:
    name = bench.stand.container(service)
    time.sleep(0.3)
    at = time.time()
    bench.stand.docker.kill(name)
    started = listener.first("start", name, at)
    time.sleep(0.5)
    return started - at
