"""Each broken build is found: ``make chaos-proof``; too slow for ``make test``."""

from __future__ import annotations

import pytest

from tests.chaos.broken_builds import BUILDS
from tests.chaos.faults import FAULTS
from tests.chaos.harness import ChaosHarness
from tests.chaos.rounds import play

MOST = 40
PATIENCE = 20.0
"""Ten times what the real build took in the worst of its rounds; what needs longer is broken here."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", BUILDS)
def test_broken_build_is_found(world: ChaosHarness, name: str) -> None:
    build = BUILDS[name]
    world.use(name)
    faults = [fault for fault in FAULTS if build.shown_by in {fault.name, fault.kind}]
    assert any(play(world, seed, faults, PATIENCE).complaints for seed in range(1, MOST + 1)), build.mistake
