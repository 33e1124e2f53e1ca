"""The chain of the audit log: every changed, removed, moved or replaced entry is detected."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.audit import chain_head
from reconciler.audit.chain import START, ChainLink, append_link, clean, entry_hash, from_row, to_row
from reconciler.audit.chain_head import ChainHead
from reconciler.audit.log import AuditEvent, Query
from reconciler.audit.query import NoAuditLog, highest_generation, read, verify
from tests.support.fixtures.audit_log import a_file, an_event, execute_sql, fill_log, problems, targets

# --- entries ------------------------------------------------------------------------------------------


EVENTS = st.builds(
    AuditEvent,
    action=st.text(max_size=120),
    target=st.text(max_size=250),
    result=st.text(max_size=20),
    user=st.text(st.characters(), max_size=20),
    message=st.text(st.characters(), max_size=600),
    source=st.ip_addresses().map(str),
    generation=st.integers(0, 2**40),
    groups=st.lists(st.text(max_size=20), max_size=70).map(tuple),
    times=st.integers(1, 2**40),
    at=st.floats(0, 4e9),
)


@given(EVENTS)
def test_an_event_survives_the_round_trip_through_a_row(event: AuditEvent) -> None:
    cleaned = clean(event)
    assert clean(cleaned) == cleaned
    assert from_row(to_row(cleaned)) == cleaned
    assert len(cleaned.message) <= 500
    assert len(cleaned.groups) <= 64


def test_texts_are_one_line_without_control_characters() -> None:
    event = clean(AuditEvent("a\nb", "\x1b[31mred\x00\u2028", message="x" * 9999, user="\ud800"))
    assert (event.action, event.target, event.user) == ("a b", "[31mred", "?")
    assert (len(event.message), event.message[-1]) == (500, "…")


def test_a_hash_covers_every_field_the_number_and_the_previous_hash() -> None:
    plain = clean(an_event())
    seen = {
        entry_hash(1, plain, START.hash),
        entry_hash(2, plain, START.hash),
        entry_hash(1, plain, b"x" * 32),
    }
    others = {"groups": ("a",), "times": 2, "generation": 7, "at": 1.0}
    for name in AuditEvent._fields:
        seen.add(entry_hash(1, plain._replace(**{name: others.get(name, "other")}), START.hash))
    assert len(seen) == 3 + len(AuditEvent._fields)


def test_each_entry_links_to_the_previous_one() -> None:
    first, second = append_link(START, [an_event(1), an_event(2)])
    assert (first.id, first.before, second.id, second.before) == (1, START.hash, 2, first.hash)


# --- the file -----------------------------------------------------------------------------------------


def test_appended_entries_can_be_read_and_verified(tmp_path: Path) -> None:
    fill_log(tmp_path)
    report = verify(tmp_path)
    assert (report.good, report.entries, report.first, report.last) == (True, 20, 1, 20)
    assert targets(tmp_path, limit=2) == ["group-19", "group-20"]
    assert targets(tmp_path, limit=2, before=3) == ["group-1", "group-2"]
    for name in ("audit.db", "audit.head"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_an_empty_log_differs_from_a_missing_one(tmp_path: Path) -> None:
    with pytest.raises(NoAuditLog):
        verify(tmp_path)
    assert read(tmp_path, Query()) == []
    assert highest_generation(tmp_path) is None
    with a_file(tmp_path):
        pass
    assert verify(tmp_path).good


def test_query_filters_combine(tmp_path: Path) -> None:
    with a_file(tmp_path) as file:
        file.append(
            [
                an_event(1, groups=("kafka", 'sto"rage'), user="ann"),
                an_event(2, groups=("kafka",), action="stop"),
            ]
        )
        file.append([an_event(3, groups=("search",), user="loop", generation=7)])
    assert targets(tmp_path, group="kafka") == ["group-1", "group-2"]
    assert targets(tmp_path, group='sto"rage') == ["group-1"]
    assert targets(tmp_path, group="kafka", action="stop") == ["group-2"]
    assert targets(tmp_path, user="loop", group="kafka") == []
    assert targets(tmp_path, group="kaf%") == []
    assert targets(tmp_path, user="x' OR 1=1 --") == []
    assert highest_generation(tmp_path) == 7


@pytest.mark.parametrize(
    "field",
    [
        "at",
        "action",
        "target",
        "result",
        "user",
        "reason",
        "message",
        "source",
        "generation",
        "groups",
        "times",
    ],
)
def test_a_changed_field_is_reported(tmp_path: Path, field: str) -> None:
    fill_log(tmp_path)
    value = {"at": 5, "generation": 99, "groups": '["x"]', "times": 2}.get(field, "forged")
    execute_sql(tmp_path, f"UPDATE entries SET {field} = ? WHERE id = 7", value)
    assert problems(tmp_path) == ["entry 7 was changed: it does not match its hash"]


@pytest.mark.parametrize("field", ["at", "groups", "hash", "before", "generation"])
@pytest.mark.parametrize("value", [None, "[", b"\xff", 10**15, 1.5, '{"a": 1}', "5"])
def test_any_value_written_into_a_row_is_reported(tmp_path: Path, field: str, value: object) -> None:
    fill_log(tmp_path, 9)
    try:
        execute_sql(tmp_path, f"UPDATE entries SET {field} = ? WHERE id = 7", value)
    except sqlite3.IntegrityError:
        return
    found = verify(tmp_path)
    assert not found.good
    assert {problem.id for problem in found.problems} <= {7, 8}


def test_a_changed_entry_with_a_recomputed_hash_is_reported_at_the_next_entry(tmp_path: Path) -> None:
    fill_log(tmp_path)
    forged = an_event(7, user="mallory")
    before = read(tmp_path, Query())[6].before
    execute_sql(
        tmp_path,
        "UPDATE entries SET user = ?, hash = ? WHERE id = 7",
        "mallory",
        entry_hash(7, forged, before),
    )
    assert problems(tmp_path) == ["entry 8 does not follow entry 7: one was replaced"]


def test_a_recomputed_chain_is_reported_at_the_head(tmp_path: Path) -> None:
    fill_log(tmp_path)
    events = [entry.event for entry in read(tmp_path, Query())]
    events[6] = events[6]._replace(user="mallory")
    for entry in append_link(START, events):
        execute_sql(
            tmp_path,
            "UPDATE entries SET user = ?, before = ?, hash = ? WHERE id = ?",
            entry.event.user,
            entry.before,
            entry.hash,
            entry.id,
        )
    assert problems(tmp_path) == ["entry 20 was replaced: the head file names another hash"]


@pytest.mark.parametrize(
    ("where", "problem"),
    [
        ("id = 7", "entry 7 is missing"),
        ("id BETWEEN 5 AND 8", "entries 5 to 8 are missing"),
        ("id <= 3", "entries 1 to 3 are missing at the beginning"),
        ("id = 1", "entry 1 is missing at the beginning"),
        ("id > 15", "entries 16 to 20 are missing at the end"),
        ("id = 20", "entry 20 is missing at the end"),
        ("1", "entries 1 to 20 are missing at the end"),
    ],
)
def test_a_removed_entry_is_reported(tmp_path: Path, where: str, problem: str) -> None:
    fill_log(tmp_path)
    execute_sql(tmp_path, f"DELETE FROM entries WHERE {where}")
    assert problems(tmp_path) == [problem]


def test_swapped_entries_are_reported(tmp_path: Path) -> None:
    fill_log(tmp_path)
    for old, new in ((7, 100), (8, 7), (100, 8)):
        execute_sql(tmp_path, "UPDATE entries SET id = ? WHERE id = ?", new, old)
    assert [problem.id for problem in verify(tmp_path).problems][:2] == [7, 7]
    assert not verify(tmp_path).good


def test_entries_removed_from_the_end_are_still_reported_after_the_next_run(tmp_path: Path) -> None:
    fill_log(tmp_path)
    execute_sql(tmp_path, "DELETE FROM entries WHERE id > 15")
    with a_file(tmp_path) as file:
        assert [entry.id for entry in file.append([an_event(99)])] == [21, 22]
    assert problems(tmp_path) == [
        "entries 16 to 20 are missing",
        "entry 21 reports: entries 16 to 20 are missing",
    ]


def test_a_deleted_database_is_reported(tmp_path: Path) -> None:
    fill_log(tmp_path)
    (tmp_path / "audit.db").unlink()
    assert problems(tmp_path) == ["entries 1 to 20 are missing at the end"]
    fill_log(tmp_path, 1)
    assert problems(tmp_path)[0] == "entries 1 to 20 are missing at the beginning"


def test_a_deleted_head_is_reported_and_recorded(tmp_path: Path) -> None:
    fill_log(tmp_path)
    (tmp_path / "audit.head").unlink()
    assert problems(tmp_path) == ["the head file is missing: missing entries at the end can't be detected"]
    fill_log(tmp_path, 1)
    assert problems(tmp_path) == ["entry 21 reports: the file with the chain's head is missing"]


def test_an_older_copy_of_the_database_is_reported(tmp_path: Path) -> None:
    fill_log(tmp_path, 5)
    old = (tmp_path / "audit.db").read_bytes()
    fill_log(tmp_path, 5)
    (tmp_path / "audit.db").write_bytes(old)
    assert problems(tmp_path) == ["entries 6 to 10 are missing at the end"]


# --- the head -----------------------------------------------------------------------------------------


def test_the_head_survives_any_torn_write(tmp_path: Path) -> None:
    head = ChainHead(tmp_path)
    path = tmp_path / chain_head.NAME
    links = [ChainLink(number, bytes([number]) * 32) for number in range(1, 8)]
    for before, after in pairwise(links):
        head.write(before)
        old = path.read_bytes()
        head.write(after)
        new = path.read_bytes()
        assert head.read() == after
        for cut in range(0, len(new), 7):
            path.write_bytes(new[:cut] + old[cut:])
            assert head.read() in {before, after}
        path.write_bytes(new)
    head.close()


def test_a_head_with_random_content_is_none(tmp_path: Path) -> None:
    (tmp_path / chain_head.NAME).write_bytes(os.urandom(1024))
    with closing(ChainHead(tmp_path)) as head:
        assert head.read() is None


def test_a_head_that_lags_behind_is_no_problem(tmp_path: Path) -> None:
    fill_log(tmp_path, 5)
    old = (tmp_path / "audit.head").read_bytes()
    fill_log(tmp_path, 5)
    (tmp_path / "audit.head").write_bytes(old)
    assert verify(tmp_path).good
    fill_log(tmp_path, 1)
    assert verify(tmp_path).good
