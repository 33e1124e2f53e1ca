"""Start, stop, restart, accept and PUT as edits of desired state, and when they are refused. Pure.

The API never touches a container: it decides which entries of ``groups.yaml`` change, and a ``Writer`` writes
them. The decision depends on the desired state *at the moment of writing*, so the writer gets a function
and calls it under its lock. Two concurrent requests can't decide on the same state and overwrite each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from reconciler.errors import UnknownGroup, WriteRefused
from reconciler.model.desired import Desired, GroupState, Suspension
from reconciler.model.stack import Stack


class GroupEdit(NamedTuple):
    """New values for the entry of one group. None: leave that field as it is.

    ``force`` False and ``suspend`` False remove the key, ``suspend`` True suspends without an end.
    ``restarted_at`` and ``accepted_at`` are wall time in seconds since the epoch.
    """

    on: bool | None = None
    force: bool | None = None
    restarted_at: float | None = None
    suspend: Suspension | bool | None = None
    accepted_at: float | None = None


Changes = Mapping[str, GroupEdit]
"""Edits by group, without no-ops: empty means that desired state is already as requested."""

EditFunction = Callable[[Stack, Desired], Changes]


class WriteResult(NamedTuple):
    """Result of a write: the current generation, and whether the write created it.

    ``groups`` are those whose entries changed, in display order. ``suspended`` are all groups that are
    suspended now, changed or not; the loop does not act on them yet.
    """

    generation: int
    changed: bool
    groups: tuple[str, ...]
    suspended: tuple[str, ...] = ()


class Writer(Protocol):
    """Edits the files of desired state; every write outside of an editor or git uses it."""

    async def write(self, decide: EditFunction, *, author: str, reason: str, source: str = "") -> WriteResult:
        """Read the files, call ``decide`` and write its changes; one writer at a time.

        When this returns, the change and its audit entry are durable, and every snapshot shows its
        generation or a later one. ``decide`` may be called again if the file changes during the write.
        ``reason`` is ``ACTION TARGET``, ``source`` the caller's address.

        Raises:
            WriteRefused: raised by ``decide``, or the files can't be written now (reason
                ``desired_state_invalid`` if they are not valid). Nothing was changed.
            InvalidDesiredState: the files on disk are not valid; it has every mistake.
        """
        ...


def start(
    stack: Stack, desired: Desired, group: str, *, force: bool = False, with_dependencies: bool = False
) -> Changes:
    """Switch a group on, and with ``with_dependencies`` all its direct and indirect dependencies.

    ``force`` is stored, and a start without it removes it. A dependency that is on but not ready is no
    reason to refuse: the loop waits for it.

    Raises:
        UnknownGroup: stack.yaml does not have the group.
        WriteRefused: ``dependency_off``; the group would be on but blocked.
    """
    _known(stack, group)
    wanted = {group: GroupEdit(on=True, force=force)}
    off = [name for name in stack.groups[group].depends_on if not desired.groups[name].on]
    missing = [name for name in _below(stack, group) if not desired.groups[name].on]
    if with_dependencies:
        wanted |= {name: GroupEdit(on=True, force=False) for name in missing}
    elif off and not force:
        raise WriteRefused(
            "dependency_off",
            f"{group} needs {_listed(off)}, which {_is(off)} off",
            f"add with_dependencies=true to start {_listed(missing)} as well, "
            f"or force=true to start {group} without",
        )
    return _real(stack, desired, wanted)


def stop(
    stack: Stack, desired: Desired, group: str, *, force: bool = False, with_dependents: bool = False
) -> Changes:
    """Switch a group off, and with ``with_dependents`` all its direct and indirect dependents.

    ``force`` only skips the refusal here: it is never stored, and a stored one is removed.

    Raises:
        UnknownGroup: stack.yaml does not have the group.
        WriteRefused: ``dependents_on``; groups that are on depend on this one.
    """
    _known(stack, group)
    wanted = {group: GroupEdit(on=False, force=False)}
    needing = [name for name in stack.group_dependents[group] if desired.groups[name].on]
    running = [name for name in _above(stack, group) if desired.groups[name].on]
    if with_dependents:
        wanted |= {name: GroupEdit(on=False, force=False) for name in running}
    # If the group is already off, a refusal would only make a repeated stop fail.
    elif needing and desired.groups[group].on and not force:
        depend, are = ("depends", "is") if len(needing) == 1 else ("depend", "are")
        raise WriteRefused(
            "dependents_on",
            f"{_listed(needing)} {depend} on {group} and {are} on",
            f"add with_dependents=true to stop {_listed(running)} as well, "
            f"or force=true to stop {group} alone",
        )
    return _real(stack, desired, wanted)


def restart(stack: Stack, desired: Desired, group: str, *, at: float) -> Changes:
    """Restart every container of a group that was started before ``at`` (wall seconds).

    Raises:
        UnknownGroup: stack.yaml does not have the group.
        WriteRefused: ``group_off``; there is nothing to restart.
    """
    _known(stack, group)
    if not desired.groups[group].on:
        raise WriteRefused("group_off", f"{group} is off", f"start {group} instead")
    return _real(stack, desired, {group: GroupEdit(restarted_at=at)})


def accept(stack: Stack, desired: Desired, group: str, *, at: float) -> Changes:
    """Accept the held changes of a group, up to ``at`` (wall seconds).

    Raises:
        UnknownGroup: stack.yaml does not have the group.
        WriteRefused: ``group_off``; a group that is off holds no changes, its next start applies them.
    """
    _known(stack, group)
    if not desired.groups[group].on:
        raise WriteRefused("group_off", f"{group} is off, so it has no held changes", f"start {group} first")
    return _real(stack, desired, {group: GroupEdit(accepted_at=at)})


def put(
    stack: Stack,
    desired: Desired,
    group: str,
    *,
    on: bool,
    force: bool = False,
    suspend: Suspension | bool | None = None,
) -> Changes:
    """Set the desired state of one group; idempotent.

    Refused like ``start`` and ``stop``, unless nothing changes. ``suspend`` None leaves a suspension as it
    is, so that a script that sets "on" every hour does not end a suspension for maintenance.

    Raises:
        UnknownGroup: stack.yaml does not have the group.
        WriteRefused: ``dependency_off`` or ``dependents_on``.
    """
    _known(stack, group)
    held = desired.groups[group]
    changes: dict[str, GroupEdit] = {}
    if (held.on, held.force) != (on, force):
        decide = start if on else stop
        changes.update(decide(stack, desired, group, force=force))
    changes[group] = changes.get(group, GroupEdit())._replace(suspend=suspend)
    return _real(stack, desired, changes)


def _known(stack: Stack, group: str) -> None:
    if group not in stack.groups:
        raise UnknownGroup(group, tuple(stack.groups))


def _below(stack: Stack, group: str) -> Sequence[str]:
    return _reached(stack, group, lambda name: stack.groups[name].depends_on)


def _above(stack: Stack, group: str) -> Sequence[str]:
    return _reached(stack, group, lambda name: stack.group_dependents[name])


def _reached(stack: Stack, group: str, step: Callable[[str], Iterable[str]]) -> Sequence[str]:
    """Return all groups that are reachable from ``group`` by ``step``, without it, in display order."""
    found: set[str] = set()
    ahead = [group]
    while ahead:
        fresh = set(step(ahead.pop())) - found
        found |= fresh
        ahead += fresh
    return [name for name in stack.groups if name in found and name != group]


def _real(stack: Stack, desired: Desired, wanted: Changes) -> Changes:
    """Return the edits in ``wanted`` that change the current state, in display order."""
    changes = {
        name: _difference(desired.groups[name], wanted[name]) for name in stack.groups if name in wanted
    }
    return {name: change for name, change in changes.items() if change != GroupEdit()}


def _difference(state: GroupState, change: GroupEdit) -> GroupEdit:
    suspended: Suspension | bool = state.suspend if state.suspend is not None else False
    suspend = Suspension() if change.suspend is True else change.suspend
    return GroupEdit(
        on=None if change.on == state.on else change.on,
        force=None if change.force == state.force else change.force,
        restarted_at=None if change.restarted_at == state.restarted_at else change.restarted_at,
        suspend=None if suspend == suspended else change.suspend,
        accepted_at=None if change.accepted_at == state.accepted_at else change.accepted_at,
    )


def _listed(names: Sequence[str]) -> str:
    # List at most eight names in a message, then the number of the others.
    shown = [*names[:8], f"{len(names) - 8} more"] if len(names) > 9 else list(names)
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
