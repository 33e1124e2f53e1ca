"""The API version used with an engine."""

from __future__ import annotations

import pytest

from reconciler.engine.docker.http import _NEWEST_API, _common_api
from reconciler.errors import EngineUnavailable

OURS = ".".join(map(str, _NEWEST_API))


@pytest.mark.pitfall(38)
@pytest.mark.parametrize(
    ("newest", "oldest", "spoken"),
    [
        ("1.40", "1.12", "1.40"),  # Docker 19.03
        ("1.41", "1.12", "1.41"),  # 20.10
        ("1.45", "1.24", OURS),  # 26
        ("1.52", "1.44", "1.44"),  # 29, which refuses versions older than 1.44
        ("9.99", "1.24", OURS),
    ],
)
def test_the_newest_common_version_is_used(newest: str, oldest: str, spoken: str) -> None:
    assert _common_api({"ApiVersion": newest, "MinAPIVersion": oldest}) == spoken


@pytest.mark.pitfall(38)
def test_an_engine_that_is_too_old_is_an_error_with_the_needed_version() -> None:
    with pytest.raises(EngineUnavailable, match=r"Docker 19\.03") as told:
        _common_api({"ApiVersion": "1.39", "MinAPIVersion": "1.12"})
    assert told.value.reason == "engine_too_old"
