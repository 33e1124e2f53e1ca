"""Desired state: which groups are on, and their options. The meaning of ``groups.yaml`` as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ACCEPT_TOLERANCE = 2.0
"""Seconds by which a change may be first observed after its acceptance: a file can be saved and accepted
before the next observation finds it."""


@dataclass(frozen=True, slots=True)
class Suspension:
    """Suspends a group. ``until`` is wall time in seconds since the epoch; None: until it is resumed."""

    until: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupState:
    """The entry of one group in ``groups.yaml``. Times are wall time in seconds since the epoch."""

    on: bool
    force: bool = False
    suspend: Suspension | None = None
    restarted_at: float | None = None
    accepted_at: float | None = None

    def suspended(self, wall: float) -> bool:
        """Return whether the group is suspended at this wall time."""
        return self.suspend is not None and (self.suspend.until is None or wall < self.suspend.until)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """One accepted desired state.

    ``generation`` grows by one with every accepted change and survives restarts;
    ``revision`` is a digest of the files' contents; ``commit`` the git commit, if there is one.
    """

    groups: Mapping[str, GroupState] = field(default_factory=dict)
    generation: int = 0
    revision: str = ""
    commit: str = ""
