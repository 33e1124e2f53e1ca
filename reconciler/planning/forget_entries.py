"""Drop ledger entries of what is gone: removed units and containers, services that are off. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from reconciler.model.ledger import Ledger
from reconciler.model.ledger_updates import omit
from reconciler.model.observed import ALIVE, ObservedState, State
from reconciler.model.stack import UNIT, Stack, service_of
from reconciler.planning.replicas import Units


def forget_removed_units(ledger: Ledger, units: Units) -> Ledger:
    """Return the ledger without entries of removed units."""
    known = {unit for names in units.of.values() for unit in names}
    for name, containers in units.surplus.items():
        known |= {f"{name}{UNIT}{c.number}" for c in containers}
    fields = ("making", "live", "failures", "restarted", "followed", "tied", "ready", "exits")
    changed: dict[str, Any] = {}
    for field in (*fields, "changes", "unhealthy", "healed", "restarts", "paused", "completed"):
        entries = getattr(ledger, field)
        lost = [key for key in entries if UNIT in key and key not in known]
        if lost:
            changed[field] = omit(entries, lost)
    return replace(ledger, **changed) if changed else ledger


def forget_removed_services(stack: Stack, ledger: Ledger) -> Ledger:
    """Forget the success of one-shots that are no longer in the files."""
    lost = [name for name in ledger.completed if service_of(name) not in stack.services]
    return replace(ledger, completed=omit(ledger.completed, lost)) if lost else ledger


def forget_removed_containers(ledger: Ledger, observed: ObservedState) -> Ledger:
    """Drop entries of removed containers and of their earlier runs."""
    started = {container.id: container.started_at for container in observed.containers}
    unread = {container.id for container in observed.containers if container.state is State.UNKNOWN}
    lost = [id_ for id_ in ledger.made if id_ not in started]
    if lost:
        ledger = replace(ledger, made=omit(ledger.made, lost))
    over = [n for n, failure in ledger.failures.items() if failure.inputs == "gone"]
    gone = set(over) - {container.service for container in observed.containers}
    if gone:
        ledger = replace(ledger, failures=omit(ledger.failures, gone))
    hooks = {id_: failed for id_, failed in ledger.hooks.items() if id_ in started}
    if hooks != ledger.hooks:
        ledger = replace(ledger, hooks=hooks)
    cut = {id_: at for id_, at in ledger.cut.items() if id_ in unread or started.get(id_) == at}
    if cut != ledger.cut:
        ledger = replace(ledger, cut=cut)
    if ledger.at_work:
        alive = {c.id: c.started_at for c in observed.containers if c.state in ALIVE}
        at_work = {
            id_: alive.get(id_, at) for id_, at in ledger.at_work.items() if id_ in alive or id_ in unread
        }
        if at_work != ledger.at_work:
            ledger = replace(ledger, at_work=at_work)
    halted = {id_: at for id_, at in ledger.halted.items() if id_ in unread or started.get(id_) == at}
    if halted != ledger.halted:
        ledger = replace(ledger, halted=halted)
    past = [id_ for id_, at in ledger.stopped.items() if id_ not in unread and started.get(id_) != at]
    return replace(ledger, stopped=omit(ledger.stopped, past)) if past else ledger


def forget_stopped(ledger: Ledger, name: str, *, down: bool) -> Ledger:
    """Reset a service that is off, so that its next start has no earlier failures.

    ``down``: none of its containers runs any more.
    """
    failure = ledger.failures.get(name)
    if failure is not None and (down or failure.inputs != "off"):
        ledger = replace(ledger, failures=omit(ledger.failures, [name]))
    if name in ledger.live or name in ledger.ready:
        ledger = replace(ledger, live=omit(ledger.live, [name]), ready=omit(ledger.ready, [name]))
    if name in ledger.unhealthy or name in ledger.healed or name in ledger.restarts:
        ledger = replace(
            ledger,
            unhealthy=omit(ledger.unhealthy, [name]),
            healed=omit(ledger.healed, [name]),
            restarts=omit(ledger.restarts, [name]),
        )
    return ledger
