"""The state of `make run` between runs and for `make clean`: `.run/quickstart.json`.

Losing it costs only convenience: containers carry their own labels.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Record:
    """`engines`: the addresses that this stack ran on; the value: whether with stand-in images."""

    engines: dict[str, bool] = field(default_factory=dict)
    certificates: dict[str, str] = field(default_factory=dict)
    daemon_pid: int = 0
    daemon_url: str = ""


def read(run: Path) -> Record:
    """Return the record; an empty one if it is missing or damaged."""
    try:
        return Record(**json.loads((run / "quickstart.json").read_text()))
    except (OSError, ValueError, TypeError):
        return Record()


def write(run: Path, record: Record) -> None:
    """Save the record."""
    run.mkdir(parents=True, exist_ok=True)
    (run / "quickstart.json").write_text(json.dumps(asdict(record), indent=1) + "\n")
