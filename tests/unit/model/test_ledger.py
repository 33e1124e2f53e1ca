"""Functions of the ledger: each takes a ledger and returns a new one."""

from __future__ import annotations

from reconciler.model.backoff import Failure
from reconciler.model.ledger import (
    Clock,
    ContainerExit,
    Ledger,
    ReadySince,
    ReadyWindow,
)
from reconciler.model.ledger_updates import (
    expected_start_time,
    forget_recovered,
    omit,
    record_exit,
    record_failure,
    record_start_time,
)
from tests.support.fixtures.builders import NOW

END = ContainerExit("id-a", 5.0, 137, False)


def fail(ledger: Ledger, inputs: str = "in", free: int = 0, now: Clock = NOW) -> Ledger:
    return record_failure(
        ledger, "a", inputs=inputs, reason="no", error="why", now=now, chance=0.5, free=free
    )


def end(ledger: Ledger, exit_: ContainerExit = END, inputs: str = "in") -> Ledger:
    return record_exit(ledger, "a", exit_, inputs=inputs, now=NOW, chance=0.5)


def test_each_failure_delays_the_next_attempt_longer() -> None:
    ledger = fail(fail(Ledger()))
    assert ledger.failures["a"] == Failure(2, NOW.mono + 2, "in", "no", "why", NOW.wall)


def test_failures_with_other_inputs_count_from_one() -> None:
    assert fail(fail(Ledger()), inputs="new").failures["a"].attempts == 1


def test_a_failure_unrelated_to_the_service_is_first_retried_at_once() -> None:
    once = fail(Ledger(), free=1)
    assert once.failures["a"].due == NOW.mono
    assert fail(once, free=1).failures["a"].due == NOW.mono + 1


def test_the_first_repair_after_an_exit_is_immediate_and_later_ones_are_not() -> None:
    first = end(Ledger())
    assert first.failures["a"].due == NOW.mono
    assert first.exits["a"] == END
    second = end(first, END._replace(finished_at=6.0))
    assert second.failures["a"].due == NOW.mono + 1


def test_recording_the_same_exit_again_changes_nothing() -> None:
    once = end(Ledger())
    assert end(once) is once


def test_an_exit_is_described_in_words() -> None:
    assert end(Ledger()).failures["a"].error == "exited with code 137"
    killed = end(Ledger(), END._replace(oom_killed=True)).failures["a"]
    assert (killed.reason, killed.error) == ("out_of_memory", "exited with code 137, out of memory")


def test_failures_are_forgotten_after_exactly_ten_minutes_of_health() -> None:
    ledger = fail(Ledger(ready={"a": ReadySince("id-a", 1.0, NOW.mono)}))
    assert forget_recovered(ledger, Clock(0.0, NOW.mono + 599.9)) is ledger
    assert forget_recovered(ledger, Clock(0.0, NOW.mono + 600)).failures == {}
    assert forget_recovered(fail(Ledger()), Clock(0.0, NOW.mono + 9999)).failures


def test_the_expected_start_time_is_the_median_of_the_last_starts() -> None:
    ledger = Ledger()
    assert expected_start_time(ledger, "a") is None
    for seconds in (1.0, 50.0, 3.0, 3.1, 3.2, 3.3):
        ledger = record_start_time(ledger, "a", not_at=0.0, at=seconds)
    assert ledger.durations["a"] == (50.0, 3.0, 3.1, 3.2, 3.3)
    assert expected_start_time(ledger, "a") == 3.2


def test_a_late_probe_leads_to_earlier_ones() -> None:
    ledger = record_start_time(Ledger(), "a", not_at=2.0, at=3.0)
    assert ledger.brackets["a"] == ReadyWindow(2.0, 3.0)
    lows = []
    for _ in range(5):
        ledger = record_start_time(ledger, "a", not_at=0.0, at=3.0)
        lows.append(ledger.brackets["a"].low)
    assert lows == sorted(lows, reverse=True)
    assert lows[-1] < 1.0


def test_omit_leaves_the_original_unchanged() -> None:
    original = {"a": 1, "b": 2}
    assert omit(original, ["a", "z"]) == {"b": 2}
    assert original == {"a": 1, "b": 2}
