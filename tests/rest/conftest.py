"""The daemon as a process on a copy of the shipped stack, its engine in memory: HTTP is what is tested."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.harness.daemon import ROOT, Daemon

Start = Callable[..., Daemon]


@pytest.fixture
def a_daemon(tmp_path: Path) -> Iterator[Start]:
    """Starts daemons: ``a_daemon(port="8010")``, options as in the environment; they are ended afterwards.

    ``prepare`` may change the copy of the desired state first; ``program`` is what runs instead of the usual.
    """
    made: list[Daemon] = []

    def start(
        prepare: Callable[[Path], None] = lambda _: None, program: tuple[str, ...] = (), **options: str
    ) -> Daemon:
        desired = tmp_path / f"desired-{len(made)}"
        shutil.copytree(ROOT / "desired-state", desired)
        prepare(desired)
        told = {f"SERVICE_MANAGER_{name.upper()}": value for name, value in options.items()}
        environ = {**clean_environment(), "SERVICE_MANAGER_ENGINE": "simulated", **told}
        daemon = Daemon(desired, tmp_path / f"state-{len(made)}", environ)
        daemon.program = list(program) or daemon.program
        made.append(daemon)
        # With a key set, the wait for readiness has to send one.
        daemon.start(wait="api_key" not in options)
        return daemon

    yield start
    for daemon in made:
        if daemon.running:
            daemon.end()


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("SERVICE_MANAGER_")}
