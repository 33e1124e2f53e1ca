"""A requested change of ``groups.yaml``, as one plain value from the request down to the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reconciler.model.change_reason import ChangeReason
from reconciler.model.desired import Suspension

Verb = Literal["start", "stop", "restart", "accept", "put"]

REVISION_DIGITS = 16
"""Digits of a revision in ETags and in ``Edit.if_match``: enough to be unique, short enough for a shell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """What a caller requests for ``groups``. ``planning.edits.resolve`` turns it into new group states.

    Log an edit only after it is resolved: before, ``groups`` may hold any text that a caller sent.

    - ``on``: the requested state; only ``put`` reads it;
    - ``force``: ignore dependencies. A start stores it, a stop only skips its own check;
    - ``cascade``: a start also starts all direct and indirect dependencies, a stop also stops all dependents;
    - ``suspend`` suspends and ``resume`` ends a suspension; with neither it stays as it is (``put``);
    - ``at``: wall time of the request in seconds since the epoch; ``restart`` and ``accept`` store it;
    - ``if_match``: abbreviated revisions of desired state that the edit applies to. None: to any;
    - ``author``: name of the caller's key; ``source``: the caller's address.
    """

    verb: Verb
    groups: tuple[str, ...]
    on: bool = False
    force: bool = False
    cascade: bool = False
    suspend: Suspension | None = None
    resume: bool = False
    at: float = 0.0
    if_match: tuple[str, ...] | None = None
    author: str = ""
    source: str = ""

    @property
    def reason(self) -> ChangeReason:
        """The reason to record with the generation that this edit creates."""
        return ChangeReason(self.verb, ", ".join(self.groups))
