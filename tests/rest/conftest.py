"""The daemon as a process on a copy of the shipped stack with a simulated engine."""

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
    """Start daemons: ``a_daemon(port="8010")`` with environment options; they are stopped afterwards.

    ``prepare`` may change the copy of the desired state first; ``program`` replaces the usual command.
    """
    daemons: list[Daemon] = []

    def start(
        prepare: Callable[[Path], None] = lambda _: None, program: tuple[str, ...] = (), **options: str
    ) -> Daemon:
        desired = tmp_path / f"desired-{len(daemons)}"
        shutil.copytree(ROOT / "desired-state", desired)
        prepare(desired)
        variables = {f"SERVICE_MANAGER_{name.upper()}": value for name, value in options.items()}
        environ = {**clean_environment(), "SERVICE_MANAGER_ENGINE": "simulated", **variables}
        daemon = Daemon(desired, tmp_path / f"state-{len(daemons)}", environ)
        daemon.program = list(program) or daemon.program
        daemons.append(daemon)
        # With a key set, the wait for readiness has to send one.
        daemon.start(wait="api_key" not in options)
        return daemon

    yield start
    for daemon in daemons:
        if daemon.running:
            daemon.end()


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("SERVICE_MANAGER_")}
