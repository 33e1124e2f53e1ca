"""``audit``: lists entries from the daemon, or verifies the audit log on disk without one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reconciler.cli.connection import Connection
from reconciler.cli.console import Cell, Console, Row, clean
from reconciler.cli.output.status_rows import mapping
from reconciler.cli.output.time_format import local_time
from reconciler.errors import ServiceManagerError

_RED = frozenset({"refused", "failed", "degraded", "lost", "damaged"})
_YELLOW = frozenset({"unknown", "superseded", "after_crash"})


class EmptyAuditLog(ServiceManagerError):
    """There is no readable audit log in the state directory."""

    remedy = "give the daemon's state directory with --state-dir"


def audit(
    console: Console, *, connection: Connection, output: str, verify: bool, state_dir: Path, **filters: Any
) -> int:
    """Print the entries that match the filters, or with ``--verify`` the problems of the audit log."""
    if verify:
        return _verify(state_dir, output, console)
    query = {name: value for name, value in filters.items() if value}
    answer = mapping(connection.open().get("/services/audit", query))
    if output == "json":
        console.json(answer)
        return 0
    entries = [mapping(entry) for entry in answer.get("entries") or ()]
    if not entries:
        console.print("no matching entries" if set(query) - {"limit"} else "the audit log is empty")
        return 0
    titles = ("ID", "WHEN", "USER", "ACTION", "TARGET", "RESULT", "WHY")
    console.table(map(_row, entries), titles=titles, right=(0,))
    if answer.get("before"):
        console.error(f"older entries: service-manager audit --before {answer['before']}")
    return 0


def _row(entry: Mapping[str, Any]) -> Row:
    result = clean(entry.get("result") or "")
    style = "red" if result in _RED else "yellow" if result in _YELLOW else ""
    user = clean(entry.get("user") or "–")
    source = clean(entry.get("source") or "")
    count = entry.get("count")
    why = ": ".join(filter(None, (clean(entry.get("reason") or ""), clean(entry.get("message") or ""))))
    return (
        str(entry.get("id", "?")),
        local_time(entry.get("timestamp")),
        f"{user} ({source})" if source else user,
        clean(entry.get("action") or ""),
        clean(entry.get("target") or ""),
        Cell(f"{result} ×{count}" if isinstance(count, int) and count > 1 else result, style),
        why,
    )


def _verify(state_dir: Path, output: str, console: Console) -> int:
    from reconciler.audit.query import NoAuditLog, verify

    try:
        result = verify(state_dir)
    except NoAuditLog as error:
        raise EmptyAuditLog(str(error)) from None
    except OSError as error:
        raise EmptyAuditLog(f"the audit log in {state_dir} can't be read: {error.strerror}") from error
    if output == "json":
        console.json(
            {
                "good": result.good,
                "entries": result.entries,
                "first": result.first,
                "last": result.last,
                "problems": [problem._asdict() for problem in result.problems],
                "notes": list(result.notes),
            }
        )
        return 0 if result.good else 1
    for note in result.notes:
        console.print(f"note: {clean(note)}")
    for problem in result.problems:
        console.error(console.paint(clean(problem.message), "red"))
    if not result.good:
        count = len(result.problems)
        console.error(f"the audit log in {state_dir} is broken: {count} problem{'' if count == 1 else 's'}")
        return 1
    console.print(f"the audit log is intact: {result.entries} entries, {result.first} to {result.last}")
    return 0
