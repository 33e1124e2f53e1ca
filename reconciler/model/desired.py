"""What is wanted: which groups are on, and how. The meaning of ``groups.yaml``, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Suspension:
    """Hands off a group. ``until`` is wall time in seconds since the epoch, None: until taken away."""

    until: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupState:
    """What ``groups.yaml`` says of one group. Times are wall time in seconds since the epoch."""

    on: bool
    force: bool = False
    suspend: Suspension | None = None
    restarted_at: float | None = None
    accepted_at: float | None = None

    def suspended(self, wall: float) -> bool:
        """Whether hands are off this group at the wall time given."""
        return self.suspend is not None and (self.suspend.until is None or wall < self.suspend.until)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """One accepted desired state.

    ``generation`` grows by one with every accepted change of meaning and survives restarts;
    ``revision`` is a digest of the files' contents; ``commit`` the git commit, where there is one.
    """

    groups: Mapping[str, GroupState] = field(default_factory=dict)
    generation: int = 0
    revision: str = ""
    commit: str = ""
