"""The table of rounds, and that several runs make one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.chaos.harness import Read
from tests.chaos.resource_usage import ResourceUsage
from tests.chaos.rounds import Outcome
from tests.chaos.table import load, save, table


def a_round(seed: int, **more: object) -> Outcome:
    faults, kinds = Counter({"kill": 1}), Counter({"container": 1})
    return Outcome(seed=seed, faults=faults, kinds=kinds, seconds=1.0, **more)  # type: ignore[arg-type]


def test_stored_results_make_the_same_table(tmp_path: Path) -> None:
    first = [a_round(1, reads=[Read(0.01, False), Read(0.02, True)], vitals=ResourceUsage(1, 1, 10, 2, 3))]
    second = [a_round(2, complaints=["lost"], lost=1)]
    save(first, tmp_path / "1")
    save(second, tmp_path / "2")
    assert load(tmp_path / "1") + load(tmp_path / "2") == first + second
    text = table(first + second)
    assert "| rounds held / played | 1 / 2 |" in text
    assert "| faults | 2: container 2 |" in text
    assert "| reads while the engine is frozen | 1, p99 20 ms |" in text


def test_growth_is_measured_from_the_twentieth_round_of_one_daemon() -> None:
    young = [a_round(n, vitals=ResourceUsage(1, n, 50_000_000, 9, 30)) for n in range(1, 20)]
    old = [a_round(n, vitals=ResourceUsage(2, n, 60_000_000 + 10_000 * n, 10, 30)) for n in range(1, 41)]
    assert "memory" not in table(young)
    text = table(young + old)
    assert "| daemon's memory (RSS, MB), its rounds 20-24 → 36-40 | 60.2 → 60.4 (+0.3%) |" in text
    assert "| daemon's threads, its rounds 20-24 → 36-40 | 10.0 → 10.0 (+0.0%) |" in text
