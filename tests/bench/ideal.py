"""An ideal scheduler for comparison: starts every container when its dependencies are ready. Nothing else.

No files, generations, snapshots or observations: threads, events, two calls of the SDK. It probes early
through exec at a fixed interval and learns nothing. ``most`` limits the starts in flight, the longest chain
first, to measure the effect of the limit alone.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from docker import APIClient

from tests.bench.fixture_stack import FixtureStack

CADENCE = 0.25
_LONGEST = 120.0


class _Turnstile:
    """Admits ``most`` at once, the greatest weight first."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._queue: list[tuple[int, int]] = []
        self._count = 0
        self._changed = threading.Condition()

    def enter(self, weight: int) -> None:
        with self._changed:
            self._count += 1
            mine = (-weight, self._count)
            heapq.heappush(self._queue, mine)
            while not (self._free and self._queue[0] == mine):
                self._changed.wait(_LONGEST)
            heapq.heappop(self._queue)
            self._free -= 1
            self._changed.notify_all()

    def leave(self) -> None:
        with self._changed:
            self._free += 1
            self._changed.notify_all()


class Ideal:
    """Starts and stops the services of a stack."""

    def __init__(self, stand: FixtureStack, *, most: int = 99, cadence: float = CADENCE) -> None:
        self._stand = stand
        self._cadence = cadence
        self._most = most
        names = set(stand.services)
        self._needs = {
            name: {
                other: how["condition"] == "service_healthy"
                for other, how in (stand.model[name].get("depends_on") or {}).items()
                if other in names
            }
            for name in stand.services
        }
        self._weight = _chains(self._needs)

    def start(self) -> float:
        """Start all; the seconds until the last is ready."""
        started = {name: threading.Event() for name in self._needs}
        ready = {name: threading.Event() for name in self._needs}
        turnstile = _Turnstile(self._most)
        ids = self._stand.ids()
        failures: list[BaseException] = []

        def bring_up(name: str) -> None:
            try:
                for other, healthy in self._needs[name].items():
                    (ready if healthy else started)[other].wait(_LONGEST)
                turnstile.enter(self._weight[name])
                try:
                    client.start(ids[name])
                finally:
                    turnstile.leave()
                began = time.monotonic()
                started[name].set()
                if "healthcheck" in self._stand.model[name]:
                    self._await(client, ids[name], name, began)
                ready[name].set()
            except BaseException as error:  # noqa: BLE001 - reported after the run
                failures.append(error)

        # A connection per thread, opened before the clock starts.
        client = APIClient(
            base_url=self._stand.engine.host, version="1.41", timeout=60, max_pool_size=2 * len(self._needs)
        )
        threads = [threading.Thread(target=bring_up, args=(name,), daemon=True) for name in self._needs]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_LONGEST)
        took = time.monotonic() - began
        client.close()
        if failures:
            raise failures[0]
        return took

    def stop(self) -> float:
        """Stop all, the dependents first; seconds."""
        stopped = {name: threading.Event() for name in self._needs}
        behind = {name: [n for n, needs in self._needs.items() if name in needs] for name in self._needs}
        ids = self._stand.ids()

        def bring_down(name: str) -> None:
            for other in behind[name]:
                stopped[other].wait(_LONGEST)
            try:
                self._stand.docker.stop(ids[name], timeout=30)
            finally:
                stopped[name].set()

        began = time.monotonic()
        with ThreadPoolExecutor(len(ids)) as pool:
            list(pool.map(bring_down, self._needs))
        return time.monotonic() - began

    def _await(self, client: APIClient, container: str, name: str, began: float) -> None:
        kind, *words = self._stand.model[name]["healthcheck"]["test"]
        command = words if kind == "CMD" else ["/bin/sh", "-c", *words]
        deadline = began + _LONGEST
        due = began + self._cadence
        while time.monotonic() < deadline:
            time.sleep(max(0.0, due - time.monotonic()))
            probe = client.exec_create(container, command)["Id"]
            client.exec_start(probe)
            if client.exec_inspect(probe)["ExitCode"] == 0:
                return
            due = max(due + self._cadence, time.monotonic())
        raise TimeoutError(f"{name} is not ready")


def _chains(needs: Mapping[str, Mapping[str, bool]]) -> dict[str, int]:
    """The length of the chain behind each."""

    def behind(name: str) -> int:
        return max((1 + behind(other) for other, before in needs.items() if name in before), default=0)

    return {name: behind(name) for name in needs}
