"""A running daemon shows no key anywhere and uses changed keys within a second."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.audit.query import Query, read
from reconciler.auth.credentials import VARIABLE
from reconciler.auth.keys import OPERATOR, KeyFile, make_key
from tests.support.fixtures.audit_log import wait_until
from tests.support.fixtures.auth import a_daemon, reached, x
from tests.support.fixtures.wait import until
from tests.unit.auth.test_keys import AT


def test_no_key_is_stored_or_shown_anywhere(tmp_path: Path) -> None:
    """Send correct and wrong keys in every place where one may be put by mistake, then search everything."""
    given, wrong = make_key(), make_key()
    state = tmp_path / "state"
    made = KeyFile(state).add("ann", OPERATOR, at=AT)
    secrets = (given, wrong, made)
    texts: list[str] = []
    with a_daemon(tmp_path, **{VARIABLE: given}) as (daemon, url), reached(url, daemon) as client:
        for key in secrets:
            for headers in (
                x(key),
                {"authorization": f"Bearer {key}"},
                {"authorization": f"Basic {key}"},
                {"cookie": key},
            ):
                for method, path in (
                    ("GET", "/services/status"),
                    ("POST", "/services/stop/web"),
                    ("POST", "/services/stop/nope"),
                    ("POST", "/services/session"),
                    ("GET", f"/services/status/{key}"),
                    ("GET", f"/services/status?key={key}"),
                    ("POST", f"/services/start/{key}"),
                    ("GET", f"/{key}"),
                ):
                    answer = client.request(method, path, headers=headers)
                    shown = str(answer.headers)
                    if answer.status_code != 404 and key not in path:
                        shown += answer.text
                    texts.append(shown)
        assert client.get("/services/status", headers=x(given)).status_code == 200
        # Entries that no request waits for are written a moment later.
        wait_until(
            lambda: {"ann", "environment", "anonymous"} <= {e.event.user for e in read(state, Query())}
        )
        audit = client.get("/services/audit?limit=1000", headers=x(made))
        texts.append(audit.text)
        process = Path(f"/proc/{daemon.pid}")
        texts += [(process / name).read_bytes().decode("latin-1") for name in ("cmdline", "environ")]
        texts.append(subprocess.run(["ps", "axeww"], check=False, capture_output=True, text=True).stdout)
    texts += [path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()]
    everything = "\n".join(texts)
    assert "desired state accepted" in everything
    for key in secrets:
        assert key not in everything
        assert key.removeprefix("sm_") not in everything


def test_a_running_daemon_uses_keys_added_by_the_command_line(tmp_path: Path) -> None:
    def key(*words: str) -> str:
        where = ("--state-dir", str(tmp_path / "state"))
        ran = subprocess.run(
            [sys.executable, "-m", "reconciler", "key", *words, *where],
            check=True,
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[3],
        )
        return ran.stdout.splitlines()[-1]

    with a_daemon(tmp_path) as (daemon, url), reached(url, daemon) as client:
        assert client.post("/services/stop/web").status_code == 202
        ann = key("add", "ann", "--role", "operator")
        until(lambda: client.get("/services/status").status_code == 401)
        entries = client.get("/services/audit", headers=x(ann)).json()["entries"]
        assert [e["user"] for e in entries if e["action"] == "stop"] == ["anonymous"]
        assert [e["source"] for e in entries if e["action"] == "stop"] == ["127.0.0.1"]
        assert [e["target"] for e in entries if e["action"] == "key_add"] == ["ann"]
        key("revoke", "ann")
        until(lambda: client.get("/services/status").status_code == 200)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_without_a_key_the_daemon_does_not_listen_on_the_network(tmp_path: Path, host: str) -> None:
    with a_daemon(tmp_path, "--host", host) as (daemon, _):
        assert daemon.wait(30) == 1
    log = (tmp_path / "log").read_text()
    assert "key add NAME" in log
    assert "Traceback" not in log
