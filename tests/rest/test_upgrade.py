"""A state directory that commit e4ed76e wrote is read as it is."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.rest.conftest import clean_environment
from tests.support.fixtures.http_client import ask
from tests.support.harness.daemon import ROOT, Daemon

RELEASE = ROOT / "tests" / "support" / "data" / "release_0_1"
KEY = (RELEASE / "key").read_text().strip()
GENERATION = 5


@pytest.fixture
def daemon(tmp_path: Path) -> Any:
    shutil.copytree(RELEASE, tmp_path / "release")
    for file in (tmp_path / "release" / "state").rglob("*"):
        file.chmod(0o700 if file.is_dir() else 0o600)
    environ = {**clean_environment(), "SERVICE_MANAGER_ENGINE": "simulated"}
    daemon = Daemon(tmp_path / "release" / "desired-state", tmp_path / "release" / "state", environ)
    daemon.start(wait=False)
    yield daemon
    daemon.end()


def _get(daemon: Daemon, path: str) -> Any:
    return ask(daemon, "GET", path, headers={"X-API-Key": KEY}).value


def test_upgrade_keeps_generation_history_audit_log_and_keys(daemon: Daemon) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            status = _get(daemon, "/services/status")
        except OSError:
            status = {}
        if status.get("converged") and status["observed_generation"] == GENERATION:
            break
        assert time.monotonic() < deadline, daemon.log()
        time.sleep(0.05)
    assert status["generation"] == GENERATION, "the upgrade is not a change of desired state"
    assert status["errors"] == status["warnings"] == []
    entries = _get(daemon, "/services/history")["entries"]
    assert [(entry["generation"], entry["author"]) for entry in entries][-4:] == [
        (generation, "ann") for generation in range(2, GENERATION + 1)
    ]
    command = [sys.executable, "-m", "reconciler", "audit", "--verify", "--state-dir", str(daemon.state)]
    verified = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert verified.returncode == 0, verified
    assert ask(daemon, "GET", "/services/status").status == 401, "the key store is in force"
