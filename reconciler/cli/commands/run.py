"""``run``: hands its options to the daemon."""

from __future__ import annotations

from reconciler.cli.console import Console
from reconciler.cli.options.spec import Values
from reconciler.options import RunOptions


def options_from(values: Values) -> RunOptions:
    """The daemon's options, from the values of the command line."""
    return RunOptions(**values)


def run(values: Values, console: Console) -> int:
    """The daemon, in the foreground; returns its exit code."""
    from reconciler.daemon.run import run as run_daemon

    console.out.flush()
    return run_daemon(options_from(values))
