"""One engine, one package and one machine with it installed for all tests; separate machines for removals."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.harness.engine_proxy import EngineProxy
from tests.support.harness.private_engine import PrivateEngine
from tests.support.hosts.systemd_host import ROOT, SystemdHost, load


def pytest_configure(config: pytest.Config) -> None:
    # The SDK's client, with which tests inspect the engine, leaves its sockets open when the engine ends.
    config.addinivalue_line("filterwarnings", "ignore:unclosed <socket.*family=1,:ResourceWarning")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The first test that needs them waits for the image and the package.
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def engine() -> Iterator[PrivateEngine]:
    with PrivateEngine() as engine:
        load(engine)
        yield engine


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package that `make deb` builds."""
    folder = tmp_path_factory.mktemp("package")
    program = [sys.executable, str(ROOT / "systemd/install.py"), "deb", "--out", str(folder)]
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL)
    return next(folder.glob("*.deb"))


@pytest.fixture(scope="session")
def make_box(
    engine: PrivateEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], SystemdHost]]:
    proxies: list[EngineProxy] = []

    def make() -> SystemdHost:
        share = tmp_path_factory.mktemp("share")
        share.chmod(0o755)
        proxies.append(EngineProxy(engine.socket, share / "s").__enter__())
        proxies[-1].hide()
        return SystemdHost(engine, proxies[-1], share)

    yield make
    for proxy in proxies:
        proxy.__exit__()
