"""The audit log's file: damage, retention, several writers at once, and sudden death."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from reconciler.audit import database
from reconciler.audit.log import Audit, Query, Retention
from reconciler.audit.query import read, verify
from tests.support.fixtures.audit_log import (
    DAY,
    NOW,
    a_fact,
    a_file,
    an_audit,
    by_hand,
    filled,
    problems,
    targets,
)

# --- damage and retention -----------------------------------------------------------------------------


def test_a_damaged_database_is_set_aside_and_said(tmp_path: Path) -> None:
    filled(tmp_path, 400)
    path = tmp_path / "audit.db"
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 5] = os.urandom(4096 * 2)
    path.write_bytes(content)
    assert not verify(tmp_path).good
    filled(tmp_path, 3)
    (aside,) = tmp_path.glob("audit.damaged-*.db")
    assert aside.read_bytes() == bytes(content)
    first = read(tmp_path, Query())[0]
    assert (first.id, first.fact.action, first.fact.reason) == (401, "audit_broken", "damaged")
    assert aside.name in first.fact.message
    assert problems(tmp_path)[0] == "entries 1 to 400 are missing at the beginning"


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 500, random.Random(4).randbytes(9000)])
def test_whatever_stands_at_its_place_the_log_begins(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "audit.db").write_bytes(content)
    filled(tmp_path, 2)
    assert targets(tmp_path)[-2:] == ["group-1", "group-2"]


def test_a_database_of_something_else_is_not_written_into(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "audit.db", isolation_level=None)) as db:
        db.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, recipe TEXT)")
    filled(tmp_path, 2)
    assert len(list(tmp_path.glob("audit.damaged-*.db"))) == 1


def test_only_few_damaged_files_are_kept(tmp_path: Path) -> None:
    for _ in range(5):
        (tmp_path / "audit.db").write_bytes(b"rubbish" * 1000)
        filled(tmp_path, 1)
    assert len(list(tmp_path.glob("audit.damaged-*.db"))) == 2


def test_what_is_too_old_is_cut_and_the_rest_verifies(tmp_path: Path) -> None:
    retention = Retention(age=10 * DAY, least=3)
    with a_file(tmp_path) as file:
        file.append([a_fact(day, at=NOW + day * DAY) for day in range(1, 31)])
        (entry,) = file.truncate_before(retention, NOW + 31 * DAY)
        assert (entry.fact.action, entry.fact.target, entry.fact.reason) == ("audit_cut", "20", "age")
        assert file.truncate_before(retention, NOW + 31 * DAY) == []
    verdict = verify(tmp_path)
    assert (verdict.good, verdict.first, verdict.last) == (True, 21, 31)
    assert verdict.notes == ("entries up to 20 were taken away by retention",)
    by_hand(tmp_path, "DELETE FROM entries WHERE id <= 23")
    assert problems(tmp_path) == ["entries 21 to 23 are missing at the beginning"]


def test_a_clock_years_ahead_does_not_cost_the_record(tmp_path: Path) -> None:
    filled(tmp_path, 30)
    with a_file(tmp_path) as file:
        file.truncate_before(Retention(age=DAY, least=25), NOW + 9999 * DAY)
    assert verify(tmp_path).entries == 26


def test_what_is_too_much_is_cut_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_CUT_AT_ONCE", 100)
    retention = Retention(size=64 * 1024, least=10)
    with a_file(tmp_path) as file:
        file.append([a_fact(n, message="x" * 400) for n in range(600)])
        before = file.size()
        rounds = 0
        while file.truncate_before(retention, NOW):
            rounds += 1
        assert before > 2 * retention.size
        assert retention.size * 0.6 < file.size() <= retention.size
    assert rounds > 2
    assert verify(tmp_path).good


# --- several writers, and death -----------------------------------------------------------------------


WRITER = """
import sys
from pathlib import Path
from reconciler.audit.chain import AuditEvent
from reconciler.audit.database import AuditFile
file = AuditFile(Path(sys.argv[1]), check=False)
number = 0
while number < int(sys.argv[3]):
    number += 1
    file.append([AuditEvent("start", f"{sys.argv[2]}-{number}", at=1.0)] * (number % 3 + 1))
    print(number, flush=True)
"""


def a_writer(state_dir: Path, name: str, count: int = 10**9) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", WRITER, str(state_dir), name, str(count)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3])


def test_processes_take_turns(tmp_path: Path) -> None:
    writers = [a_writer(tmp_path, name, 60) for name in ("a", "b", "c")]
    for writer in writers:
        out, _ = writer.communicate(timeout=60)
        assert len(out.split()) == 60
    verdict = verify(tmp_path)
    assert (verdict.problems, verdict.entries) == ((), 3 * sum(n % 3 + 1 for n in range(1, 61)))


def test_threads_hand_over_in_order(tmp_path: Path) -> None:
    def hand_over(audit: Audit, name: str) -> None:
        for number in range(100):
            if number % 10:
                audit.append(a_fact(target=f"{name}-{number}"))
            else:
                assert audit.append_durable(a_fact(target=f"{name}-{number}")).result(30)

    with an_audit(tmp_path) as audit:
        threads = [threading.Thread(target=hand_over, args=(audit, name)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert verify(tmp_path).entries == 400
    found = targets(tmp_path, limit=1000)
    for name in "abcd":
        assert [t for t in found if t.startswith(name)] == [f"{name}-{n}" for n in range(100)]


def test_kill_9_at_any_moment_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    chance = random.Random(4)
    last = 0
    for run in range(12):
        writer = a_writer(tmp_path, f"run{run}")
        assert writer.stdout is not None
        # Not before it writes at all, then at a moment that nobody chose.
        writer.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.08))
        writer.send_signal(signal.SIGKILL)
        told = [line for line in writer.stdout.read().splitlines() if line.isdecimal()]
        writer.wait()
        writer.stdout.close()
        acknowledged = int(told[-1]) if told else 1
        found = {t for t in targets(tmp_path, limit=1000) if t.startswith(f"run{run}-")}
        assert f"run{run}-{acknowledged}" in found
        verdict = verify(tmp_path)
        assert verdict.problems == ()
        assert verdict.last > last
        last = verdict.last
