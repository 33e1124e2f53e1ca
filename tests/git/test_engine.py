"""The plan that a pusher sees is that of the real engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.harness.private_engine import PrivateEngine
from tests.support.hosts.git_host import COMPOSE, GROUPS, GitHost


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "ignore:unclosed <socket.*family=1,:ResourceWarning")


@pytest.fixture(scope="module")
def engine() -> Iterator[PrivateEngine]:
    with PrivateEngine() as found:
        yield found


def test_a_push_answers_with_the_steps_that_follow(box: GitHost, engine: PrivateEngine) -> None:
    box.environ |= engine.environ | {"HOME": box.environ["HOME"]}
    box.init()
    ann = box.clone("ann")
    ann.save("web", {"groups.yaml": GROUPS.replace("web: off", "web: on")})
    done = ann.push()
    assert done.returncode == 0, done.said
    assert "steps will follow:" in done.said
    assert "remote:   app: pull, create, start" in done.said
    assert "remote:   db: pull, create, start" in done.said


def test_without_an_engine_a_push_is_taken_all_the_same(box: GitHost) -> None:
    box.environ["DOCKER_HOST"] = "unix:///nowhere/docker.sock"
    box.init()
    ann = box.clone("ann")
    ann.save("db", {"compose.yaml": COMPOSE.replace("db:1", "db:2")})
    done = ann.push()
    assert done.returncode == 0, done.said
    assert "db: image changed" in done.said
    assert "the engine does not answer" in done.said
