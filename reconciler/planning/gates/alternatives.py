"""The gate of alternatives: groups whose services share a container name can't be on together. Pure."""

from __future__ import annotations

from reconciler.model.desired import Desired
from reconciler.model.stack import Stack
from reconciler.planning.drift import join_names
from reconciler.planning.gates.gate_types import OPEN, GateResult, PlanInputs
from reconciler.planning.plan_types import Block

REASON = "alternative_on"


def alternatives(inputs: PlanInputs, group: str) -> GateResult:
    """Return a block if another group is on whose service has the container name of one in this group.

    One of the groups stays open: the one with a container of that name, else the first in display order.
    """
    if group not in inputs.stack.rivals or not inputs.desired.groups[group].on:
        return OPEN
    block = alternative_on(inputs.stack, inputs.desired, group)
    if block is None or _first_of_rivals(inputs, group) == group:
        return OPEN
    return GateResult(block)


def alternative_on(stack: Stack, desired: Desired, group: str) -> Block | None:
    """Return the block of a group while a group is on that can't be on with it; None: there is none."""
    rivals = stack.rivals.get(group, {})
    on = [rival for rival in rivals if desired.groups[rival].on]
    if not on:
        return None
    message = f"has the container name {rivals[on[0]]} in common with {on[0]}, which is on"
    return Block(REASON, message, f"stop {join_names(on, 8)} first")


def _first_of_rivals(inputs: PlanInputs, group: str) -> str:
    stack = inputs.stack
    rivals = [name for name in stack.groups if name == group or name in stack.rivals[group]]
    on = [name for name in rivals if inputs.desired.groups[name].on]
    names = {stack.rivals[group][name] for name in on if name != group}
    for container in inputs.observed.containers:
        owner = stack.group_of.get(container.service)
        if container.name in names and owner in on:
            return owner
    return on[0]
