"""The definition of a fault and its targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tests.chaos.harness import ChaosHarness

Undo = Callable[[], None]


class Fault(NamedTuple):
    """``share`` of all faults, in percent; ``lasts``: least and most seconds.

    ``begin`` returns a function that reverts it, None if there is nothing to revert. Either may raise OSError
    if another fault removed the disk: then the fault has not begun, or its revert is retried.
    ``ends_daemon``: the daemon does not survive it.
    """

    name: str
    kind: str
    share: float
    begin: Callable[[ChaosHarness], Undo | None]
    lasts: tuple[float, float] = (0.0, 0.0)
    ends_daemon: bool = False


def victim_in(world: ChaosHarness) -> dict[str, Any] | None:
    """A running container that may be hit, or None."""
    several = [c for c in world.managed() if c["status"] == "running" and c["service"] != "migrate"]
    return world.chance.choice(sorted(several, key=lambda c: str(c["service"]))) if several else None
