"""Values of a plan: steps, waits, blocks, and one verdict (``ServicePlan``) per service.

``plan`` returns them; progress, drift, reasons and the dry run derive from them, so every reader shows what
the loop does. A plan prints as stable text, which tests compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from reconciler.model.fingerprint import DesiredFingerprint
from reconciler.model.observed import Action, Command, Container
from reconciler.model.stack import Stack, service_of
from reconciler.planning.comparison import Comparison
from reconciler.planning.drift import Drift, DriftKind


class Step(NamedTuple):
    """One action to take now. ``cause`` is a stable word, ``why`` a sentence for people.

    ``weight`` is the length of the chain of services that wait for this one; higher goes first.
    ``long``: the step waits for user commands (hooks), so it does not delay others and may be abandoned.
    ``unit`` names the replica, unless the service has exactly one.
    """

    service: str
    action: Action
    cause: str
    why: str
    container: str = ""
    value: str = ""
    grace: float = 10.0
    weight: int = 0
    long: bool = False
    unit: str = ""

    @property
    def key(self) -> str:
        """The unit of the step: the service itself, or one replica (``web#2``)."""
        return self.unit or self.service

    def command(self) -> Command:
        """Return the engine command."""
        return Command(self.action, (self.service,), self.container, self.grace, self.value)


class Wait(NamedTuple):
    """Why there is no step yet. ``until`` is the monotonic end; None: an event ends the wait."""

    reason: str
    message: str
    on: tuple[str, ...] = ()
    until: float | None = None


REPLICA_FIRST = "replica_first"
"""The wait reason while another replica of the same service is recreated first."""


class Block(NamedTuple):
    """Why there is no step until a person changes something."""

    reason: str
    message: str


class ServicePlan(NamedTuple):
    """The plan of one service. ``settled``: it matches desired state, with no step and no wait.

    ``wants`` is the fingerprint of desired state, ``inputs`` that of an attempt. ``comparison`` is that of
    ``container``, if the group is on. ``fetches`` is the image that this service fetches for all its users.

    ``replicas`` is the number in the Compose file. If it is not one, or more containers exist, ``units`` has
    the plan of each, with the unit as its service; the other fields summarise them.
    """

    service: str
    group: str
    wanted: bool
    ready: bool
    settled: bool
    container: Container | None
    wants: DesiredFingerprint
    comparison: Comparison | None = None
    inputs: str = ""
    done: bool = False
    step: Step | None = None
    wait: Wait | None = None
    block: Block | None = None
    drifts: tuple[Drift, ...] = ()
    units: tuple[ServicePlan, ...] = ()
    replicas: int = 1
    fetches: str = ""

    @property
    def held_phase(self) -> str:
        """Blocked, suspended or waiting if something holds the service; empty otherwise."""
        if self.block:
            return "blocked"
        if self.wait:
            return "suspended" if self.wait.reason == "suspended" else "waiting"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The plan of a stack. ``due`` is the monotonic second of the next timed wake-up.

    ``orphans`` have a verdict, without a group, only with ``prune``.

    ``complete`` is False after an incomplete observation: such a plan has no verdicts and changes nothing.

    ``stack`` is the stack by units (``replicas``); None if each service is one unit.
    """

    verdicts: Mapping[str, ServicePlan] = field(default_factory=dict)
    orphans: tuple[Container, ...] = ()
    due: float | None = None
    complete: bool = True
    stack: Stack | None = None

    @property
    def leaves(self) -> Iterable[ServicePlan]:
        """The plans of single containers: one per service, or one per unit."""
        for verdict in self.verdicts.values():
            if verdict.units:
                yield from verdict.units
            else:
                yield verdict

    def verdict(self, key: str) -> ServicePlan | None:
        """Return the plan of a unit (``Step.key``), which may be a service; None if unknown."""
        found = self.verdicts.get(service_of(key))
        if found is None or not found.units:
            return found
        return next((unit for unit in found.units if unit.service == key), found)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps to take now, highest weight first; equal weights in start order."""
        found = [verdict.step for verdict in self.leaves if verdict.step]
        return tuple(sorted(found, key=lambda step: -step.weight))

    @property
    def drifts(self) -> tuple[Drift, ...]:
        """Every difference between desired and observed."""
        orphans = (
            Drift(c.service, DriftKind.ORPHAN, False, f"{c.name} belongs to no service in the files", c.id)
            for c in self.orphans
            if c.service not in self.verdicts
        )
        return (*(drift for verdict in self.verdicts.values() for drift in verdict.drifts), *orphans)

    def __str__(self) -> str:
        if not self.complete:
            return "nothing: the observation of the engine was incomplete"
        lines = [line for verdict in self.verdicts.values() for line in _all_lines(verdict)]
        lines += [f"{c.service}: orphan {c.name}" for c in self.orphans if c.service not in self.verdicts]
        return "\n".join(lines) or "nothing to do"


def _all_lines(verdict: ServicePlan) -> Iterable[str]:
    for one in verdict.units or (verdict,):
        yield from _lines(one)


def _lines(verdict: ServicePlan) -> Iterable[str]:
    if verdict.step:
        step = verdict.step
        value = f" {step.value}" if step.value else ""
        yield f"{verdict.service}: {step.action}{value} ({step.cause}: {step.why})"
    elif verdict.block:
        yield f"{verdict.service}: blocked ({verdict.block.reason}: {verdict.block.message})"
    elif verdict.wait:
        yield f"{verdict.service}: waits ({verdict.wait.reason}: {verdict.wait.message})"
