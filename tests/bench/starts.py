"""Start and stop of everything: daemon, Compose and ideal scheduler on the same containers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from tests.bench.daemon import Daemon
from tests.bench.harness import BenchHarness, in_turn

from .figures import Figure
from .ideal import Ideal

_REST = 1.0
"""Seconds between start and stop: shims of the start before have calmed down, for both sides."""
LIMITS = {1: (0.85, 0.75), 10: (0.30, 0.25), 30: (0.12, 0.09)}


def warm(bench: BenchHarness) -> Iterator[Figure]:
    """Containers exist, stopped. Also measures stopping everything, which happens in between."""
    for interval in LIMITS:
        yield from _warm(bench, interval)


def warm1(bench: BenchHarness) -> Iterator[Figure]:
    """Only with intervals of 1 s, and the stop."""
    yield from _warm(bench, 1)


def ideal(bench: BenchHarness) -> Iterator[Figure]:
    """The daemon against the ideal scheduler, and the effect of a limit on the latter."""
    bench.stand.use_interval(1)
    state = bench.state()
    made = {f"ideal, {most} at once": Ideal(bench.stand, most=most) for most in (3, 4)}
    plain = Ideal(bench.stand)
    found = in_turn(
        {
            "ours": lambda: _our_turn(bench, state),
            "ideal": lambda: _ideal_turn(bench, plain),
            **{name: (lambda side=side: _ideal_turn(bench, side)) for name, side in made.items()},
        },
        bench.runs,
        warm_up=2,
    )
    ours = found["ours"]["start"]
    yield Figure(
        what="warm start of 18, against the ideal scheduler (all at once, probes every 0.25 s)",
        values=ours,
        against=found["ideal"]["start"],
        limit=1.05,
    )
    for name in made:
        yield Figure(what=f"the same, against the {name}", values=ours, against=found[name]["start"])


def cold(bench: BenchHarness) -> Iterator[Figure]:
    """Nothing created, nothing learned; images exist."""
    bench.stand.use_interval(1)
    bench.stand.remove()
    found = in_turn(
        {"ours": lambda: _our_cold_turn(bench), "compose": lambda: _compose_cold_turn(bench)}, bench.runs
    )
    yield Figure(
        what="cold start of 18, nothing created, intervals 1 s, against `compose up -d --wait`",
        values=found["ours"]["start"],
        against=found["compose"]["start"],
        limit=0.9,
    )
    bench.stand.create()


def _warm(bench: BenchHarness, interval: int) -> Iterator[Figure]:
    bench.stand.use_interval(interval)
    state = bench.state()
    runs = bench.runs if interval == 1 else bench.slow_runs
    # The first starts learn when each service is ready; they do not count.
    _our_turn(bench, state)
    found = in_turn({"ours": lambda: _our_turn(bench, state), "compose": lambda: _compose_turn(bench)}, runs)
    limit, aim = LIMITS[interval]
    yield Figure(
        what=f"warm start of 18, intervals {interval} s, against `compose up -d --wait`",
        values=found["ours"]["start"],
        against=found["compose"]["start"],
        limit=limit,
        aim=aim,
    )
    if interval == 1:
        yield Figure(
            what="stop of 18, against `compose stop`",
            values=found["ours"]["stop"],
            against=found["compose"]["stop"],
            limit=0.9,
        )


def _our_turn(bench: BenchHarness, state: object) -> Mapping[str, float]:
    before = bench.stand.ids()
    bench.stand.switch(())
    with Daemon(bench.stand, state) as daemon:  # type: ignore[arg-type]
        time.sleep(_REST)
        start = daemon.switch(None)
        _check(bench, before)
        stop = daemon.switch(())
    return {"start": start, "stop": stop}


def _compose_turn(bench: BenchHarness) -> Mapping[str, float]:
    before = bench.stand.ids()
    time.sleep(_REST)
    start = bench.stand.compose_up()
    _check(bench, before)
    return {"start": start, "stop": bench.stand.compose_stop()}


def _ideal_turn(bench: BenchHarness, side: Ideal) -> Mapping[str, float]:
    before = bench.stand.ids()
    time.sleep(_REST)
    start = side.start()
    _check(bench, before)
    return {"start": start, "stop": side.stop()}


def _our_cold_turn(bench: BenchHarness) -> Mapping[str, float]:
    bench.stand.switch(())
    with Daemon(bench.stand, bench.state()) as daemon:
        time.sleep(_REST)
        start = daemon.switch(None)
        _check(bench, None)
        daemon.switch(())
    bench.stand.remove()
    return {"start": start}


def _compose_cold_turn(bench: BenchHarness) -> Mapping[str, float]:
    time.sleep(_REST)
    start = bench.stand.compose_up()
    _check(bench, None)
    bench.stand.remove()
    return {"start": start}


def _check(bench: BenchHarness, before: Mapping[str, str] | None) -> None:
    """Assert that all services run and that no side recreated a container."""
    missing = bench.stand.not_up()
    if missing:
        raise RuntimeError(f"reported as up, but are not: {', '.join(missing)}")
    if before is not None and bench.stand.ids() != before:
        raise RuntimeError("containers were recreated in a warm start")
    time.sleep(_REST)
