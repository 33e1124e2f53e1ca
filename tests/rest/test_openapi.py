"""The whole OpenAPI document against the real daemon, with every check that Schemathesis has.

Only the two streams are left out, which never end by themselves; they have tests of their own.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.rest.conftest import Start
from tests.support.fixtures.http_client import await_open
from tests.support.harness.daemon import Daemon

_HERE = Path(__file__).parent
_STREAMS = ("/services/events", "/services/logs/{service}")
KEY = "a-key-of-the-environment-that-is-long-enough"


def run(daemon: Daemon, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    excluded = [word for path in _STREAMS for word in ("--exclude-path", path)]
    command = [
        *(str(Path(sys.executable).parent / "schemathesis"), "--config-file", _HERE / "schemathesis.toml"),
        *("run", f"{daemon.url}/openapi.json", "--checks", "all", *excluded),
        *("--seed", "1", "--generation-database", "none", "--request-timeout", "30"),
        *("--no-color", "--warnings", "off", *more),
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280, check=False)


def test_it_does_what_its_document_says(a_daemon: Start, tmp_path: Path) -> None:
    daemon = a_daemon()
    await_open(daemon)
    done = run(daemon, tmp_path, "--max-examples", "15")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    sound(daemon)


def test_so_it_does_with_a_key(a_daemon: Start, tmp_path: Path) -> None:
    daemon = a_daemon(api_key=KEY)
    await_open(daemon)
    # One check less: it sends wrong keys by the dozen, and takes 429 for no way to refuse them.
    some = ("--max-examples", "5", "--phases", "examples,fuzzing", "--exclude-checks", "ignored_auth")
    done = run(daemon, tmp_path, "-H", f"X-API-Key: {KEY}", *some)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    sound(daemon)
    assert KEY not in daemon.log()


def sound(daemon: Daemon) -> None:
    """Nothing that it was sent was more than it can bear."""
    assert daemon.running
    assert "Traceback" not in daemon.log(), daemon.log()[-4000:]
