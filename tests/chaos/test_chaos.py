"""Twenty rounds hold."""

from __future__ import annotations

import pytest

from tests.chaos.harness import ChaosHarness
from tests.chaos.rounds import play

ROUNDS = 20
SEED = 1000


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(SEED, SEED + ROUNDS))
def test_round_holds(world: ChaosHarness, seed: int) -> None:
    world.use()
    outcome = play(world, seed)
    assert not outcome.complaints, f"{outcome}\n\nagain: make chaos SEED={seed} ROUNDS=1"
