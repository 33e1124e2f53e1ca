"""The audit log's database: damage, retention, concurrent writers, SIGKILL."""

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
    a_file,
    an_audit,
    an_event,
    execute_sql,
    fill_log,
    problems,
    targets,
)

# --- damage and retention -----------------------------------------------------------------------------


def test_a_damaged_database_is_renamed_and_recorded(tmp_path: Path) -> None:
    fill_log(tmp_path, 400)
    path = tmp_path / "audit.db"
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 5] = os.urandom(4096 * 2)
    path.write_bytes(content)
    assert not verify(tmp_path).good
    fill_log(tmp_path, 3)
    (aside,) = tmp_path.glob("audit.damaged-*.db")
    assert aside.read_bytes() == bytes(content)
    first = read(tmp_path, Query())[0]
    assert (first.id, first.event.action, first.event.reason) == (401, "audit_broken", "damaged")
    assert aside.name in first.event.message
    assert problems(tmp_path)[0] == "entries 1 to 400 are missing at the beginning"


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 500, random.Random(4).randbytes(9000)])
def test_any_file_in_place_of_the_database_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "audit.db").write_bytes(content)
    fill_log(tmp_path, 2)
    assert targets(tmp_path)[-2:] == ["group-1", "group-2"]


def test_a_foreign_database_is_renamed_and_not_written(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "audit.db", isolation_level=None)) as db:
        db.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, recipe TEXT)")
    fill_log(tmp_path, 2)
    assert len(list(tmp_path.glob("audit.damaged-*.db"))) == 1


def test_only_two_damaged_files_are_kept(tmp_path: Path) -> None:
    for _ in range(5):
        (tmp_path / "audit.db").write_bytes(b"rubbish" * 1000)
        fill_log(tmp_path, 1)
    assert len(list(tmp_path.glob("audit.damaged-*.db"))) == 2


def test_old_entries_are_deleted_and_the_rest_verifies(tmp_path: Path) -> None:
    retention = Retention(age=10 * DAY, least=3)
    with a_file(tmp_path) as file:
        file.append([an_event(day, at=NOW + day * DAY) for day in range(1, 31)])
        (entry,) = file.truncate_before(retention, NOW + 31 * DAY)
        assert (entry.event.action, entry.event.target, entry.event.reason) == ("audit_cut", "20", "age")
        assert file.truncate_before(retention, NOW + 31 * DAY) == []
    report = verify(tmp_path)
    assert (report.good, report.first, report.last) == (True, 21, 31)
    assert report.notes == ("entries up to 20 were deleted by retention",)
    execute_sql(tmp_path, "DELETE FROM entries WHERE id <= 23")
    assert problems(tmp_path) == ["entries 21 to 23 are missing at the beginning"]


def test_a_clock_years_ahead_keeps_the_last_entries(tmp_path: Path) -> None:
    fill_log(tmp_path, 30)
    with a_file(tmp_path) as file:
        file.truncate_before(Retention(age=DAY, least=25), NOW + 9999 * DAY)
    assert verify(tmp_path).entries == 26


def test_entries_beyond_the_size_are_deleted_in_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_MAX_DELETED_AT_ONCE", 100)
    retention = Retention(size=64 * 1024, least=10)
    with a_file(tmp_path) as file:
        file.append([an_event(n, message="x" * 400) for n in range(600)])
        before = file.size()
        rounds = 0
        while file.truncate_before(retention, NOW):
            rounds += 1
        assert before > 2 * retention.size
        assert retention.size * 0.6 < file.size() <= retention.size
    assert rounds > 2
    assert verify(tmp_path).good


# --- concurrent writers and SIGKILL -------------------------------------------------------------------


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


def test_processes_append_in_turn(tmp_path: Path) -> None:
    writers = [a_writer(tmp_path, name, 60) for name in ("a", "b", "c")]
    for writer in writers:
        out, _ = writer.communicate(timeout=60)
        assert len(out.split()) == 60
    report = verify(tmp_path)
    assert (report.problems, report.entries) == ((), 3 * sum(n % 3 + 1 for n in range(1, 61)))


def test_events_of_each_thread_stay_in_order(tmp_path: Path) -> None:
    def append_many(audit: Audit, name: str) -> None:
        for number in range(100):
            if number % 10:
                audit.append(an_event(target=f"{name}-{number}"))
            else:
                assert audit.append_durable(an_event(target=f"{name}-{number}")).result(30)

    with an_audit(tmp_path) as audit:
        threads = [threading.Thread(target=append_many, args=(audit, name)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert verify(tmp_path).entries == 400
    found = targets(tmp_path, limit=1000)
    for name in "abcd":
        assert [t for t in found if t.startswith(name)] == [f"{name}-{n}" for n in range(100)]


def test_sigkill_loses_no_acknowledged_entry(tmp_path: Path) -> None:
    chance = random.Random(4)
    last = 0
    for run in range(12):
        writer = a_writer(tmp_path, f"run{run}")
        assert writer.stdout is not None
        # Wait for the first write, then kill it at a random moment.
        writer.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.08))
        writer.send_signal(signal.SIGKILL)
        printed = [line for line in writer.stdout.read().splitlines() if line.isdecimal()]
        writer.wait()
        writer.stdout.close()
        acknowledged = int(printed[-1]) if printed else 1
        found = {t for t in targets(tmp_path, limit=1000) if t.startswith(f"run{run}-")}
        assert f"run{run}-{acknowledged}" in found
        report = verify(tmp_path)
        assert report.problems == ()
        assert report.last > last
        last = report.last
