"""Secrets from variables and lifecycle hooks, end to end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.harness.sandbox import COMPOSE, Sandbox

EDGE = """\
    container_name: small-edge
    depends_on: [web]
    networks: [outer]
"""
MORE = (
    EDGE
    + """\
    secrets: [token]
    post_start: [{command: [sh, -c, "echo up >>/data/hooks"]}]
    pre_stop: [{command: [sh, -c, "echo down >>/data/hooks"]}]
    volumes: ["edge-data:/data"]
"""
)
TOP = "\nsecrets: {token: {environment: EDGE_TOKEN}}\n"
ONE, TWO = "planted-value-1", "planted-value-2"


@pytest.fixture
def hooked(sandbox: Sandbox) -> Iterator[Sandbox]:
    """The sandbox with a secret from a variable and hooks in ``edge``."""
    (sandbox.desired / ".env").write_text(f"EDGE_TOKEN={ONE}\n")
    before = int(sandbox.daemon.get("/services/status")["generation"])
    text = COMPOSE.replace(EDGE, MORE).replace(
        "volumes: {db-data: {}", "volumes: {edge-data: {}, db-data: {}"
    )
    sandbox.save("compose.yaml", text + TOP)
    sandbox.daemon.converged(sandbox.next_generation(before))
    yield sandbox
    (sandbox.desired / ".env").unlink(missing_ok=True)


def inside(sandbox: Sandbox, path: str) -> str:
    """A file inside the container of ``edge``."""
    pid = sandbox.one("edge")["State"]["Pid"]
    return Path(f"/proc/{pid}/root{path}").read_text()


def test_secret_from_a_variable_and_hooks_are_applied_at_every_start(hooked: Sandbox) -> None:
    assert inside(hooked, "/run/secrets/token") == ONE
    assert inside(hooked, "/data/hooks").split() == ["up"]
    first = hooked.one("edge")["Id"]
    # Killed: the same container, its file and its hook again.
    hooked.docker.kill(first)
    hooked.daemon.until(lambda _: hooked.one("edge")["State"]["Running"])
    hooked.daemon.converged()
    assert inside(hooked, "/run/secrets/token") == ONE
    assert inside(hooked, "/data/hooks").split() == ["up", "up"]
    # Another value: one generation, one recreation, one run of the hooks.
    before = int(hooked.daemon.get("/services/status")["generation"])
    (hooked.desired / ".env").write_text(f"EDGE_TOKEN={TWO}\n")
    hooked.daemon.converged(hooked.next_generation(before))
    assert hooked.one("edge")["Id"] != first
    assert inside(hooked, "/run/secrets/token") == TWO
    assert inside(hooked, "/data/hooks").split() == ["up", "up", "down", "up"]
    # The only copies are frozen sources with mode 0600.
    state = Path(hooked.daemon.state)
    holders = [p for p in state.rglob("*") if p.is_file() and b"planted-value" in p.read_bytes()]
    assert {path.parent.name for path in holders} == {"contents"}
    assert {path.stat().st_mode & 0o777 for path in (*holders, state / "digest.key")} == {0o600}
    assert "planted-value" not in hooked.daemon.log()
    assert "planted-value" not in str(hooked.one("edge"))
