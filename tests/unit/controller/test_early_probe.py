"""When a starting container is probed, and by how many at once."""

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


class Bed:
    """A prober on containers that are ready after so many seconds, with probes that take a while."""

    def __init__(self, ready_after: float = 3.0, takes: float = 0.01, slots: int = 2) -> None:
        self.asked: list[tuple[float, str]] = []
        self.found: list[tuple[str, float, float]] = []
        self.ready_after, self.takes = ready_after, takes
        self.flying = self.most = 0
        self.broken = False
        self.prober = Prober(
            self.probe,
            lambda c, not_at, at: self.found.append((c.id, round(not_at, 2), round(at, 2))),
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


def test_without_experience_it_begins_early_and_grows_rare_up_to_the_interval() -> None:
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
def test_with_experience_it_asks_when_it_was_ready_last_time(known: ReadyWindow, first: list[float]) -> None:
    assert list(islice(schedule(candidate(known=known)), len(first))) == first


def test_success_is_told_once_with_what_is_known_of_the_moment() -> None:
    async def story() -> None:
        bed = Bed(ready_after=3.0)
        bed.prober.follow([candidate()])
        await asyncio.sleep(60)
        ((name, not_at, at),) = bed.found
        assert name == "x"
        assert not_at < 3.0 <= at < 4.0
        assert bed.asked[-1][0] == at

    run_virtually(story())


def test_following_again_keeps_the_schedule_and_not_following_ends_it() -> None:
    async def story() -> None:
        bed = Bed(ready_after=1000.0)
        for _ in range(50):
            bed.prober.follow([candidate()])
            await asyncio.sleep(0.1)
        assert len(bed.asked) < 15
        bed.prober.follow([])
        count = len(bed.asked)
        await asyncio.sleep(100)
        assert len(bed.asked) == count

    run_virtually(story())


def test_only_so_many_probes_fly_and_one_per_container() -> None:
    async def story() -> None:
        bed = Bed(ready_after=20.0, takes=1.0, slots=2)
        bed.prober.follow([candidate(f"c{i}") for i in range(6)])
        await asyncio.sleep(60)
        assert bed.most == 2
        assert len(bed.found) == 6

    run_virtually(story())


def test_a_slow_check_is_not_asked_without_a_pause() -> None:
    async def story() -> None:
        bed = Bed(ready_after=1000.0, takes=4.0)
        bed.prober.follow([candidate()])
        await asyncio.sleep(100)
        assert len(bed.asked) < 18
        await bed.prober.close()

    run_virtually(story())


def test_a_check_that_hangs_is_left_to_the_engine() -> None:
    async def story() -> None:
        bed = Bed(takes=3600.0)
        bed.prober.follow([candidate()])
        await asyncio.sleep(300)
        assert len(bed.asked) == 1

    run_virtually(story())


def test_who_comes_late_asks_at_once_and_makes_up_for_nothing() -> None:
    async def story() -> None:
        bed = Bed(ready_after=1000.0)
        bed.prober.follow([candidate(age=500.0)])
        await asyncio.sleep(0.1)
        assert len(bed.asked) == 1
        await asyncio.sleep(60)
        assert len(bed.asked) <= 4
        await bed.prober.close()

    run_virtually(story())


@pytest.mark.timeout(10)
def test_a_clock_that_jumped_years_ahead_is_neither_followed_nor_learned_from() -> None:
    async def story() -> None:
        bed = Bed(ready_after=3.0)
        bed.prober.follow([candidate(age=3.15e8)])
        await asyncio.sleep(60)
        ((_, _, at),) = bed.found
        assert 3.0 <= at < 4.0

    run_virtually(story())


def test_an_engine_that_is_away_for_a_moment_does_not_end_the_probing() -> None:
    async def story() -> None:
        bed = Bed(ready_after=1.0)
        bed.broken = True
        bed.prober.follow([candidate()])
        await asyncio.sleep(2)
        bed.broken = False
        await asyncio.sleep(5)
        assert len(bed.found) == 1

    run_virtually(story())
