"""The gate of a changed project name: holds back starts while the earlier project exists. Pure."""

from __future__ import annotations

from reconciler.planning.gates.gate_types import OPEN, GateResult, PlanInputs
from reconciler.planning.plan_types import Block
from reconciler.planning.project_rename import REASON, describe, holds_back


def project_name(inputs: PlanInputs, group: str) -> GateResult:
    """Return a block of creates and starts while containers or volumes of the earlier name exist."""
    if inputs.ledger.renaming is None:
        return OPEN
    state = inputs.desired.groups[group]
    if not state.on or not holds_back(
        inputs.stack, inputs.observed, inputs.ledger, state.accepted_at, inputs.now
    ):
        return OPEN
    on = [name for name, other in inputs.desired.groups.items() if other.on]
    remedy = f"`service-manager accept {group}`, or restore the earlier `name:` in stack.yaml"
    block = Block(REASON, describe(inputs.stack, inputs.observed.left, on), remedy)
    return GateResult(block, starts_only=True)
