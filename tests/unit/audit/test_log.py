"""The audit log of a running daemon: its queue, full and damaged disks, and the ``audit`` command."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.audit import database
from reconciler.audit.chain import Entry
from reconciler.audit.database import AuditFile
from reconciler.audit.log import AuditEvent, Query, Retention, WriterTimings
from reconciler.audit.query import read, verify
from tests.support.fixtures.audit_log import (
    DAY,
    NOW,
    an_audit,
    an_event,
    execute_sql,
    fill_log,
    targets,
    wait_until,
)
from tests.support.fixtures.stub_server import a_daemon, run_cli

# --- the daemon's writer ------------------------------------------------------------------------------


def test_a_durable_entry_is_on_disk_when_its_future_resolves(tmp_path: Path) -> None:
    with an_audit(tmp_path, pace=WriterTimings(gather=60.0)) as audit:
        audit.append(an_event(1))
        assert audit.append_durable(an_event(2)).result(10)
        # Read by another connection, while the writer has its own open.
        assert targets(tmp_path) == ["group-1", "group-2"]


def test_other_entries_are_batched_and_flushed_on_close(tmp_path: Path) -> None:
    batches: list[int] = []
    with an_audit(tmp_path, pace=WriterTimings(gather=60.0)) as audit:
        audit.subscribe(lambda entries: batches.append(len(entries)))
        for number in range(50):
            audit.append(an_event(number))
        assert targets(tmp_path) == []
    assert (batches, len(targets(tmp_path))) == ([50], 50)
    assert verify(tmp_path).good


def test_a_closed_log_drops_events_and_blocks_no_caller(tmp_path: Path) -> None:
    with an_audit(tmp_path) as audit:
        pass
    audit.append(an_event())
    assert audit.append_durable(an_event()).result(1) is False


FULL = """
import resource, sys, time
from pathlib import Path
from reconciler.audit.log import Audit, AuditEvent, WriterTimings
audit = Audit(Path(sys.argv[1]), pace=WriterTimings(gather=0.0, again=(0.01,)))
audit.start()
def record(name):
    return audit.append_durable(AuditEvent("start", name, message="x" * 500, at=1.0)).result(20)
assert record("before")
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, most))
results = [record(f"during-{n}") for n in range(200)]
assert results[0] and not results[-1] and audit.error
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
assert record("after")
audit.close()
print(audit.lost, flush=True)
"""


@pytest.mark.pitfall(35)
def test_a_full_disk_is_survived(tmp_path: Path) -> None:
    """RLIMIT_FSIZE of 60 kB makes the kernel refuse writes in the middle of a transaction."""
    words = [sys.executable, "-c", FULL, str(tmp_path)]
    ran = subprocess.run(
        words, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[3], timeout=60
    )
    assert (ran.returncode, ran.stdout) == (0, "0\n"), ran.stderr
    assert targets(tmp_path, limit=1000) == ["before", *(f"during-{n}" for n in range(200)), "after"]
    assert verify(tmp_path).problems == ()


class Disk:
    """Passes writes on, or fails them as a full disk does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        plain = AuditFile.append

        def append(file: AuditFile, events: list[AuditEvent]) -> list[Entry]:
            if self.full:
                raise sqlite3.OperationalError("database or disk is full")
            return plain(file, events)

        monkeypatch.setattr(AuditFile, "append", append)


def test_a_full_disk_delays_entries_and_counts_those_that_overflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk(monkeypatch)
    with an_audit(tmp_path, pace=WriterTimings(gather=0.0, again=(0.01,), held=10)) as audit:
        assert audit.append_durable(an_event(1)).result(10)
        disk.full = True
        assert audit.append_durable(an_event(2)).result(10) is False
        for number in range(3, 31):
            audit.append(an_event(number))
        assert audit.append_durable(an_event(31)).result(10) is False
        assert (audit.lost, audit.error) == (20, "database or disk is full")
        disk.full = False
        assert audit.append_durable(an_event(32)).result(10)
    found = read(tmp_path, Query())
    lost = [e.event for e in found if e.event.action == "audit_lost"]
    # The entry that found the disk writable again may have displaced one more.
    assert sum(event.times for event in lost) == audit.lost
    assert audit.lost in {20, 21}
    assert [e.event.target for e in found if e.event.action == "start"][1:] == [
        f"group-{number}" for number in range(2 + audit.lost, 33)
    ]
    assert found[0].event.target == "group-1"
    assert found[-1].event.target == "group-32"
    report = verify(tmp_path)
    assert (report.good, len(report.notes)) == (True, len(lost))
    assert sum("can't be written" in record.message for record in caplog.records) == 1


