"""A push prints the plan for the real engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.harness.private_engine import PrivateEngine
from tests.support.hosts.git_host import COMPOSE, WEB_ON, GitHost


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "ignore:unclosed <socket.*family=1,:ResourceWarning")


@pytest.fixture(scope="module")
def engine() -> Iterator[PrivateEngine]:
    with PrivateEngine() as engine:
        yield engine


def test_a_push_prints_the_steps_that_follow(host: GitHost, engine: PrivateEngine) -> None:
    host.environ |= engine.environ | {"HOME": host.environ["HOME"]}
    host.init()
    ann = host.clone("ann")
    ann.save("web", {"groups.yaml": WEB_ON})
    done = ann.push()
    assert done.returncode == 0, done.output
    assert "steps will follow:" in done.output
    assert "remote:   app: pull, create, start" in done.output
    assert "remote:   db: pull, create, start" in done.output


def test_a_push_is_accepted_without_an_engine(host: GitHost) -> None:
    host.environ["DOCKER_HOST"] = "unix:///nowhere/docker.sock"
    host.init()
    ann = host.clone("ann")
    ann.save("db", {"compose.yaml": COMPOSE.replace("db:1", "db:2")})
    done = ann.push()
    assert done.returncode == 0, done.output
    assert "db: image changed" in done.output
    assert "the engine does not answer" in done.output
