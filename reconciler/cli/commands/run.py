"""``run``: hands its options to the daemon."""

from __future__ import annotations

from reconciler.cli.console import Console
from reconciler.cli.options.spec import OptionValues
from reconciler.options import RunOptions


def options_from(values: OptionValues) -> RunOptions:
    """The daemon's options, from the values of the command line."""
    return RunOptions(**values)


def run(values: OptionValues, console: Console) -> int:
    """The daemon, in the foreground; returns its exit code."""
    from reconciler.daemon.run import run as run_daemon

    console.out.flush()
    return run_daemon(options_from(values))
