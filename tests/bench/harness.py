"""What every scenario gets: one engine, one stack, the number of runs, and alternating runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tests.bench.figures import load
from tests.bench.fixture_stack import FixtureStack
from tests.support.harness.private_engine import PrivateEngine

Turn = Callable[[], Mapping[str, float]]
"""One turn of one side; leaves the world as it found it. Seconds by what was measured."""


@dataclass(kw_only=True)
class BenchHarness:
    """``runs``: of everything; ``slow_runs``: of scenarios that take minutes; ``idle``: seconds."""

    folder: Path
    runs: int = 5
    slow_runs: int = 5
    idle: float = 60.0
    engines: list[PrivateEngine] = field(default_factory=list)
    _states: int = 0

    @cached_property
    def engine(self) -> PrivateEngine:
        """Started when first needed: the plan is measured without one."""
        say("starting a private engine")
        engine = PrivateEngine()
        self.engines.append(engine)
        engine.start()
        return engine

    @cached_property
    def stand(self) -> FixtureStack:
        """The shipped stack with its images."""
        stand = FixtureStack(self.engine, self.folder / "stand")
        say("making the images")
        stand.make_images()
        return stand

    def state(self) -> Path:
        """A new state directory, for a daemon without learned times."""
        self._states += 1
        return self.folder / f"state{self._states}"

    def close(self) -> None:
        """Stop every engine; the folder belongs to the caller."""
        for engine in self.engines:
            engine.destroy()


def in_turn(sides: Mapping[str, Turn], runs: int, *, warm_up: int = 1) -> dict[str, dict[str, list[float]]]:
    """A B C A B C ...: the results by side and measure. The first rounds are discarded."""
    found: dict[str, dict[str, list[float]]] = {side: {} for side in sides}
    for number in range(warm_up + runs):
        for side, turn in sides.items():
            timings = turn()
            kept = number >= warm_up
            shown = ", ".join(f"{what} {seconds:.2f}" for what, seconds in timings.items())
            say(f"  {number - warm_up + 1 if kept else 'warm-up'} {side}: {shown}  [{load()}]")
            for what, seconds in timings.items() if kept else ():
                found[side].setdefault(what, []).append(seconds)
    return found


def say(text: str) -> None:
    """Print progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


@contextmanager
def reported_time(what: str) -> Iterator[None]:
    """Prints what is measured and how long it took."""
    began = time.monotonic()
    say(what)
    yield
    say(f"{what}: {time.monotonic() - began:.0f} s")
