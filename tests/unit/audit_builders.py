"""An audit log to try things on: to fill, to read, and to change behind its back."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from reconciler import audit_file
from reconciler.audit import Audit, Fact, Query
from reconciler.audit_file import AuditFile
from reconciler.audit_read import read, verify

DAY = 86400.0
NOW = 1_795_500_000.0


def a_fact(number: int = 1, **fields: object) -> Fact:
    plain = Fact("start", f"group-{number}", "accepted", "ann", "requested", at=NOW + number)
    return plain._replace(**fields)


@contextmanager
def a_file(state_dir: Path, *, check: bool = True) -> Iterator[AuditFile]:
    with closing(AuditFile(state_dir, check=check)) as file:
        yield file


def filled(state_dir: Path, count: int = 20) -> None:
    with a_file(state_dir) as file:
        for number in range(1, count + 1):
            file.append([a_fact(number)])


@contextmanager
def an_audit(state_dir: Path, **options: object) -> Iterator[Audit]:
    audit = Audit(state_dir, **options)  # type: ignore[arg-type]
    audit.start()
    try:
        yield audit
    finally:
        audit.close(10)


def by_hand(state_dir: Path, text: str, *values: object) -> None:
    with closing(sqlite3.connect(state_dir / audit_file.NAME, isolation_level=None)) as db:
        db.execute(text, values)


def problems(state_dir: Path) -> list[str]:
    return [problem.message for problem in verify(state_dir).problems]


def targets(state_dir: Path, **query: object) -> list[str]:
    return [entry.fact.target for entry in read(state_dir, Query(**query))]  # type: ignore[arg-type]


def waited(true: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