@pytest.mark.pitfall(34)
def test_a_database_damaged_while_it_is_open_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = AuditFile.append
    broken = [True]

    def append(file: AuditFile, events: list[AuditEvent]) -> list[Entry]:
        if broken:
            broken.clear()
            file.close()
            (tmp_path / "audit.db").write_bytes(b"scribbled" * 2000)
            raise database._damaged("malformed")
        return plain(file, events)

    with an_audit(tmp_path) as audit:
        assert audit.append_durable(an_event(1)).result(10)
        monkeypatch.setattr(AuditFile, "append", append)
        assert audit.append_durable(an_event(2)).result(10)
    assert targets(tmp_path)[-1] == "group-2"
    assert len(list(tmp_path.glob("audit.damaged-*.db"))) == 1


def test_a_database_deleted_while_open_is_replaced_and_recorded(tmp_path: Path) -> None:
    with an_audit(tmp_path) as audit:
        assert audit.append_durable(an_event(1)).result(10)
        for part in ("", "-wal", "-shm"):
            (tmp_path / f"audit.db{part}").unlink()
        assert audit.append_durable(an_event(2)).result(10)
    assert [(e.id, e.event.action) for e in read(tmp_path, Query())] == [(2, "audit_broken"), (3, "start")]


def test_a_bug_in_the_writer_blocks_no_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with an_audit(tmp_path, pace=WriterTimings(again=(0.01,))) as audit:
        monkeypatch.setattr(AuditFile, "append", lambda *_: 1 / 0)
        assert audit.append_durable(an_event(1)).result(10) is False
        monkeypatch.undo()
        assert audit.append_durable(an_event(2)).result(10)
    assert [event.event.action for event in read(tmp_path, Query())] == ["audit_lost", "start"]
    assert "failed unexpectedly" in caplog.text


def test_the_writer_applies_retention(tmp_path: Path) -> None:
    retention, pace = Retention(age=DAY, least=5), WriterTimings(gather=0.0, cut=0.05)
    with an_audit(tmp_path, wall=lambda: NOW + 3 * DAY, retention=retention, pace=pace) as audit:
        for number in range(50):
            audit.append(an_event(number))
        wait_until(lambda: any(e.event.action == "audit_cut" for e in read(tmp_path, Query())))
    assert verify(tmp_path).good


# --- the command line ---------------------------------------------------------------------------------


def test_verify_needs_no_daemon_and_reports_problems(tmp_path: Path) -> None:
    words = ("audit", "--verify", "--state-dir", str(tmp_path))
    missing = run_cli(*words)
    assert (missing.code, "no audit log" in missing.err) == (1, True)
    fill_log(tmp_path)
    whole = run_cli(*words)
    assert (whole.code, whole.out) == (0, "the audit log is intact: 20 entries, 1 to 20\n")
    execute_sql(tmp_path, "UPDATE entries SET user = 'x' WHERE id = 9")
    broken = run_cli(*words)
    assert broken.code == 1
    assert "entry 9 was changed" in broken.err
    as_json = run_cli(*words, "--output", "json")
    assert (as_json.code, '"good": false' in as_json.out, '"id": 9' in as_json.out) == (1, True, True)


def test_audit_shows_the_entries_of_the_daemon() -> None:
    entry = {
        "id": 12,
        "timestamp": "2026-11-24T05:00:00Z",
        "action": "start",
        "target": "kafka",
        "result": "refused",
        "user": "ann",
        "reason": "dependency_off",
        "message": "needs\x1b[31m zookeeper",
        "source": "10.0.0.9",
        "count": 3,
    }
    with a_daemon() as daemon:
        daemon.get("/services/audit", {"entries": [entry], "before": 12})
        ran = run_cli("audit", "--group", "kafka", "--limit", "5", "--url", daemon.url)
        (request,) = daemon.requests
    assert ran.code == 0
    assert request.query == {"limit": "5", "group": "kafka"}
    line = ran.out.splitlines()[1]
    for part in (
        "12",
        "ann (10.0.0.9)",
        "start",
        "kafka",
        "refused ×3",
        "dependency_off: needs [31m zookeeper",
    ):
        assert part in line
    assert "--before 12" in ran.err
    assert run_cli("audit", "--limit", "0").code == 64
