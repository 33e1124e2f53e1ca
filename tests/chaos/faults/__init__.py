"""What goes wrong: to containers, to the daemon, to the engine, between them, to files, to the box.

Each fault is begun, lasts a while where that means anything, and is taken back by what ``begin`` returned.
One module for each place where things go wrong; the shares are those of PITFALLS section 3.
"""

from __future__ import annotations

from tests.chaos.faults import compose, connection, containers, daemon, engine, files, host
from tests.chaos.faults.fault import Fault

FAULTS: tuple[Fault, ...] = (
    *containers.FAULTS,
    *daemon.FAULTS,
    *engine.FAULTS,
    *connection.FAULTS,
    *compose.FAULTS,
    *files.FAULTS,
    *host.FAULTS,
)

__all__ = ["FAULTS", "Fault"]
