"""The whole OpenAPI document against the real daemon, with every check of Schemathesis.

The two streams are excluded, since they never end; other tests cover them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx

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


def test_the_api_does_what_its_document_describes(a_daemon: Start, tmp_path: Path) -> None:
    daemon = a_daemon()
    await_open(daemon)
    done = run(daemon, tmp_path, "--max-examples", "15")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert_sound(daemon)


def test_the_example_of_the_preview_is_accepted(a_daemon: Start) -> None:
    daemon = a_daemon()
    daemon.converged()
    operation = httpx.get(f"{daemon.url}/openapi.json").json()["paths"]["/services/plan"]["post"]
    (example,) = operation["requestBody"]["content"]["application/json"]["schema"]["examples"]
    nothing = httpx.post(f"{daemon.url}/services/plan", json=example)
    assert (nothing.status_code, nothing.json()["steps"]) == (200, [])
    one = httpx.post(f"{daemon.url}/services/plan", json={"groups": {"monitoring": "on"}})
    services = httpx.get(f"{daemon.url}/services/groups").json()["groups"]["monitoring"]["services"]
    assert {step["service"] for step in one.json()["steps"]} == set(services)


def test_the_api_with_a_key_does_what_its_document_describes(a_daemon: Start, tmp_path: Path) -> None:
    daemon = a_daemon(api_key=KEY)
    await_open(daemon)
    # ignored_auth sends dozens of wrong keys and does not accept 429 as a refusal.
    some = ("--max-examples", "5", "--phases", "examples,fuzzing", "--exclude-checks", "ignored_auth")
    done = run(daemon, tmp_path, "-H", f"X-API-Key: {KEY}", *some)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert_sound(daemon)
    assert KEY not in daemon.log()


def assert_sound(daemon: Daemon) -> None:
    """No request has ended the daemon or raised an unexpected error."""
    assert daemon.running
    assert "Traceback" not in daemon.log(), daemon.log()[-4000:]
