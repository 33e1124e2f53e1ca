"""The gate of group dependencies: a group is blocked while a group that it needs is off. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from reconciler.model.stack import Stack, Strength
from reconciler.planning.drift import join_names
from reconciler.planning.gates.gate_types import OPEN, GateResult, PlanInputs
from reconciler.planning.plan_types import Block

REASON = "dependency_off"


def dependencies(inputs: PlanInputs, group: str) -> GateResult:
    """Return a block if the group is on, not forced, and a needed group is off."""
    needed = inputs.stack.groups[group].depends_on
    states = inputs.desired.groups
    if not needed or not states[group].on or states[group].force:
        return OPEN
    off = [name for name in needed if not states[name].on]
    if not off:
        return OPEN
    verb = "is" if len(off) == 1 else "are"
    missing = [name for name in all_dependencies(inputs.stack, group) if not states[name].on]
    remedy = (
        f"add with_dependencies=true to start {join_names(missing, 8)} as well, "
        f"or force=true to start {group} without"
    )
    return GateResult(Block(REASON, f"needs {join_names(off, 8)}, which {verb} off", remedy))


def all_dependencies(stack: Stack, group: str) -> list[str]:
    """Return the groups that a group depends on, directly or through others, in display order."""
    return reachable_groups(stack, group, lambda name: stack.groups[name].depends_on)


def reachable_groups(stack: Stack, group: str, neighbours: Callable[[str], Iterable[str]]) -> list[str]:
    """Return the groups that ``neighbours`` leads to from ``group``, without it, in display order."""
    reached: set[str] = set()
    ahead = [group]
    while ahead:
        new = set(neighbours(ahead.pop())) - reached
        reached |= new
        ahead += new
    return [name for name in stack.groups if name in reached and name != group]


def ready_dependencies(inputs: PlanInputs, group: str) -> tuple[str, ...]:
    """Return the groups that must be ready before a service of this group starts."""
    needed, state = inputs.stack.groups[group].depends_on, inputs.desired.groups[group]
    if not needed or not state.on or state.force:
        return ()
    return tuple(name for name, strength in needed.items() if strength is Strength.READY)
