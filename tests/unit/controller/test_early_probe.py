"""When starting containers are probed, and how many at once."""

from __future__ import annotations

import asyncio
from itertools import islice, pairwise

import pytest

from reconciler.controller.early_probe import Prober, ProbeTarget, schedule
from reconciler.errors import EngineUnavailable
from reconciler.model.ledger import ReadyWindow
from reconciler.model.observed import Container, State
from tests.support.fixtures.builders import container, service
from tests.support.fixtures.virtual_time import run_virtually

DB = service("db", check=True)


def candidate(
    name: str = "x", *, age: float = 0.0, known: ReadyWindow | None = None, timeout: float = 5.0
) -> ProbeTarget:
    own = container(DB, State.RUNNING, id=name, started_at=1.0)
    return ProbeTarget(own, age, 30.0, timeout, known)


class ProberHarness:
    """A prober on containers that are ready after ``ready_after`` seconds; probes take ``takes`` seconds."""

    def __init__(self, ready_after: float = 3.0, takes: float = 0.01, slots: int = 2) -> None:
        self.asked: list[tuple[float, str]] = []
        self.successes: list[tuple[str, float, float]] = []
        self.ready_after, self.takes = ready_after, takes
        self.flying = self.most = 0
        self.broken = False
        self.prober = Prober(
            self.probe,
            lambda c, not_at, at: self.successes.append((c.id, round(not_at, 2), round(at, 2))),
            slots=slots,
        )
        self.began = asyncio.get_running_loop().time()

    def now(self) -> float:
        return asyncio.get_running_loop().time() - self.began

    async def probe(self, own: Container, timeout: float) -> bool:
        self.asked.append((round(self.now(), 2), own.id))
        if self.broken:
            raise EngineUnavailable("away")
        self.flying += 1
        self.most = max(self.most, self.flying)
        began = self.now()
        await asyncio.sleep(min(self.takes, timeout))
        self.flying -= 1
        return self.takes <= timeout and began >= self.ready_after


def test_first_start_is_probed_early_then_ever_less_up_to_the_interval() -> None:
    moments = list(islice(schedule(candidate()), 60))
    assert moments[0] == 0.25
    gaps = [b - a for a, b in pairwise(moments)]
    assert all(later >= earlier - 1e-9 for earlier, later in pairwise(gaps))
    assert gaps[-1] == pytest.approx(30.0)


@pytest.mark.parametrize(
    ("known", "first"),
    [
        (ReadyWindow(9.9, 10.0), [10.0]),
        (ReadyWindow(4.0, 10.0), [7.0, 10.0]),
        (ReadyWindow(0.0, 0.0), [0.25]),
    ],
)
def test_later_starts_are_probed_at_the_recorded_time(known: ReadyWindow, first: list[float]) -> None:
    assert list(islice(schedule(candidate(known=known)), len(first))) == first


def test_success_is_reported_once_with_its_time_bounds() -> None:
    async def scenario() -> None:
        harness = ProberHarness(ready_after=3.0)
        harness.prober.follow([candidate()])
        await asyncio.sleep(60)
        ((name, not_at, at),) = harness.successes
        assert name == "x"
        assert not_at < 3.0 <= at < 4.0
        assert harness.asked[-1][0] == at

    run_virtually(scenario())


def test_following_again_keeps_the_schedule_until_it_ends() -> None:
    async def scenario() -> None:
        harness = ProberHarness(ready_after=1000.0)
        for _ in range(50):
            harness.prober.follow([candidate()])
            await asyncio.sleep(0.1)
        assert len(harness.asked) < 15
        harness.prober.follow([])
        count = len(harness.asked)
        await asyncio.sleep(100)
        assert len(harness.asked) == count

    run_virtually(scenario())


def test_probes_are_limited_in_total_and_to_one_per_container() -> None:
    async def scenario() -> None:
        harness = ProberHarness(ready_after=20.0, takes=1.0, slots=2)
        harness.prober.follow([candidate(f"c{i}") for i in range(6)])
        await asyncio.sleep(60)
        assert harness.most == 2
        assert len(harness.successes) == 6

    run_virtually(scenario())


def test_slow_check_has_pauses_between_probes() -> None:
    async def scenario() -> None:
        harness = ProberHarness(ready_after=1000.0, takes=4.0)
        harness.prober.follow([candidate()])
        await asyncio.sleep(100)
        assert len(harness.asked) < 18
        await harness.prober.close()

    run_virtually(scenario())


def test_hanging_check_is_left_to_the_engine() -> None:
    async def scenario() -> None:
        harness = ProberHarness(takes=3600.0)
        harness.prober.follow([candidate()])
        await asyncio.sleep(300)
        assert len(harness.asked) == 1

    run_virtually(scenario())


def test_late_start_is_probed_at_once_and_missed_probes_are_dropped() -> None:
    async def scenario() -> None:
        harness = ProberHarness(ready_after=1000.0)
        harness.prober.follow([candidate(age=500.0)])
        await asyncio.sleep(0.1)
        assert len(harness.asked) == 1
        await asyncio.sleep(60)
        assert len(harness.asked) <= 4
        await harness.prober.close()

    run_virtually(scenario())


@pytest.mark.timeout(10)
def test_clock_jump_of_years_is_not_recorded_as_a_start_time() -> None:
    async def scenario() -> None:
        harness = ProberHarness(ready_after=3.0)
        harness.prober.follow([candidate(age=3.15e8)])
        await asyncio.sleep(60)
        ((_, _, at),) = harness.successes
        assert 3.0 <= at < 4.0

    run_virtually(scenario())


def test_unreachable_engine_does_not_end_probing() -> None:
    async def scenario() -> None:
        harness = ProberHarness(ready_after=1.0)
        harness.broken = True
        harness.prober.follow([candidate()])
        await asyncio.sleep(2)
        harness.broken = False
        await asyncio.sleep(5)
        assert len(harness.successes) == 1

    run_virtually(scenario())
