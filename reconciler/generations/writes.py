"""Interface of writes to desired state: a ``Writer`` takes an ``Edit`` and returns a ``WriteResult``."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from reconciler.model.accepted_state import AcceptedState
from reconciler.model.edit import Edit


class WriteResult(NamedTuple):
    """Result of a write. ``changed``: the write made ``accepted`` a new generation.

    ``groups`` are those whose entries changed, in display order.
    """

    accepted: AcceptedState
    changed: bool
    groups: tuple[str, ...]

    @property
    def generation(self) -> int:
        """Number of the current generation."""
        return self.accepted.desired.generation


class Writer(Protocol):
    """Edits the files of desired state; every write outside of an editor or git uses it."""

    async def write(self, edit: Edit) -> WriteResult:
        """Read the files, resolve ``edit`` against them and write its changes; one writer at a time.

        When this returns, the change and its audit entry are durable, and every snapshot shows its
        generation or a later one.

        Raises:
            WriteRefused: the edit is rejected (see ``planning.edits.resolve``), or the files can't be written
                now (reason ``desired_state_invalid`` if they are not valid). Nothing was changed.
        """
        ...
