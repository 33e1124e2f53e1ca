"""``python -m tests.chaos [--rounds N] [--seed S] [--only KIND]``: play rounds, print a table.

A round that fails prints its seed; ``--seed S --rounds 1`` plays it again.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tests.chaos.faults import FAULTS
from tests.chaos.rounds import Outcome, play
from tests.chaos.world import World, a_world


def main() -> int:
    """The command line; 0 when every round held."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1, help="of the first round; the others follow on it")
    parser.add_argument("--only", default="", help="a kind of fault, or the name of one")
    parser.add_argument("--broken", default="", help="a broken build, to see it found")
    parser.add_argument("--keep-going", action="store_true", help="go on after a round that failed")
    parser.add_argument("--story", action="store_true", help="tell every round, not only those that fail")
    arguments = parser.parse_args()
    faults = [f for f in FAULTS if arguments.only in {"", f.kind, f.name}]
    if not faults:
        parser.error(f"no such fault: {arguments.only}; kinds: {', '.join(sorted({f.kind for f in FAULTS}))}")
    # SIGTERM ends it as Ctrl-C does: engine, containers and mounts go with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        tempfile.TemporaryDirectory(prefix="sm-chaos-", dir="/tmp") as folder,
        a_world(Path(folder)) as world,
    ):
        world.use(arguments.broken)
        outcomes = _play(world, arguments, faults)
    print(table(outcomes))
    return int(any(outcome.complaints for outcome in outcomes))


def _play(world: World, arguments: argparse.Namespace, faults: Sequence[object]) -> list[Outcome]:
    outcomes = []
    for seed in range(arguments.seed, arguments.seed + arguments.rounds):
        began = time.monotonic()
        outcome = play(world, seed, faults)  # type: ignore[arg-type]
        outcomes.append(outcome)
        names = ", ".join(outcome.faults.elements())
        state = "FAILED" if outcome.complaints else f"converged in {outcome.seconds:.1f} s"
        print(f"{seed}: {names}: {state} ({time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
        if outcome.complaints or arguments.story:
            print(outcome, file=sys.stderr, flush=True)
        if outcome.complaints:
            print(f"  again: make chaos SEED={seed} ROUNDS=1", file=sys.stderr, flush=True)
            print(world.daemon.log()[-3000:], file=sys.stderr, flush=True)
            if not arguments.keep_going:
                break
    return outcomes


def table(outcomes: Sequence[Outcome]) -> str:
    """What was survived, as Markdown."""
    kinds: Counter[str] = sum((outcome.kinds for outcome in outcomes), Counter())
    held = [outcome for outcome in outcomes if not outcome.complaints]
    seconds = [outcome.seconds for outcome in held] or [0.0]
    every = [read for outcome in outcomes for read in outcome.reads]
    frozen = [read.seconds for read in every if read.frozen]
    rows = [
        ("rounds held / played", f"{len(held)} / {len(outcomes)}"),
        ("faults", f"{kinds.total()}: {', '.join(f'{kind} {n}' for kind, n in kinds.most_common())}"),
        ("as desired after the last fault", f"median {median(seconds):.1f} s, worst {max(seconds):.1f} s"),
        ("acts beyond the needed", str(sum(outcome.extra for outcome in outcomes))),
        ("writes acknowledged", str(sum(outcome.acks for outcome in outcomes))),
        ("reads", f"{len(every)}, p99 {_p99([r.seconds for r in every]):.0f} ms"),
        ("reads while the engine is frozen", f"{len(frozen)}, p99 {_p99(frozen):.0f} ms"),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {what} | {value} |" for what, value in rows)])


def _p99(seconds: Sequence[float]) -> float:
    """In milliseconds; 0 where nothing was measured."""
    return 1000 * sorted(seconds)[int(len(seconds) * 0.99)] if seconds else 0.0


if __name__ == "__main__":
    sys.exit(main())
