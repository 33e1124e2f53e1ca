"""Mounted files on a real engine: a change reaches the container once, and never harms it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.desired_state.mounted_files import SETTLE_TIME
from tests.e2e.test_drift import RESYNC, made, three_resyncs
from tests.support.harness.sandbox import COMPOSE, PROJECT, Sandbox

EDGE = """\
    container_name: small-edge
    depends_on: [web]
    networks: [outer]
"""
MOUNTED = (
    EDGE
    + """\
    volumes: ["./conf/edge.conf:/etc/edge.conf:ro", "./conf/folder:/folder"]
    configs: [{source: motd, target: /etc/motd}]
    secrets: [token]
"""
)
TOP = """
configs: {motd: {file: ./conf/motd}}
secrets: {token: {file: ./conf/token}}
"""


@pytest.fixture
def mounted(sandbox: Sandbox) -> Iterator[Sandbox]:
    """The sandbox with files mounted in ``edge``."""
    for name in ("edge.conf", "motd", "token", "folder/inside"):
        sandbox.save(f"conf/{name}", f"{name} one\n")
    before = int(sandbox.daemon.get("/services/status")["generation"])
    sandbox.save("compose.yaml", COMPOSE.replace(EDGE, MOUNTED) + TOP)
    sandbox.daemon.converged(sandbox.next_generation(before))
    yield sandbox
    for name in ("edge.conf", "motd", "token"):
        (sandbox.desired / "conf" / name).unlink(missing_ok=True)


def inside(sandbox: Sandbox, path: str) -> str:
    """A file inside the container of ``edge``."""
    pid = sandbox.one("edge")["State"]["Pid"]
    with open(f"/proc/{pid}/root{path}") as file:
        return file.read()


@pytest.mark.parametrize("how", ["replaced", "written in place"])
@pytest.mark.parametrize(
    ("name", "target"),
    [("edge.conf", "/etc/edge.conf"), ("motd", "/etc/motd"), ("token", "/run/secrets/token")],
)
def test_changed_file_recreates_its_service_once(mounted: Sandbox, how: str, name: str, target: str) -> None:
    mark = mounted.recorder.mark()
    if how == "replaced":
        mounted.save(f"conf/{name}", "two\n")
    else:
        (mounted.desired / "conf" / name).write_text("two\n")
    mounted.recorder.until(lambda e: e.action == "start" and e.service == "edge", since=mark)
    mounted.daemon.converged()
    assert inside(mounted, target) == "two\n"
    assert made(mounted, mark) == {"edge": 1}


@pytest.mark.pitfall(21)
def test_unchanged_file_recreates_nothing(mounted: Sandbox) -> None:
    mounted.daemon.end()
    mounted.daemon.start(RESYNC)
    mounted.daemon.converged()
    mark = mounted.recorder.mark()
    (mounted.desired / "conf/folder/inside").write_text("two\n")
    (mounted.desired / "conf/motd").touch()
    three_resyncs(mounted)
    assert mounted.recorder.touched(mark, PROJECT) == []


def test_file_changed_while_no_daemon_ran_is_noticed(mounted: Sandbox) -> None:
    mounted.daemon.end()
    mark = mounted.recorder.mark()
    mounted.save("conf/edge.conf", "two\n")
    mounted.daemon.start()
    mounted.recorder.until(lambda e: e.action == "start" and e.service == "edge", since=mark)
    mounted.daemon.converged()
    assert inside(mounted, "/etc/edge.conf") == "two\n"
    assert made(mounted, mark) == {"edge": 1}


def test_adopted_container_with_a_replaced_file_gets_the_new_one(mounted: Sandbox) -> None:
    mounted.daemon.end()
    (mounted.folder / "state" / "ledger.json").unlink()
    mounted.person("up", "-d", "--no-deps", "--force-recreate", "edge")
    mounted.save("conf/edge.conf", "two\n")
    mark = mounted.recorder.mark()
    mounted.daemon.start()
    mounted.recorder.until(lambda e: e.action == "start" and e.service == "edge", since=mark)
    mounted.daemon.converged()
    assert inside(mounted, "/etc/edge.conf") == "two\n"
    # A start is enough: the container then gets the current file.
    assert made(mounted, mark) == {}


@pytest.mark.pitfall(27)
def test_container_keeps_running_while_its_file_is_missing_and_names_it(mounted: Sandbox) -> None:
    started = mounted.one("edge")["State"]["StartedAt"]
    (mounted.desired / "conf/edge.conf").unlink()
    text = (mounted.desired / "compose.yaml").read_text()
    mounted.save(
        "compose.yaml",
        text.replace("container_name: small-edge", "container_name: small-edge\n    hostname: x"),
    )
    seen = mounted.daemon.until(lambda s: mounted.daemon.service("edge", s)["reason"] == "mount_missing")
    service = mounted.daemon.service("edge", seen)
    assert service["phase"] == "degraded"
    assert "conf/edge.conf" in service["message"]
    assert service["ready"]
    assert mounted.one("edge")["State"]["StartedAt"] == started
    mark = mounted.recorder.mark()
    mounted.save("conf/edge.conf", "back\n")
    mounted.recorder.until(lambda e: e.action == "start" and e.service == "edge", since=mark)
    mounted.daemon.converged()
    assert (mounted.desired / "conf/edge.conf").is_file()
    assert inside(mounted, "/etc/edge.conf") == "back\n"


def change_both(sandbox: Sandbox, hostname: str) -> int:
    """Save a definition of ``edge`` and its file together, and wait for both; returns the earlier mark."""
    mark = sandbox.recorder.mark()
    text = (sandbox.desired / "compose.yaml").read_text()
    # Regardless of delays of this test between the two.
    with sandbox.daemon.stopped():
        named = text.replace("name: small-edge", f"name: small-edge\n    hostname: {hostname}")
        sandbox.save("compose.yaml", named)
        sandbox.save("conf/edge.conf", "two\n")
    sandbox.recorder.until(lambda e: e.action == "start" and e.service == "edge", since=mark)
    sandbox.daemon.converged()
    assert inside(sandbox, "/etc/edge.conf") == "two\n"
    assert sandbox.one("edge")["Config"]["Hostname"] == hostname
    return mark


def test_definition_and_file_changed_together_are_one_recreation(mounted: Sandbox) -> None:
    mark = change_both(mounted, "y")
    mounted.daemon.end()
    mounted.daemon.start(RESYNC)
    three_resyncs(mounted)
    assert made(mounted, mark) == {"edge": 1}


@pytest.fixture
def slow_compose(mounted: Sandbox, tmp_path: Path) -> Iterator[Sandbox]:
    """Make the daemon's Compose slower than the delay after which a mounted file counts as changed."""
    plugin = tmp_path / "cli-plugins" / "docker-compose"
    plugin.parent.mkdir()
    plugin.write_text(
        f'#!/bin/sh\ncase "$*" in *" config "*) sleep {1.5 * SETTLE_TIME};; esac\n'
        f'exec {mounted.compose} "$@"\n'
    )
    plugin.chmod(0o755)
    mounted.daemon.end()
    mounted.daemon.environ["DOCKER_CONFIG"] = str(tmp_path)
    mounted.daemon.start()
    # Answered when the files have been read; until then the last valid state holds.
    mounted.daemon.post("/services/start/front")
    mounted.daemon.converged()
    yield mounted
    mounted.daemon.end()
    del mounted.daemon.environ["DOCKER_CONFIG"]


def test_file_saved_with_a_definition_waits_for_a_slow_compose(slow_compose: Sandbox) -> None:
    mark = change_both(slow_compose, "z")
    assert made(slow_compose, mark) == {"edge": 1}
