"""One browser for all tests; most pages show the small end-to-end stack on a real engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.e2e.conftest import engine, proxy, pytest_configure, recorder, sandbox, the_sandbox
from tests.support.fixtures.simulated_daemons import simulated_daemon
from tests.support.harness.chromium import BrowserWindow, chromium
from tests.support.harness.daemon import Daemon

__all__ = ["engine", "proxy", "pytest_configure", "recorder", "sandbox", "the_sandbox"]

Open = Callable[..., BrowserWindow]


# Only for these tests: while it exists, no event loop may run in this thread.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def visit(browser: Browser) -> Iterator[Open]:
    """Open a window on a daemon: ``visit(daemon, "#/map", color_scheme="dark")``. Errors fail the test."""
    windows: list[BrowserWindow] = []

    def visit(daemon: Daemon, address: str = "", *, load: bool = True, **options: Any) -> BrowserWindow:
        size = options.pop("size", (1280, 800))
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
        window = BrowserWindow(context, daemon.url)
        windows.append(window)
        return window.open(address) if load else window

    yield visit
    for window in windows:
        # Ignore requests that are still running.
        window.context.unroute_all(behavior="ignoreErrors")
        window.context.close()
    assert [error for window in windows for error in window.errors] == []


@pytest.fixture(scope="package")
def imaginary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with the shipped stack and the simulated engine, for tests without containers."""
    with simulated_daemon(tmp_path_factory.mktemp("imaginary")) as daemon:
        yield daemon.start()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path
