"""What one `make run` leaves written for the next, and for `make clean`: `.run/quickstart.json`.

Losing it costs convenience only: containers carry their own labels.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Record:
    """`engines`: addresses that this checkout's stack ran on, each with whether on stand-in images."""

    engines: dict[str, bool] = field(default_factory=dict)
    certificates: dict[str, str] = field(default_factory=dict)
    daemon_pid: int = 0
    daemon_url: str = ""


def read(run: Path) -> Record:
    """What was left; an empty record where there is none that can be read."""
    try:
        return Record(**json.loads((run / "quickstart.json").read_text()))
    except (OSError, ValueError, TypeError):
        return Record()


def write(run: Path, record: Record) -> None:
    """Leave it for the next."""
    run.mkdir(parents=True, exist_ok=True)
    (run / "quickstart.json").write_text(json.dumps(asdict(record), indent=1) + "\n")
