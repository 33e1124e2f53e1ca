"""What is told to the audit log: steps, ends, changes, the daemon's own life; repeats made into one."""

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
from reconciler.generations.records import Record
from reconciler.generations.store import Generations
from reconciler.model.observed import Action
from reconciler.planning.planner import Step
from tests.support.fixtures.audit_log import NOW, a_fact, a_file, an_audit, filled, targets, waited

# --- repeats ------------------------------------------------------------------------------------------


def test_repeats_become_one_entry_a_minute() -> None:
    repeats = Coalescer()
    refused = AuditEvent("start", "kafka", "refused", source="10.0.0.9")
    assert repeats.add(("k",), refused, 0.0) == refused
    for number in range(1000):
        assert repeats.add(("k",), refused, number / 20) is None
    assert repeats.due(59.9, NOW) == []
    assert repeats.next() == 60.0
    (summed,) = repeats.due(60.0, NOW)
    assert (summed.times, summed.message) == (1000, "1000 times more, last now")
    assert repeats.add(("k",), refused, 61.0) is None
    assert repeats.due(120.0, NOW) == [refused]
    assert repeats.due(180.0, NOW) == []
    assert repeats.next() is None


def test_a_flood_from_everywhere_is_rationed() -> None:
    """However many addresses: in an hour no more than the burst, a tenth of it per minute, and the rest."""
    repeats = Coalescer(Rates())
    count = told = 0
    for second in range(3600):
        for number in range(30):
            fact = AuditEvent("start", source=f"{second}-{number % 20}")
            if (first := repeats.add((fact.source,), fact, float(second))) is not None:
                count, told = count + 1, told + first.times
        due = repeats.due(float(second), NOW)
        count, told = count + len(due), told + sum(fact.times for fact in due)
        assert len(repeats._gathered) <= 256
    rest = repeats.due(3600.0, NOW, everything=True)
    assert count <= 100 + 360 + 60
    assert told + sum(fact.times for fact in rest) == 3600 * 30


def test_repeats_reach_the_disk_at_the_end_at_the_latest(tmp_path: Path) -> None:
    with an_audit(tmp_path) as audit:
        for _ in range(500):
            audit.append_coalesced(("k",), a_fact(result="refused"))
    assert [entry.fact.times for entry in read(tmp_path, Query())] == [1, 499]


# --- what the daemon tells ----------------------------------------------------------------------------


def a_step(action: Action = Action.START, service: str = "kafka") -> Step:
    return Step(service=service, action=action, cause="stopped", why="kafka is not running")


def test_every_step_that_came_back_is_one_entry() -> None:
    told: list[AuditEvent] = []
    clock = iter(range(1000))
    chronicle = StepRecorder(told.append, lambda: None, lambda: NOW + next(clock))
    ends: list[EngineError | None] = [None, StepFailed("port is taken"), OutcomeUnknown("no answer")]
    for end in ends:
        chronicle.on_step(a_step(), None, False)
        chronicle.on_step(a_step(), end, True)
    assert [(fact.action, fact.result, fact.reason, fact.user) for fact in told] == [
        ("container_start", "done", "stopped", "loop"),
        ("container_start", "failed", "stopped", "loop"),
        ("container_start", "unknown", "stopped", "loop"),
    ]
    assert told[0].message == "kafka is not running; took 1.0 s"
    assert told[1].message == "kafka is not running; port is taken"


def test_steps_that_outlive_the_daemon_are_said_to() -> None:
    told: list[AuditEvent] = []
    chronicle = StepRecorder(told.append, lambda: None, lambda: NOW)
    chronicle.on_step(a_step(Action.PULL), None, False)
    chronicle.close()
    chronicle.close()
    assert [(fact.action, fact.result) for fact in told] == [("image_pull", "unknown")]


