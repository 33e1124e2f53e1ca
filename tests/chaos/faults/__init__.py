"""What goes wrong: to containers, to the daemon, to the engine, between them, to files, to the box.

Each fault is begun, lasts a while where that means anything, and is taken back by what ``begin`` returned.
One module for each place where things go wrong; the shares are those of PITFALLS section 3.
"""

from __future__ import annotations

from tests.chaos.faults import compose, containers, daemon, engine, files
from tests.chaos.faults import connection as line
from tests.chaos.faults import host as box
from tests.chaos.faults.fault import Fault

FAULTS: tuple[Fault, ...] = (
    *containers.FAULTS,
    *daemon.FAULTS,
    *engine.FAULTS,
    *line.FAULTS,
    *compose.FAULTS,
    *files.FAULTS,
    *box.FAULTS,
)

__all__ = ["FAULTS", "Fault"]
