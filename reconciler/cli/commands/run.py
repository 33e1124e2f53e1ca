"""``run``: starts the daemon with the given options."""

from __future__ import annotations

from reconciler.cli.console import Console
from reconciler.cli.options.spec import OptionValues
from reconciler.options import RunOptions


def options_from(values: OptionValues) -> RunOptions:
    """Convert command-line values into daemon options."""
    return RunOptions(**values)


def run(values: OptionValues, console: Console) -> int:
    """Run the daemon in the foreground; return its exit code."""
    from reconciler.daemon.run import run as run_daemon

    console.out.flush()
    return run_daemon(options_from(values))
