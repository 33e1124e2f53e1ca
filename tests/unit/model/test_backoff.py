"""Back-off delays between attempts."""

from __future__ import annotations

import pytest

from reconciler.model.backoff import JITTER, LONGEST, delay


@pytest.mark.parametrize(
    ("count", "expected"),
    [(-1, 0), (0, 0), (1, 1), (2, 2), (3, 4), (4, 8), (9, 256), (10, 300), (11, 300), (5000, 300)],
)
def test_delays_double_up_to_five_minutes(count: int, expected: float) -> None:
    assert delay(count, 0.5) == expected


def test_jitter_spreads_by_a_fifth_and_never_beyond_the_longest() -> None:
    assert delay(3, 0.0) == pytest.approx(4 * (1 - JITTER))
    assert delay(3, 0.999999) == pytest.approx(4 * (1 + JITTER), rel=1e-5)
    assert delay(50, 0.999999) == LONGEST
    assert delay(50, 0.0) == pytest.approx(LONGEST * (1 - JITTER))
