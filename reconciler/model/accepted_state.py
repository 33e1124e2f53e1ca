"""An accepted desired state: the only wrapper of stack and desired state that has a number."""

from __future__ import annotations

from typing import NamedTuple

from reconciler.model.desired import Desired
from reconciler.model.stack import Stack


class AcceptedState(NamedTuple):
    """A generation of desired state. ``desired.generation`` is its number.

    ``stack.model`` is the frozen resolved model. ``accepted_at`` is wall time in seconds since the epoch.
    ``changes`` lists the differences from the generation before, one line of text each.
    """

    stack: Stack
    desired: Desired
    accepted_at: float = 0.0
    changes: tuple[str, ...] = ()
