"""Arguments and results of gates. Values only."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from reconciler.model.desired import Desired, GroupState
from reconciler.model.ledger import Clock, Ledger
from reconciler.model.observed import ObservedState
from reconciler.model.stack import Stack
from reconciler.planning.plan_types import Block, Wait


class PlanInputs(NamedTuple):
    """The arguments of ``plan``, as gates get them."""

    stack: Stack
    desired: Desired
    observed: ObservedState
    ledger: Ledger
    now: Clock


class GateResult(NamedTuple):
    """What a gate returns for one group.

    ``hold`` holds the group back; None: the gate is open. A ``Block`` should have a ``remedy``: it is the
    remedy of a start request that the gate rejects. ``due`` is the wall time in seconds at which the result
    may change; past times are ignored. With ``starts_only`` only creates and starts are held back.
    """

    hold: Block | Wait | None = None
    due: float | None = None
    starts_only: bool = False


OPEN = GateResult()
"""The result of a gate that holds nothing back."""

Gate: TypeAlias = Callable[[PlanInputs, str], GateResult]
"""A pure function of the inputs of ``plan`` and the name of a group."""


class GroupGate(NamedTuple):
    """What applies to every service of a group in this pass.

    ``hold`` holds back every step, ``start_hold`` creates and starts. ``ready_groups`` must be ready before a
    service of the group starts. ``restart_at`` and ``accept_at`` are past wall times of requests. ``due`` is
    the next future wall time at which any of this changes.
    """

    group: str
    state: GroupState
    hold: Block | Wait | None = None
    start_hold: Block | Wait | None = None
    ready_groups: tuple[str, ...] = ()
    restart_at: float | None = None
    accept_at: float | None = None
    due: float | None = None
