"""What a decision is made of: steps, waits, blocks, and the plan that holds one verdict per service.

Values only. ``plan`` makes them; progress, drift, reasons and the dry run are read off them, so what is
shown is what is done. A plan prints itself as stable text, and tests compare that text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from reconciler.model.observed import Action, Command, Container
from reconciler.model.stack import Stack, service_of
from reconciler.planning.drift import Drift, DriftKind


class Step(NamedTuple):
    """One action to take now. ``cause`` is a stable word, ``why`` says it to a person.

    ``weight`` is how many services wait in a row behind this one, to start or to stop: the heaviest go first.
    ``long``: it waits for commands of people's own (hooks), so it holds up no other and may be given up.
    ``unit`` names the replica, where the service has not exactly one.
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
        """The unit that the step is for: the service itself, or one replica of it (``web#2``)."""
        return self.unit or self.service

    def command(self) -> Command:
        """The order to the engine."""
        return Command(self.action, (self.service,), self.container, self.grace, self.value)


class Wait(NamedTuple):
    """Why nothing is done now, though it will be by itself. ``until`` is monotonic, None: an event."""

    reason: str
    message: str
    on: tuple[str, ...] = ()
    until: float | None = None


REPLICA_FIRST = "replica_first"
"""The reason of a wait for another replica of the same service to be remade."""


class Block(NamedTuple):
    """Why nothing is done until somebody changes something."""

    reason: str
    message: str


class ServicePlan(NamedTuple):
    """All there is to say of one service. ``settled``: as wanted, nothing to do and nothing to wait for.

    ``wants`` is the fingerprint of what is wanted of it, ``inputs`` of what an attempt is made with.

    ``replicas`` is how many containers the file asks for. Where that is not one, or more are there, ``units``
    has the verdict on each, with the unit as its service; what is beside them sums them up.
    """

    service: str
    group: str
    wanted: bool
    ready: bool
    settled: bool
    container: Container | None
    wants: str
    inputs: str = ""
    done: bool = False
    step: Step | None = None
    wait: Wait | None = None
    block: Block | None = None
    drifts: tuple[Drift, ...] = ()
    units: tuple[ServicePlan, ...] = ()
    replicas: int = 1

    def with_step(self, step: Step) -> ServicePlan:
        """The same, with a step: ``_replace`` in less time, for what is made for every service that moves."""
        return ServicePlan(*self[:9], step, *self[10:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The outcome of one decision. ``due`` is the monotonic second of the next wake-up by time.

    ``orphans`` have a verdict, of no group, only where they are to be pruned.

    ``complete`` is False when the look was not: such a plan has no verdicts and must change nothing.

    ``stack`` is the one that was decided on, by units (``replicas``); None where each service is its own.
    """

    verdicts: Mapping[str, ServicePlan] = field(default_factory=dict)
    orphans: tuple[Container, ...] = ()
    due: float | None = None
    complete: bool = True
    stack: Stack | None = None

    @property
    def leaves(self) -> Iterable[ServicePlan]:
        """The verdicts on single containers: one per service, or one per unit."""
        for verdict in self.verdicts.values():
            if verdict.units:
                yield from verdict.units
            else:
                yield verdict

    def verdict(self, key: str) -> ServicePlan | None:
        """The verdict on a unit (``Step.key``), which may be a service; None: there is none."""
        found = self.verdicts.get(service_of(key))
        if found is None or not found.units:
            return found
        return next((unit for unit in found.units if unit.service == key), found)

    @property
    def steps(self) -> tuple[Step, ...]:
        """What to do now, the heaviest first; equal weights in start order."""
        found = [verdict.step for verdict in self.leaves if verdict.step]
        return tuple(sorted(found, key=lambda step: -step.weight))

    @property
    def drifts(self) -> tuple[Drift, ...]:
        """Every difference between desired and observed."""
        orphans = (
            Drift(c.service, DriftKind.ORPHAN, False, f"{c.name} belongs to no service of the files", c.id)
            for c in self.orphans
            if c.service not in self.verdicts
        )
        return (*(drift for verdict in self.verdicts.values() for drift in verdict.drifts), *orphans)

    def __str__(self) -> str:
        if not self.complete:
            return "nothing: the look at the engine was incomplete"
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
