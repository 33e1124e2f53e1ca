"""Audit events of steps, outcomes, changes and the daemon; coalescing of repeats."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from reconciler.audit.chain import Entry
from reconciler.audit.database import AuditFile
from reconciler.audit.events import StepRecorder, accepted, rejected
from reconciler.audit.log import AuditEvent, Query
from reconciler.audit.query import read
from reconciler.audit.rate_limit import Coalescer, Rates
from reconciler.controller.progress import Progress
from reconciler.daemon.audit_session import AuditSession
from reconciler.errors import EngineError, Mistake, OutcomeUnknown, StepFailed
from reconciler.generations.record import Record
from reconciler.generations.store import Generations
from reconciler.model.change_reason import EDITED, ChangeReason
from reconciler.model.observed import Action
from reconciler.planning.planner import Step
from tests.support.fixtures.audit_log import NOW, a_file, an_audit, an_event, fill_log, targets, wait_until

# --- repeats ------------------------------------------------------------------------------------------


def test_repeats_make_one_entry_a_minute() -> None:
    repeats = Coalescer()
    refused = AuditEvent("start", "kafka", "refused", source="10.0.0.9")
    assert repeats.add(("k",), refused, 0.0) == refused
    for number in range(1000):
        assert repeats.add(("k",), refused, number / 20) is None
    assert repeats.due(59.9, NOW) == []
    assert repeats.next_due() == 60.0
    (summed,) = repeats.due(60.0, NOW)
    assert (summed.times, summed.message) == (1000, "1000 more times, the last one now")
    assert repeats.add(("k",), refused, 61.0) is None
    assert repeats.due(120.0, NOW) == [refused]
    assert repeats.due(180.0, NOW) == []
    assert repeats.next_due() is None


def test_refusals_from_many_addresses_are_rate_limited() -> None:
    """In one hour at most the burst, then one per 10 seconds, and the rest at the end."""
    repeats = Coalescer(Rates())
    count = recorded = 0
    for second in range(3600):
        for number in range(30):
            event = AuditEvent("start", source=f"{second}-{number % 20}")
            if (first := repeats.add((event.source,), event, float(second))) is not None:
                count, recorded = count + 1, recorded + first.times
        due = repeats.due(float(second), NOW)
        count, recorded = count + len(due), recorded + sum(event.times for event in due)
        assert len(repeats._by_key) <= 256
    rest = repeats.due(3600.0, NOW, everything=True)
    assert count <= 100 + 360 + 60
    assert recorded + sum(event.times for event in rest) == 3600 * 30


def test_a_flood_of_refused_reads_hides_neither_a_write_nor_a_sign_in() -> None:
    repeats = Coalescer()
    for number in range(1000):
        read_ = AuditEvent(
            "read", "/services/status", "refused", source=f"10.0.{number // 250}.{number % 250}"
        )
        repeats.add((read_.source, read_.action), read_, 0.0)
    write = AuditEvent("stop", "kafka", "refused", source="10.0.3.9")
    assert repeats.add((write.source, write.action), write, 0.0) == write
    sign_in = AuditEvent("sign_in", "dashboard", "accepted", user="ann", source="10.0.3.9")
    assert repeats.add((sign_in.source, sign_in.action), sign_in, 0.0) == sign_in


def test_repeats_are_written_on_close_at_the_latest(tmp_path: Path) -> None:
    with an_audit(tmp_path) as audit:
        for _ in range(500):
            audit.append_coalesced(("k",), an_event(result="refused"))
    assert [entry.event.times for entry in read(tmp_path, Query())] == [1, 499]


# --- events of the daemon -----------------------------------------------------------------------------


def a_step(action: Action = Action.START, service: str = "kafka") -> Step:
    return Step(service=service, action=action, cause="stopped", why="kafka is not running")


def test_every_finished_step_is_one_event() -> None:
    recorded: list[AuditEvent] = []
    clock = iter(range(1000))
    recorder = StepRecorder(recorded.append, lambda: None, lambda: NOW + next(clock))
    ends: list[EngineError | None] = [None, StepFailed("port is taken"), OutcomeUnknown("no answer")]
    for end in ends:
        recorder.on_step(a_step(), None, False)
        recorder.on_step(a_step(), end, True)
    assert [(event.action, event.result, event.reason, event.user) for event in recorded] == [
        ("container_start", "done", "stopped", "loop"),
        ("container_start", "failed", "stopped", "loop"),
        ("container_start", "unknown", "stopped", "loop"),
    ]
    assert recorded[0].message == "kafka is not running; took 1.0 s"
    assert recorded[1].message == "kafka is not running; port is taken"


def test_steps_in_flight_at_shutdown_are_recorded_as_unknown() -> None:
    recorded: list[AuditEvent] = []
    recorder = StepRecorder(recorded.append, lambda: None, lambda: NOW)
    recorder.on_step(a_step(Action.PULL), None, False)
    recorder.close()
    recorder.close()
    assert [(event.action, event.result) for event in recorded] == [("image_pull", "unknown")]


def test_an_outcome_of_a_generation_is_one_event() -> None:
    recorded: list[AuditEvent] = []
    recorder = StepRecorder(recorded.append, lambda: None, lambda: NOW)
    recorder.on_outcome(
        Progress(generation=7, state="degraded", reason="image_unavailable", message="kafka: no")
    )
    (event,) = recorded
    assert (event.action, event.target, event.result, event.reason) == (
        "generation_end",
        "7",
        "degraded",
        "image_unavailable",
    )


def test_a_rejected_edit_names_places_and_no_content() -> None:
    mistakes = [Mistake("groups.yaml", 3, 9, "'hunter2' is neither on nor off")] * 2 + [
        Mistake("env", 0, 0, "hunter2")
    ]
    event = rejected(mistakes, user="file", generation=4, at=NOW)
    assert event.message == "3 mistakes, in groups.yaml:3, env; the last valid state stays in force"
    assert (event.result, event.reason) == ("refused", "desired_state_invalid")


def test_an_accepted_change_has_user_source_and_changes() -> None:
    event = accepted(
        ChangeReason("start", "kafka"),
        user="ann",
        source="10.0.0.9",
        generation=5,
        groups=("kafka",),
        changes=("kafka: off → on",),
        at=NOW,
    )
    assert event[:7] == ("start", "kafka", "accepted", "ann", "requested", "kafka: off → on", "10.0.0.9")
    by_hand = accepted(EDITED, user="file", source="", generation=1, groups=(), changes=(), at=NOW)
    assert (by_hand.action, by_hand.target, by_hand.reason) == ("edit", "desired-state", "edited")


def test_a_start_of_a_group_called_edited_is_no_edit_by_hand() -> None:
    reason = ChangeReason("start", "edited")
    event = accepted(reason, user="ann", source="", generation=1, groups=(), changes=(), at=NOW)
    assert (event.action, event.target, event.reason) == ("start", "edited", "requested")


async def test_a_run_records_start_stop_and_an_earlier_crash(tmp_path: Path) -> None:
    generations = await asyncio.to_thread(Generations, tmp_path)
    for run in range(3):
        session = AuditSession(tmp_path, lambda: NOW)
        await session.begin(generations, engine="simulated", address="127.0.0.1:8000")
        if run == 1:
            # As if killed here: no stop is recorded.
            wait_until(lambda: len(targets(tmp_path)) == 3)
            session.audit.close(30.0)
        else:
            await session.end(failed=run == 2)
    found = [(e.event.action, e.event.result) for e in read(tmp_path, Query())]
    assert found == [
        ("daemon_start", "done"),
        ("daemon_stop", "done"),
        ("daemon_start", "done"),
        ("daemon_start", "after_crash"),
        ("daemon_stop", "failed"),
    ]


class History:
    """Accepted generations of a state directory."""

    def __init__(self, highest: int) -> None:
        self._highest = highest

    def history(self) -> tuple[Record, ...]:
        return tuple(
            Record(
                generation=number,
                revision="r",
                meaning="m",
                at=NOW + number,
                author="ann",
                reason="stop kafka",
                changes=("kafka: on → off",),
            )
            for number in range(1, self._highest + 1)
        )


async def test_a_change_missing_after_a_crash_is_recorded_at_start(tmp_path: Path) -> None:
    for highest in (5, 7, 7):
        if highest == 5:
            # A new log has no missing entries.
            fill_log(tmp_path, 1)
            with a_file(tmp_path) as file:
                file.append([an_event(2, generation=5)])
        session = AuditSession(tmp_path, lambda: NOW)
        await session.begin(History(highest), engine="docker", address="")  # type: ignore[arg-type]
        await session.end(failed=False)
    found = [e.event for e in read(tmp_path, Query(action="stop"))]
    assert [(event.generation, event.user, event.target, event.at) for event in found] == [
        (6, "ann", "kafka", NOW + 6),
        (7, "ann", "kafka", NOW + 7),
    ]
    assert found[0].message == "kafka: on → off; recorded after a crash"


def test_recording_never_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that hangs blocks the writer thread, and no caller."""
    hung = threading.Event()
    plain = AuditFile.append

    def append(file: AuditFile, events: list[AuditEvent]) -> list[Entry]:
        hung.wait(20)
        return plain(file, events)

    monkeypatch.setattr(AuditFile, "append", append)
    with an_audit(tmp_path) as audit:
        began = time.monotonic()
        pending: list[Future[bool]] = [audit.append_durable(an_event(n)) for n in range(10)]
        for number in range(2000):
            audit.append(an_event(number))
            audit.append_coalesced((str(number),), an_event(number))
        assert time.monotonic() - began < 10.0
        assert not any(future.done() for future in pending)
        hung.set()
        assert all(future.result(20) for future in pending)
