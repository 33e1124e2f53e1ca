"""One harness for all rounds of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.harness import ChaosHarness, a_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChaosHarness]:
    with a_world(tmp_path_factory.mktemp("chaos")) as world:
        yield world
