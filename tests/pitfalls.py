"""The failures of PITFALLS.md by number, and the tests that cover them.

``python -m tests.pitfalls`` prints the table. A test names its rows by ``@pytest.mark.pitfall(6)``; a row
without a test fails ``tests/unit/test_pitfalls.py``.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent

ROWS = {
    1: "Compose's hash of a service with env_file is not the label that it writes",
    2: "a person's up recreates the daemon's containers because of another hash",
    3: "the daemon's environment gets into what Compose resolves",
    4: "a Compose upgrade hashes the same files differently",
    5: "an image store shows another id for the same image",
    6: "a remake is cut short and leaves two containers, one under a prefixed name",
    7: "the daemon dies and its Compose child works on",
    8: "two Compose calls at once make a network twice",
    9: "the engine did it, and the answer got lost",
    10: "an engine that is away is taken for services that are dead",
    11: "the engine drops events for a slow reader",
    12: "events of the past can't be had again",
    13: "the stream of events ends, or is open and silent",
    14: "a stream that can't be left holds up the end",
    15: "one stuck container hangs every call about it",
    16: "a stop is given up after the client's limit instead of the container's grace",
    17: "what was stopped is started by its restart policy when the engine comes up",
    18: "a container between two restarts is neither stopped nor running",
    19: "a removal that is already in progress",
    20: "a one-shot that went down with the box looks done",
    21: "a finished one-shot runs again",
    22: "a paused container is called unhealthy, a fresh one what its predecessor was",
    23: "the engine says that it is done, and nothing changed",
    24: "a health check that hangs goes on in the container",
    25: "a container whose network is gone never starts again",
    26: "a port is held by an unknown process",
    27: "a file to be mounted is gone, and the engine makes a folder of that name",
    28: "a watch of a file ends when the file is replaced",
    29: "file change events are lost or unavailable",
    30: "a checkout is read half-way",
    31: "our git breaks a person's rebase, or theirs our commit",
    32: "root may not use a checkout of another user",
    33: "the power goes while a file is written; a file that can't be replaced",
    34: "the database of the audit log is damaged",
    35: "the disk is full or read-only",
    36: "the clock jumps",
    37: "memory runs out for a process of a container, or for the engine",
    38: "an engine too old or too new for the API that is spoken",
    39: "the service goes down with docker.service, or starts it",
    40: "the watchdog lets a hanging loop live, or kills for the engine's hang",
    41: "those who listen hold up the end",
    42: "clean-up removes foreign objects",
    43: "a followed log falls silent when the engine rotates it",
}

IMPOSSIBLE: Mapping[int, str] = {}
"""Rows that can't happen here, each with the reason."""


def shown(folder: Path = HERE) -> dict[int, list[str]]:
    """The tests of each row, by pytest's names."""
    found: dict[int, list[str]] = {}
    for path in sorted(folder.rglob("test_*.py")):
        for node in ast.parse(path.read_bytes()).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for row in _rows(node):
                    found.setdefault(row, []).append(f"{path.relative_to(folder.parent)}::{node.name}")
    return found


def _rows(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[int]:
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.pitfall":
            yield from map(ast.literal_eval, decorator.args)


def table() -> str:
    """Rows, failures and their tests."""
    tests = shown()
    lines = []
    for row, what in ROWS.items():
        lines.append(f"{row:2}  {what}")
        lines += [f"      {test}" for test in tests.get(row, ())]
        lines += [f"      can't happen: {IMPOSSIBLE[row]}"] if row in IMPOSSIBLE else []
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(f"{table()}\n")