def test_an_end_of_a_generation_is_an_entry() -> None:
    told: list[AuditEvent] = []
    chronicle = StepRecorder(told.append, lambda: None, lambda: NOW)
    chronicle.on_outcome(
        Progress(generation=7, state="degraded", reason="image_unavailable", message="kafka: no")
    )
    (fact,) = told
    assert (fact.action, fact.target, fact.result, fact.reason) == (
        "generation_end",
        "7",
        "degraded",
        "image_unavailable",
    )


def test_a_broken_file_is_told_by_place_and_not_by_content() -> None:
    mistakes = [Mistake("groups.yaml", 3, 9, "'hunter2' is neither on nor off")] * 2 + [
        Mistake("env", 0, 0, "hunter2")
    ]
    fact = rejected(mistakes, user="file", generation=4, at=NOW)
    assert fact.message == "3 mistakes, in groups.yaml:3, env; the last good state is kept"
    assert (fact.result, fact.reason) == ("refused", "desired_state_invalid")


def test_a_change_is_told_with_who_from_where_and_what() -> None:
    fact = accepted(
        "start kafka",
        user="ann",
        source="10.0.0.9",
        generation=5,
        groups=("kafka",),
        changes=("kafka: off → on",),
        at=NOW,
    )
    assert fact[:7] == ("start", "kafka", "accepted", "ann", "requested", "kafka: off → on", "10.0.0.9")
    assert (
        accepted("edited", user="file", source="", generation=1, groups=(), changes=(), at=NOW).action
        == "edit"
    )


async def test_a_run_records_its_beginning_and_end_and_a_crash_before(tmp_path: Path) -> None:
    generations = await asyncio.to_thread(Generations, tmp_path)
    for run in range(3):
        recording = AuditSession(tmp_path, lambda: NOW)
        await recording.begin(generations, engine="simulated", address="127.0.0.1:8000")
        if run == 1:
            # As if it were killed here: nothing more of it is heard.
            waited(lambda: len(targets(tmp_path)) == 3)
            recording.audit.close(30.0)
        else:
            await recording.end(failed=run == 2)
    found = [(e.fact.action, e.fact.result) for e in read(tmp_path, Query())]
    assert found == [
        ("daemon_start", "done"),
        ("daemon_stop", "done"),
        ("daemon_start", "done"),
        ("daemon_start", "after_crash"),
        ("daemon_stop", "failed"),
    ]


class History:
    """Generations that were accepted, as the state directory knows them."""

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


async def test_a_change_that_a_crash_kept_out_of_the_log_is_made_up_for(tmp_path: Path) -> None:
    for highest in (5, 7, 7):
        if highest == 5:
            # Of a log that is new, nothing can be missing.
            filled(tmp_path, 1)
            with a_file(tmp_path) as file:
                file.append([a_fact(2, generation=5)])
        recording = AuditSession(tmp_path, lambda: NOW)
        await recording.begin(History(highest), engine="docker", address="")  # type: ignore[arg-type]
        await recording.end(failed=False)
    found = [e.fact for e in read(tmp_path, Query(action="stop"))]
    assert [(fact.generation, fact.user, fact.target, fact.at) for fact in found] == [
        (6, "ann", "kafka", NOW + 6),
        (7, "ann", "kafka", NOW + 7),
    ]
    assert found[0].message == "kafka: on → off; recorded after a crash"


def test_recording_never_takes_longer_than_handing_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that hangs holds up the writer, and nobody who tells it something."""
    hung = threading.Event()
    plain = AuditFile.append

    def append(file: AuditFile, facts: list[AuditEvent]) -> list[Entry]:
        hung.wait(20)
        return plain(file, facts)

    monkeypatch.setattr(AuditFile, "append", append)
    with an_audit(tmp_path) as audit:
        began = time.monotonic()
        pending: list[Future[bool]] = [audit.append_durable(a_fact(n)) for n in range(10)]
        for number in range(2000):
            audit.append(a_fact(number))
            audit.append_coalesced((str(number),), a_fact(number))
        assert time.monotonic() - began < 10.0
        assert not any(future.done() for future in pending)
        hung.set()
        assert all(future.result(20) for future in pending)
