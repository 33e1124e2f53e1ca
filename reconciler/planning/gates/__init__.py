"""Gates hold a group back: a suspension, a needed group that is off, an alternative that is on. Pure.

Each gate is one function in its own module and one entry in ``GATES``. ``plan`` calls every gate once per
group and pass; the first result that holds the group back wins. Status, REST, command line and dashboard
show the reason and message of the result without knowing the gate. ``planning.edits`` calls the same
functions to reject an edit that would leave its group blocked.

To add a gate:

1. Write ``gates/NAME.py`` with ``def NAME(inputs: PlanInputs, group: str) -> GateResult``. Return ``OPEN`` as
   early as possible: the function runs for every group in every pass, on or off.
2. Add it to ``GATES`` below. The order is the precedence.
3. Describe its reason in ``docs/troubleshooting.md`` and test its plans as in
   ``tests/unit/planning/test_gates.py``.

Return a ``Block`` if a person must change something, and a ``Wait`` if the gate opens without help. A block
is reported even if nothing differs; a wait only delays what differs. With ``starts_only`` the gate holds back
creates and starts, and running containers are still repaired. A gate that opens or closes at a known time
returns that wall time as ``due``, and the loop plans again then.

May import ``model`` and the values of ``plan_types``; uses no file, clock, random number or log.
"""

from __future__ import annotations

from reconciler.planning.gates.alternatives import alternatives
from reconciler.planning.gates.dependencies import dependencies, ready_dependencies
from reconciler.planning.gates.gate_types import OPEN, Gate, GateResult, GroupGate, PlanInputs
from reconciler.planning.gates.project_name import project_name
from reconciler.planning.gates.suspension import suspension
from reconciler.planning.plan_types import Block

__all__ = ["GATES", "OPEN", "Gate", "GateResult", "GroupGate", "PlanInputs", "first_block", "group_gate"]

GATES: tuple[Gate, ...] = (suspension, dependencies, alternatives, project_name)
"""All gates, in order of precedence."""


def group_gate(inputs: PlanInputs, name: str) -> GroupGate:
    """Return what applies to every service of the group in this pass, from all gates."""
    state, wall = inputs.desired.groups[name], inputs.now.wall
    hold = start_hold = None
    times = []
    for gate in GATES:
        result = gate(inputs, name)
        if result is OPEN:
            continue
        times.append(result.due)
        if result.hold is None:
            continue
        if result.starts_only:
            start_hold = start_hold or result.hold
        else:
            hold = hold or result.hold
    restart_at, accept_at = state.restarted_at, state.accepted_at
    if restart_at is not None and restart_at > wall:
        times.append(restart_at)
        restart_at = None
    if accept_at is not None and accept_at > wall:
        times.append(accept_at)
        accept_at = None
    due = min((at for at in times if at is not None and at > wall), default=None) if times else None
    ready_groups = ready_dependencies(inputs, name)
    return GroupGate(name, state, hold, start_hold, ready_groups, restart_at, accept_at, due)


def first_block(inputs: PlanInputs, name: str) -> Block | None:
    """Return the first block of the whole group, from all gates; None: no gate blocks it.

    Leaves out waits, which end without help, and blocks with ``starts_only``.
    """
    for gate in GATES:
        result = gate(inputs, name)
        if isinstance(result.hold, Block) and not result.starts_only:
            return result.hold
    return None
