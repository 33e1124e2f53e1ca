"""Detects early that a starting container is ready, by running its own health check through exec.

Docker probes first after a whole interval, and real stacks have intervals of 30 s: waiting for the
engine's own status would take most of a start's time. A probe costs a tenth of a CPU second, so the
first one is scheduled at the moment when former starts became ready, and few run at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Set
from dataclasses import replace
from typing import NamedTuple

from reconciler.errors import EngineError
from reconciler.model.ledger import Clock, Ledger, ReadyWindow
from reconciler.model.observed import Container, Health, ObservedState, State
from reconciler.model.stack import Stack
from reconciler.planning.planner import Plan

FIRST = 0.25
FACTOR = 1.25
CLOSE = 0.12
"""Share of the upper bound below which a window of start times counts as exact."""
LONGEST = 3600.0
"""Seconds; a longer start time means that the clock jumped."""
DEFAULT_SECONDS = 30.0
"""Interval and time-out of a health check that the stack does not describe; Docker's own defaults."""


class ProbeTarget(NamedTuple):
    """A container to probe. ``age`` is in seconds since its start, ``known`` the window of its last start.

    ``interval`` and ``timeout`` are those of its health check, in seconds.
    """

    container: Container
    age: float
    interval: float
    timeout: float
    known: ReadyWindow | None


def probe_targets(plan: Plan, stack: Stack, ledger: Ledger, now: Clock) -> list[ProbeTarget]:
    """Return the containers to probe: wanted ones that run a health check and are still starting."""
    return [
        _target(one.container, stack, ledger, now)
        for one in plan.leaves
        if one.wanted and one.container is not None and _needs_probe(one.container)
    ]


def _needs_probe(container: Container) -> bool:
    starting = container.state is State.RUNNING and container.health is Health.STARTING
    return starting and bool(container.check) and not container.probed


def _target(container: Container, stack: Stack, ledger: Ledger, now: Clock) -> ProbeTarget:
    check = stack.services[container.service].check
    return ProbeTarget(
        container,
        max(0.0, now.wall - container.started_at),
        check.interval if check else DEFAULT_SECONDS,
        check.timeout if check else DEFAULT_SECONDS,
        ledger.brackets.get(container.service),
    )


def starting_runs(observed: ObservedState) -> set[str]:
    """Return the runs of containers that the engine reports as starting."""
    return {c.run for c in observed.containers if c.health is Health.STARTING}


def with_probed(observed: ObservedState, probed: Set[str]) -> ObservedState:
    """Return the observation with the runs in ``probed`` marked as probed successfully."""
    if not probed:
        return observed
    containers = tuple(replace(c, probed=True) if c.run in probed else c for c in observed.containers)
    return replace(observed, containers=containers)


def schedule(candidate: ProbeTarget) -> Iterable[float]:
    """Yield the seconds after the container's start at which to probe; endless.

    With a recorded start, begin at its upper bound, or in the middle of its window if the window is wide.
    Without one, begin at 0.25 s. The gaps grow up to the interval of the health check.
    """
    at = gap = FIRST
    if candidate.known is not None and candidate.known.high > 0:
        low, high = candidate.known
        gap = min(FIRST, max(0.1, high * CLOSE))
        if high - low > gap:
            yield (low + high) / 2
        at = high
    while True:
        yield at
        at += gap
        gap = min(gap * FACTOR, max(candidate.interval, FIRST))


class Prober:
    """Runs at most one probe per container and ``slots`` in all.

    After a probe that hangs, its container is not probed again.

    ``succeeded`` receives the container and, in seconds after its start, when it was last probed as not
    ready (0: no earlier probe) and when the successful probe was sent.
    """

    def __init__(
        self,
        probe: Callable[[Container, float], Awaitable[bool]],
        succeeded: Callable[[Container, float, float], None],
        *,
        slots: int,
    ) -> None:
        self._probe = probe
        self._succeeded = succeeded
        self._slots = asyncio.Semaphore(slots)
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def follow(self, candidates: Iterable[ProbeTarget]) -> None:
        """Probe exactly these containers from now on; a probed start keeps its schedule."""
        wanted = {c.container.run: c for c in candidates}
        for key in self._tasks.keys() - wanted.keys():
            self._tasks.pop(key).cancel()
        for key in wanted.keys() - self._tasks.keys():
            self._tasks[key] = asyncio.create_task(self._follow(wanted[key]), name="probe")

    async def _follow(self, candidate: ProbeTarget) -> None:
        now = asyncio.get_running_loop().time
        # After a jump of the clock ``age`` may be years. The loop below would skip each moment since then one
        # by one, so begin now.
        started = now() - (candidate.age if candidate.age < LONGEST else 0.0)
        failed_at = sent_at = 0.0
        for at in schedule(candidate):
            # Skip moments that passed during a probe, or before probing began.
            if sent_at and started + at < now():
                continue
            await asyncio.sleep(max(0.0, started + at - now()))
            async with self._slots:
                sent_at = now() - started
                ready = await self._run_check(candidate)
            if ready:
                self._succeeded(candidate.container, failed_at, sent_at)
                return
            if now() - started - sent_at >= candidate.timeout:
                # Each hanging probe leaves a process in the container: wait for the engine's own check.
                return
            failed_at = sent_at

    async def _run_check(self, candidate: ProbeTarget) -> bool:
        try:
            return await self._probe(candidate.container, candidate.timeout)
        except EngineError:
            return False

    async def close(self) -> None:
        """Stop probing."""
        self.follow(())
        await asyncio.sleep(0)
