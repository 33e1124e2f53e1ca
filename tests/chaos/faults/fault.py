"""What a fault is, and whom it may hit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tests.chaos.harness import ChaosHarness

Undo = Callable[[], None]


class Fault(NamedTuple):
    """``share`` of all faults, in percent; ``lasts``: between which seconds.

    ``begin`` returns how it is taken back, None if there is nothing to take back. Either may raise OSError,
    where another fault took the disk away: what could not begin has not begun, what could not be taken back
    is tried again. ``ends_daemon``: the daemon does not live through it.
    """

    name: str
    kind: str
    share: float
    begin: Callable[[ChaosHarness], Undo | None]
    lasts: tuple[float, float] = (0.0, 0.0)
    ends_daemon: bool = False


def victim_in(world: ChaosHarness) -> dict[str, Any] | None:
    """Somebody who runs and may be hit; None if there is nobody."""
    several = [c for c in world.managed() if c["status"] == "running" and c["service"] != "migrate"]
    return world.chance.choice(sorted(several, key=lambda c: str(c["service"]))) if several else None
