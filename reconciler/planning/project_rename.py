"""A changed project name: what it would leave behind, and whether it is carried out. Pure.

Compose tells projects apart by their names alone. Under another ``name:`` everything is made a second time,
with empty volumes, while the former containers run on or hold the ports. So a new name is held back as long
as something of another name carries the same Compose files, until that is gone or the change is accepted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from reconciler.model.desired import Desired
from reconciler.model.ledger import Clock, Ledger, Named, Renaming
from reconciler.model.observed import ALIVE, LeftBehind, ObservedState
from reconciler.model.stack import Stack

REASON = "project_renamed"
SEEN_LATER = 2.0
"""Seconds by which the change may be first seen after it was accepted, as for every change held back."""


def is_new(stack: Stack, ledger: Ledger) -> bool:
    """Whether nothing was done under this name so far: the engine has to be asked what else there is."""
    return ledger.named is None or ledger.named.name != stack.name


def former_name(stack: Stack, ledger: Ledger) -> str:
    """The name that this stack, known by its files, had before; empty: none, or not known."""
    named = ledger.named
    return named.name if named is not None and set(named.files) & set(stack.files) else ""


def renamed(stack: Stack, desired: Desired, observed: ObservedState, ledger: Ledger, now: Clock) -> Ledger:
    """The ledger after a complete look that holds what is left of other names (``ObservedState.left``).

    A name counts as established where nothing else is left, where its own containers are known or run when
    it is first seen (a stack that is adopted), or when every group that is on has accepted the change. Where
    they run and this stack had another name before, people are warned of what that left.
    """
    named = Named(stack.name, stack.files)
    if ledger.named == named and ledger.renaming is None:
        return ledger
    known = ledger.renaming if ledger.renaming and ledger.renaming.name == stack.name else None
    if not is_new(stack, ledger) or not observed.left:
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


def holds(
    stack: Stack, observed: ObservedState, ledger: Ledger, accepted_at: float | None, now: Clock
) -> bool:
    """Whether nothing may be made or started for a group whose ``accepted_at`` is this."""
    renaming = ledger.renaming
    if renaming is None or renaming.name != stack.name or not renaming.held or not observed.left:
        return False
    return not _covers(accepted_at, renaming, now)


def _covers(accepted_at: float | None, renaming: Renaming, now: Clock) -> bool:
    return accepted_at is not None and renaming.since - SEEN_LATER <= accepted_at <= now.wall


def told(stack: Stack, left: Iterable[LeftBehind], groups: Iterable[str], *, held: bool = True) -> str:
    """What is left behind and what to do about it, for people; ``groups`` are those that can accept it."""
    accept = f"`service-manager accept {' '.join(groups)}`"
    found = list(left)
    parts = " and ".join(f"{_counted(one)} of the project {one.project}" for one in found)
    names = [one.project for one in found]
    remove = " and ".join(
        f"`docker compose -p {one.project} down`" if one.containers else f"the volumes of {one.project}"
        for one in found
    )
    if not held:
        return (
            f"the project is called {stack.name} now, and its containers run; {parts}, made from the same "
            f"files, are there beside them. Remove them ({remove}; volumes stay unless they are removed as "
            f"well), or keep both: {accept}"
        )
    return (
        f"the project name {stack.name} is new, and would leave behind {parts}, made from the same files; "
        "nothing is created a second time, with empty volumes, before that is decided. To go on with what "
        f"there is, write `name: {names[0]}` into stack.yaml; to begin under the new name, run "
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
    """What readers are told while the change is held back; ``states``: whether each group is on."""
    if ledger.renaming is None or ledger.renaming.name != stack.name or not observed.left:
        return ()
    on = [name for name, is_on in states.items() if is_on]
    return (told(stack, observed.left, on or states, held=ledger.renaming.held),)
