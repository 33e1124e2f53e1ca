"""Comments, messages and documents stay in plain English: a ceiling for each path, lowered over time."""

from __future__ import annotations

import pytest

from tests.support.plain_english import PATHS, ROOT, count

GOAL = 1.0
CEILINGS: dict[str, float] = {
    "reconciler": 3.5,
    "tests": 3.0,
}
"""Phrases per 1,000 words that a path may have until it is rewritten; other paths have ``GOAL``."""

FINISHED = (
    "reconciler/audit",
    "reconciler/desired_state",
    "reconciler/generations",
    "reconciler/host",
    "tests/rest",
    "tests/unit/api",
    "tests/unit/audit",
    "tests/unit/desired_state",
    "tests/unit/generations",
    "tests/unit/host",
    "desired-state",
)
"""Parts of a path with a higher ceiling that have ``GOAL`` already."""


@pytest.mark.parametrize("path", [*(path for path in PATHS if (ROOT / path).exists()), *FINISHED])
def test_a_path_stays_below_its_ceiling(path: str) -> None:
    counted = count(path)
    assert counted.rate <= CEILINGS.get(path, GOAL), "\n".join(
        f"{hit.path}:{hit.line}: {', '.join(hit.phrases)}" for hit in counted.hits[-50:]
    )
