"""The gate of ``suspend``: drift is reported and nothing is changed, until resume or a set time. Pure."""

from __future__ import annotations

from reconciler.planning.gates.gate_types import OPEN, GateResult, PlanInputs
from reconciler.planning.plan_types import Wait

REASON = "suspended"


def suspension(inputs: PlanInputs, group: str) -> GateResult:
    """Return a wait while the group is suspended, on or off, due at the end of the suspension."""
    state = inputs.desired.groups[group]
    if state.suspend is None or not state.suspended(inputs.now.wall):
        return OPEN
    reason = f": {state.suspend.reason}" if state.suspend.reason else ""
    return GateResult(Wait(REASON, f"{group} is suspended{reason}"), state.suspend.until)
