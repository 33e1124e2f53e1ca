"""``python -m tests.bench [NAME ...]``: measure, print the table."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

from tests.bench.harness import BenchHarness, reported_time, say

from .figures import Figure, as_json, load, table
from .scenarios import SCENARIOS


def main() -> int:
    """The command line; 0 when measured, however slow; 1 when a scenario failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(SCENARIOS)}; default: all but variants")
    parser.add_argument("--runs", type=int, default=5, help="of each; at least 5 for figures to quote")
    parser.add_argument("--slow-runs", type=int, help="of starts at 10 s and 30 s; default: as --runs")
    parser.add_argument("--idle", type=float, default=60.0, help="seconds of watching the idle daemon")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every single value, too")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in SCENARIOS]
    if unknown:
        parser.error(f"no such scenario: {', '.join(unknown)}")
    # SIGTERM ends it like Ctrl-C, with engine and containers.
    signal.signal(signal.SIGTERM, _interrupt)
    names = arguments.names or [name for name, scenario in SCENARIOS.items() if scenario.usual]
    folder = Path(tempfile.mkdtemp(prefix="sm-bench-", dir="/tmp"))
    bench = BenchHarness(
        folder=folder,
        runs=arguments.runs,
        slow_runs=arguments.slow_runs or arguments.runs,
        idle=arguments.idle,
    )
    figures: list[Figure] = []
    failed = False
    try:
        for name in names:
            try:
                with reported_time(name):
                    for figure in SCENARIOS[name].run(bench):
                        figures.append(figure)
                        say(f"  = {' | '.join(figure.row())}")
            except (RuntimeError, OSError, KeyError) as error:
                failed = True
                say(f"{name} failed: {error}")
            # After each, so that an interrupted run keeps its results.
            if arguments.json:
                arguments.json.write_text(as_json(figures))
    except KeyboardInterrupt:
        failed = True
        say("interrupted; cleaning up")
    finally:
        bench.close()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{os.cpu_count()} cores, load {load()}, {arguments.runs} runs. Ratios: ours by theirs, in turn.\n")
    print(table(figures))
    return int(failed)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
