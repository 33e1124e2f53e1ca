"""Faults of containers, the daemon, the engine, the connection, files and the host.

Each fault begins, lasts a while if that makes sense, and is reverted by what ``begin`` returned. One module
for each place; the shares are those of PITFALLS section 3.
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
