"""One private engine per process, with a proxy and an event recorder; most tests share one small stack."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.harness.engine_proxy import EngineProxy
from tests.support.harness.engine_recorder import EngineRecorder
from tests.support.harness.private_engine import PrivateEngine
from tests.support.harness.sandbox import Sandbox, make_standin


def pytest_configure(config: pytest.Config) -> None:
    # The SDK's client of the tests leaves its sockets open when the engine ends.
    config.addinivalue_line("filterwarnings", "ignore:unclosed <socket.*family=1,:ResourceWarning")


@pytest.fixture(scope="session")
def engine() -> Iterator[PrivateEngine]:
    with PrivateEngine() as engine:
        make_standin(engine)
        yield engine


@pytest.fixture(scope="session")
def proxy(engine: PrivateEngine) -> Iterator[EngineProxy]:
    with EngineProxy(engine.socket, engine.folder / "p") as proxy:
        yield proxy


@pytest.fixture(scope="session")
def recorder(engine: PrivateEngine) -> Iterator[EngineRecorder]:
    with EngineRecorder(engine) as recorder:
        yield recorder


@pytest.fixture(scope="session")
def the_sandbox(
    engine: PrivateEngine,
    proxy: EngineProxy,
    recorder: EngineRecorder,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Sandbox]:
    sandbox = Sandbox(engine, proxy, recorder, tmp_path_factory.mktemp("sandbox"))
    try:
        yield sandbox
    finally:
        sandbox.close()


@pytest.fixture
def sandbox(the_sandbox: Sandbox) -> Iterator[Sandbox]:
    """The converged small stack with a daemon; foreign containers must stay untouched in every test."""
    the_sandbox.settle()
    the_sandbox.strangers, restarts = the_sandbox.others(), the_sandbox.restarts
    yield the_sandbox
    if the_sandbox.engine.running:
        before, after = the_sandbox.strangers, the_sandbox.others()
        if restarts == the_sandbox.restarts:
            assert before.items() <= after.items()
        else:
            assert {name: id for name, (id, _) in before.items()}.items() <= {
                name: id for name, (id, _) in after.items()
            }.items()
