"""Hold back a changed project name while it would leave something behind. Pure.

Compose identifies projects by name alone. A new ``name:`` creates everything a second time, with empty
volumes, while the former containers run on or hold the ports. So a new name is held back while containers or
volumes of another name carry the same Compose files, until they are gone or the change is accepted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from reconciler.model.desired import ACCEPT_TOLERANCE, Desired
from reconciler.model.ledger import Clock, Ledger, Named, Renaming
from reconciler.model.observed import ALIVE, LeftBehind, ObservedState
from reconciler.model.stack import Stack

REASON = "project_renamed"


def is_new_name(stack: Stack, ledger: Ledger) -> bool:
    """Whether the name is not established yet, so that the engine must list what other names left."""
    return ledger.named is None or ledger.named.name != stack.name


def former_name(stack: Stack, ledger: Ledger) -> str:
    """Return the previous name of this stack, identified by its files; empty if unknown."""
    named = ledger.named
    return named.name if named is not None and set(named.files) & set(stack.files) else ""


def record_rename(
    stack: Stack, desired: Desired, observed: ObservedState, ledger: Ledger, now: Clock
) -> Ledger:
    """Return the ledger after a complete observation with ``ObservedState.left`` (what other names left).

    A name is established if nothing else is left, if its own containers are known or run when it is first
    seen (an adopted stack), or once every group that is on has accepted the change. If they run and the
    stack had another name before, readers get a warning about what that name left.
    """
    named = Named(stack.name, stack.files)
    if ledger.named == named and ledger.renaming is None:
        return ledger
    known = ledger.renaming if ledger.renaming and ledger.renaming.name == stack.name else None
    if not is_new_name(stack, ledger) or not observed.left:
        return replace(ledger, named=named, renaming=None)
    if known is None:
        runs = any(c.state in ALIVE for c in observed.containers)
        if former_name(stack, ledger):
            return replace(ledger, renaming=Renaming(stack.name, now.wall, held=not runs))
        if runs or any(c.id in ledger.made for c in observed.containers):
            return replace(ledger, named=named, renaming=None)
        return replace(ledger, renaming=Renaming(stack.name, now.wall))
    on = [state for state in desired.groups.values() if state.on]
    if on and all(_covers(state.accepted_at, known, now) for state in on):
        return replace(ledger, named=named, renaming=None)
    return ledger


def holds_back(
    stack: Stack, observed: ObservedState, ledger: Ledger, accepted_at: float | None, now: Clock
) -> bool:
    """Whether creates and starts are held back for a group with this ``accepted_at`` (wall seconds)."""
    renaming = ledger.renaming
    if renaming is None or renaming.name != stack.name or not renaming.held or not observed.left:
        return False
    return not _covers(accepted_at, renaming, now)


def _covers(accepted_at: float | None, renaming: Renaming, now: Clock) -> bool:
    return accepted_at is not None and renaming.since - ACCEPT_TOLERANCE <= accepted_at <= now.wall


def describe(stack: Stack, left: Iterable[LeftBehind], groups: Iterable[str], *, held: bool = True) -> str:
    """Describe what is left behind and what to do; ``groups`` are those that can accept the change."""
    accept = f"`service-manager accept {' '.join(groups)}`"
    projects = list(left)
    parts = " and ".join(f"{_counted(one)} of the project {one.project}" for one in projects)
    names = [one.project for one in projects]
    remove = " and ".join(
        f"`docker compose -p {one.project} down`" if one.containers else f"the volumes of {one.project}"
        for one in projects
    )
    if not held:
        return (
            f"the project name is {stack.name} now, and its containers run; {parts}, created from the same "
            f"files, also exist. Remove them ({remove}; volumes stay unless they are removed as "
            f"well), or keep both: {accept}"
        )
    return (
        f"the project name {stack.name} is new, and would leave behind {parts}, created from the same files; "
        "nothing is created a second time, with empty volumes, until one of these is done. To keep the "
        f"existing project, write `name: {names[0]}` into stack.yaml; to start under the new name, run "
        f"{accept}, or first remove what is left ({remove}; volumes stay "
        "unless they are removed as well)"
    )


def _counted(one: LeftBehind) -> str:
    parts = [
        f"{len(names)} {word}{'' if len(names) == 1 else 's'} ({_listed(names)})"
        for word, names in (("container", one.containers), ("volume", one.volumes))
        if names
    ]
    return " and ".join(parts)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join((*names[:4], *([f"{len(names) - 4} more"] if len(names) > 4 else ())))


def warnings(
    stack: Stack, states: Mapping[str, bool], observed: ObservedState, ledger: Ledger
) -> tuple[str, ...]:
    """Return warnings while something is left behind; ``states``: whether each group is on."""
    if ledger.renaming is None or ledger.renaming.name != stack.name or not observed.left:
        return ()
    on = [name for name, is_on in states.items() if is_on]
    return (describe(stack, observed.left, on or states, held=ledger.renaming.held),)
