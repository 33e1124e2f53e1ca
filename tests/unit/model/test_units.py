from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.model import units


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("700MB", 700_000_000),
        ("1.5GiB", 1_610_612_736),
        ("512 KiB", 524_288),
        ("1kb", 1000),
        ("7B", 7),
        ("0", 0),
    ],
)
def test_memory_is_decimal_without_an_i(text: str, amount: int) -> None:
    assert units.parse_memory(text) == amount


@pytest.mark.parametrize("text", ["", "700", "MB", "-1MB", "7 megabytes", "1,5GB", "nanMB"])
def test_memory_needs_a_number_and_a_unit(text: str) -> None:
    with pytest.raises(ValueError, match="700MB"):
        units.parse_memory(text)


@given(st.integers(0, 10**13))
def test_formatted_memory_parses_to_the_same_value(amount: int) -> None:
    assert units.parse_memory(units.format_memory(amount)) == amount


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2m", 120), ("1m30s", 90), ("26h0m0s", 93600), ("500ms", 0.5), ("1.5s", 1.5), ("1d", 86400), ("0", 0)],
)
def test_durations_are_written_as_in_compose(text: str, seconds: float) -> None:
    assert units.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "2", "2 m", "m", "-2m", "2 minutes", "1m 30s"])
def test_durations_need_units(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        units.parse_duration(text)


@given(st.integers(0, 10**7))
def test_formatted_durations_parse_to_the_same_value(seconds: int) -> None:
    assert units.parse_duration(units.format_duration(seconds)) == seconds


def test_a_short_duration_is_shown_in_milliseconds() -> None:
    assert units.format_duration(0.25) == "250ms"


def test_limits() -> None:
    assert units.parse_limit("3 in 30m") == (3, 1800)
    assert units.format_limit(3, 1800) == "3 in 30m"
    for text in ("3", "0 in 30m", "3 in", "3 in 0", "three in 30m"):
        with pytest.raises(ValueError):
            units.parse_limit(text)


def test_a_time_requires_a_zone() -> None:
    assert units.parse_time("2026-11-23T18:00:00Z") == units.parse_time("2026-11-23t19:00:00.000+01:00")
    for text in ("2026-11-23", "2026-11-23T18:00:00", "2026-11-23T18:00Z", "2026-13-23T18:00:00Z", "now"):
        with pytest.raises(ValueError):
            units.parse_time(text)


@given(st.integers(0, 4_000_000_000_000_000))
def test_formatted_times_parse_to_the_same_microsecond(microseconds: int) -> None:
    seconds = microseconds / 1_000_000
    once = units.parse_time(units.format_time(seconds))
    assert abs(once - seconds) < 1e-6
    assert units.parse_time(units.format_time(once)) == once


def test_times_are_formatted_to_the_precision_that_is_given() -> None:
    assert units.format_time(1_764_000_000.9996) == "2025-11-24T16:00:00.999600Z"
    assert units.format_time(1_764_000_000.9996, "milliseconds") == "2025-11-24T16:00:00.999Z"
    assert units.format_time(1_764_000_000.9996, "seconds") == "2025-11-24T16:00:00Z"
