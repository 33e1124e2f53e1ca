"""What a requested edit means for each group, or why it is rejected. Pure.

A start is rejected by the gates: the same functions that would hold the group back afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple, TypeAlias

from reconciler.errors import UnknownGroup
from reconciler.model.desired import Desired, GroupState
from reconciler.model.edit import REVISION_DIGITS, Edit, Verb
from reconciler.model.ledger import Clock, Ledger
from reconciler.model.observed import ObservedState
from reconciler.model.stack import Stack
from reconciler.planning.drift import join_names
from reconciler.planning.gates import PlanInputs, first_block
from reconciler.planning.gates.alternatives import alternative_on
from reconciler.planning.gates.dependencies import all_dependencies, reachable_groups
from reconciler.planning.plan_types import Block

_MOST_NAMES = 8
"""Maximum number of groups that a message lists."""


class Rejected(NamedTuple):
    """Why an edit is rejected: ``reason`` is a stable word, ``remedy`` what to do instead."""

    reason: str
    message: str
    remedy: str = ""


States: TypeAlias = dict[str, GroupState]


def resolve(edit: Edit, stack: Stack, desired: Desired) -> States | Rejected:
    """Return the new state of each group that ``edit`` changes, in display order; empty: nothing changes.

    Rejects with ``revision_changed``, ``unknown_group``, ``dependents_on`` (a stop while groups that are on
    depend on the group), ``group_off`` (a restart or accept of a group that is off), or the reason of a gate,
    such as ``dependency_off`` or ``alternative_on``. A dependency that is on but not ready is no reason: the
    loop waits for it.
    """
    revision = desired.revision[:REVISION_DIGITS]
    if edit.if_match is not None and revision not in edit.if_match:
        return Rejected(
            "revision_changed",
            f"desired state has changed since: its revision is now {revision}",
            "read it again, check that the change still applies, and send it with the new ETag",
        )
    groups = dict(desired.groups)
    for group in edit.groups:
        if group not in stack.groups:
            unknown = UnknownGroup(group, tuple(stack.groups))
            return Rejected(unknown.reason, str(unknown), unknown.remedy)
        states = _VERBS[edit.verb](edit, stack, replace(desired, groups=groups), group)
        if isinstance(states, Rejected):
            return states
        groups |= states
    return {name: groups[name] for name in stack.groups if groups[name] != desired.groups[name]}


def _start(edit: Edit, stack: Stack, desired: Desired, group: str) -> States | Rejected:
    """Switch the group on. ``force`` is stored, and a start without it removes it."""
    states = {group: replace(desired.groups[group], on=True, force=edit.force)}
    if edit.cascade:
        for name in all_dependencies(stack, group):
            if not desired.groups[name].on:
                states[name] = replace(desired.groups[name], on=True, force=False)
    after = replace(desired, groups={**desired.groups, **states})
    # Gates that depend on containers stay open for an edit: it is decided by the files alone.
    inputs = PlanInputs(stack, after, ObservedState(), Ledger(), Clock(edit.at, 0.0))
    for name in states:
        # Before the gates: of two alternatives that are on, their gate keeps only one off.
        alternative = alternative_on(stack, after, name)
        if alternative is not None:
            return _rejected_by(alternative, name)
    block = first_block(inputs, group)
    return states if block is None else _rejected_by(block, group)


def _rejected_by(block: Block, group: str) -> Rejected:
    remedy = block.remedy or f"remove the cause, then start {group} again"
    return Rejected(block.reason, f"{group} {block.message}", remedy)


def _stop(edit: Edit, stack: Stack, desired: Desired, group: str) -> States | Rejected:
    """Switch the group off. ``force`` only skips the check: it is never stored, a stored one is removed."""
    states = desired.groups
    needing = [name for name in stack.group_dependents[group] if states[name].on]
    dependents = reachable_groups(stack, group, lambda name: stack.group_dependents[name])
    running = [name for name in dependents if states[name].on]
    # If the group is already off, a refusal would only make a repeated stop fail.
    if needing and states[group].on and not edit.cascade and not edit.force:
        depend, are = ("depends", "is") if len(needing) == 1 else ("depend", "are")
        return Rejected(
            "dependents_on",
            f"{_listed(needing)} {depend} on {group} and {are} on",
            f"add with_dependents=true to stop {_listed(running)} as well, "
            f"or force=true to stop {group} alone",
        )
    stopped = [group, *running] if edit.cascade else [group]
    return {name: replace(states[name], on=False, force=False) for name in stopped}


def _restart(edit: Edit, _stack: Stack, desired: Desired, group: str) -> States | Rejected:
    """Restart every container of the group that was started before ``at``."""
    state = desired.groups[group]
    if not state.on:
        return Rejected("group_off", f"{group} is off", f"start {group} instead")
    return {group: replace(state, restarted_at=edit.at)}


def _accept(edit: Edit, _stack: Stack, desired: Desired, group: str) -> States | Rejected:
    """Accept the held changes of the group, up to ``at``. A group that is off holds none."""
    state = desired.groups[group]
    if not state.on:
        return Rejected("group_off", f"{group} is off, so it has no held changes", f"start {group} first")
    return {group: replace(state, accepted_at=edit.at)}


def _put(edit: Edit, stack: Stack, desired: Desired, group: str) -> States | Rejected:
    """Set the state of the group; rejected like ``start`` and ``stop``, unless the state stays the same.

    A suspension that the edit does not name stays, so that a script that sets "on" every hour does not end a
    suspension for maintenance.
    """
    state = desired.groups[group]
    states: States = {}
    if (state.on, state.force) != (edit.on, edit.force):
        switched = (_start if edit.on else _stop)(edit, stack, desired, group)
        if isinstance(switched, Rejected):
            return switched
        states = switched
    if edit.suspend is not None or edit.resume:
        states[group] = replace(states.get(group, state), suspend=edit.suspend)
    return states


_VERBS: Mapping[Verb, Callable[[Edit, Stack, Desired, str], States | Rejected]] = {
    "start": _start,
    "stop": _stop,
    "restart": _restart,
    "accept": _accept,
    "put": _put,
}


def _listed(names: list[str]) -> str:
    return join_names(names, _MOST_NAMES)
