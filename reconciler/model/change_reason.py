"""Why a generation was created, as a value. Records, audit entries and commits show it as text."""

from __future__ import annotations

from typing import NamedTuple


class ChangeReason(NamedTuple):
    """``action`` is an API verb, ``rollback``, ``commit`` or ``edited`` (by hand, without a target).

    ``target`` is what the action applies to: groups, a generation or a commit. Records on disk and the API
    hold the text ``ACTION TARGET``, so its form must not change.
    """

    action: str
    target: str = ""

    def __str__(self) -> str:
        """Return the text to store."""
        return f"{self.action} {self.target}" if self.target else self.action

    @classmethod
    def parse(cls, text: str) -> ChangeReason:
        """Parse the stored text; never raises."""
        action, _, target = text.partition(" ")
        return cls(action, target)

    @property
    def from_files(self) -> bool:
        """Whether the change came with the files, by hand or by git, and not from a request."""
        return self == EDITED or self.action == COMMIT


COMMIT = "commit"
ROLLBACK = "rollback"

EDITED = ChangeReason("edited")
"""An edit of the files by hand."""
