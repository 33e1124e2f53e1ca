"""``python -m tests.chaos [--rounds N] [--seed S] [--only KIND]``: run rounds, print a table.

A failed round prints its seed; ``--seed S --rounds 1`` repeats it. ``--json FILE`` stores the results,
``--sum FILE...`` prints the table of stored results. ``--keep-daemon`` runs only faults that the daemon
survives, to measure its growth.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.faults import FAULTS, Fault
from tests.chaos.harness import ChaosHarness, a_world
from tests.chaos.rounds import Outcome, play
from tests.chaos.table import load, save, table


def main() -> int:
    """The command line; 0 when every round held."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1, help="of the first round; the others follow on it")
    parser.add_argument("--only", default="", help="kinds of faults or names of some, with commas between")
    parser.add_argument("--broken", default="", help="a broken build, to see it found")
    parser.add_argument("--keep-daemon", action="store_true", help="one daemon for all rounds")
    parser.add_argument("--keep-going", action="store_true", help="go on after a round that failed")
    parser.add_argument("--story", action="store_true", help="tell every round, not only those that fail")
    parser.add_argument("--json", type=Path, help="keep what came of the rounds in this file")
    parser.add_argument("--sum", type=Path, nargs="+", help="play nothing: the table of what was kept")
    arguments = parser.parse_args()
    if arguments.sum:
        print(table([outcome for file in arguments.sum for outcome in load(file)]))
        return 0
    only = {*filter(None, arguments.only.split(","))}
    faults = [fault for fault in FAULTS if not only or only & {fault.kind, fault.name}]
    if arguments.keep_daemon:
        faults = [fault for fault in faults if not fault.ends_daemon]
    if not faults:
        parser.error(f"no such fault: {arguments.only}; kinds: {', '.join(sorted({f.kind for f in FAULTS}))}")
    # SIGTERM ends it like Ctrl-C: engine, containers and mounts are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    outcomes: list[Outcome] = []
    with (
        tempfile.TemporaryDirectory(prefix="sm-chaos-", dir="/tmp") as folder,
        a_world(Path(folder)) as world,
    ):
        world.use(arguments.broken)
        world.keeps_daemon = arguments.keep_daemon
        try:
            _play(world, arguments, faults, outcomes)
        finally:
            if arguments.json:
                save(outcomes, arguments.json)
    print(table(outcomes))
    return int(any(outcome.complaints for outcome in outcomes))


def _args(arguments: argparse.Namespace) -> str:
    """The arguments that determine the faults of a seed, for `make chaos`."""
    words = [f"--only {arguments.only}"] if arguments.only else []
    words += ["--keep-daemon"] if arguments.keep_daemon else []
    words += [f"--broken {arguments.broken}"] if arguments.broken else []
    return f' ARGS="{" ".join(words)}"' if words else ""


def _play(
    world: ChaosHarness, arguments: argparse.Namespace, faults: Sequence[Fault], outcomes: list[Outcome]
) -> None:
    for seed in range(arguments.seed, arguments.seed + arguments.rounds):
        began = time.monotonic()
        outcome = play(world, seed, faults)
        outcomes.append(outcome)
        names = ", ".join(outcome.faults.elements())
        state = "FAILED" if outcome.complaints else f"converged in {outcome.seconds:.1f} s"
        print(f"{seed}: {names}: {state} ({time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
        if outcome.complaints or arguments.story:
            print(outcome, file=sys.stderr, flush=True)
        if outcome.complaints:
            print(f"  again: make chaos SEED={seed} ROUNDS=1{_args(arguments)}", file=sys.stderr, flush=True)
            print(world.daemon.log()[-3000:], file=sys.stderr, flush=True)
            if not arguments.keep_going:
                return


if __name__ == "__main__":
    sys.exit(main())
