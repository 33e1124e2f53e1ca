"""How long ``plan()`` takes, and how that grows. Each size runs in its own process, like a daemon.

A process that held other stacks has a larger heap, and Python's cyclic garbage collector walks all of it.
``python -m tests.bench.planning GROUPS LOOK`` measures one size.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import median

from reconciler.daemon.collector import set_policy
from reconciler.model.desired import Desired
from reconciler.model.ledger import Ledger
from reconciler.model.observed import ObservedState, State
from reconciler.model.stack import Stack
from reconciler.planning.planner import plan
from tests.bench.fixture_stack import ROOT
from tests.bench.harness import BenchHarness, say
from tests.support.fixtures.builders import NOW, a_stack, container, desire, look, service

from .figures import Figure

SMALL, LARGE = 1_000, 10_000
LOOKS = ("settled", "missing", "half")
_TIMES = 7


def scenario(bench: BenchHarness) -> Iterator[Figure]:
    """1,000 groups of 10 services, and the growth to 10,000 against n log n."""
    # The growth allowed by n log n.
    allowed = 10 * math.log(LARGE * 10) / math.log(SMALL * 10)
    for kind in LOOKS:
        small, large = [], []
        for _ in range(max(3, bench.runs)):
            small.append(_in_a_process(SMALL, kind))
            large.append(_in_a_process(LARGE, kind))
            say(f"  {kind}: {small[-1]:.1f} ms, {large[-1]:.0f} ms")
        yield Figure(what=f"`plan()`, 1,000 groups of 10, {kind}", values=small, unit="ms", limit=150)
        yield Figure(
            what=f"the same, growth to 10,000 groups ({kind}); n log n allows {allowed:.1f}",
            values=large,
            against=small,
            unit="ms",
            limit=round(allowed, 1),
        )


def _in_a_process(groups: int, kind: str) -> float:
    command = [sys.executable, "-m", "tests.bench.planning", str(groups), kind]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=300)
    return float(median(json.loads(done.stdout)))


def build(groups: int, kind: str) -> tuple[Stack, Desired, ObservedState]:
    """Chains of ten inside each group; every fifth group starts a new chain of ``ready`` groups."""
    made = {}
    for g in range(groups):
        row = [service(f"g{g}s{s}", *([f"g{g}s{s - 1}:healthy"] if s else []), check=True) for s in range(10)]
        made[f"g{g}" + (f" needs g{g - 1}:ready" if g % 5 else "")] = row
    stack = a_stack(made)
    services = list(stack.services.values())
    here = {"settled": services, "missing": [], "half": services[::2]}[kind]
    seen = look(stack, *(container(of, State.RUNNING) for of in here))
    return stack, desire(stack, *stack.groups), seen


def measure(groups: int, kind: str) -> list[float]:
    """Milliseconds of each call, without values that are derived once per stack."""
    stack, desired, seen = build(groups, kind)
    plan(stack, desired, seen, Ledger(), NOW)
    # As in the daemon, after its start.
    set_policy()
    times = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        plan(stack, desired, seen, Ledger(), NOW)
        times.append((time.perf_counter() - began) * 1000)
    return times


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), sys.argv[2])))
