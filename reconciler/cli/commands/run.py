"""``run``: starts the daemon with the given options."""

from __future__ import annotations

from typing import Any

from reconciler.cli.console import Console
from reconciler.options import RunOptions


def run(console: Console, **options: Any) -> int:
    """Run the daemon in the foreground with the fields of ``RunOptions``; return its exit code."""
    from reconciler.daemon.run import run as run_daemon

    console.out.flush()
    return run_daemon(RunOptions(**options))
