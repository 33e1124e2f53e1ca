"""Values of a plan: steps, waits, blocks, and one ``ServicePlan`` per service.

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


def orphan_remedy(container: str, service: str) -> str:
    """Return what to do about an orphan that holds what a service needs, as part of a sentence."""
    return (
        f"{container} belongs to {service}, which is no longer in the files: "
        f"set `prune: true` in stack.yaml, or remove it (`docker rm -f {container}`)"
    )


REPLICA_FIRST = "replica_first"
"""The wait reason while another replica of the same service is recreated first."""


class Block(NamedTuple):
    """Why there is no step until a person changes something.

    ``remedy`` is what the sender of a rejected request can do instead; only gates set it.
    """

    reason: str
    message: str
    remedy: str = ""


class ServicePlan(NamedTuple):
    """The plan of one service. ``settled``: it matches desired state, with no step and no wait.

    ``wanted``: its group is on. ``ready`` and ``done`` (a completed one-shot) are as after ``step``.
    ``wants`` is the fingerprint of desired state, ``inputs`` that of an attempt. ``comparison`` compares
    ``container``, if the group is on. ``fetches`` is the image that this service fetches, also for others.

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


class Unresolved(NamedTuple):
    """A service that no step brings to its desired state; ``phase`` is blocked, suspended or waiting."""

    service: str
    phase: str
    reason: str
    message: str
    waits_for: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The plan of a stack. ``due`` is the monotonic second of the next timed wake-up.

    ``orphans`` have an entry in ``services``, without a group, only with ``prune``.

    ``complete`` is False after an incomplete observation: such a plan has no services and changes nothing.

    ``stack`` is the stack by units (``replicas``); None if each service is one unit.
    """

    services: Mapping[str, ServicePlan] = field(default_factory=dict)
    orphans: tuple[Container, ...] = ()
    due: float | None = None
    complete: bool = True
    stack: Stack | None = None

    @property
    def leaves(self) -> Iterable[ServicePlan]:
        """The plans of single containers: one per service, or one per unit."""
        for one in self.services.values():
            if one.units:
                yield from one.units
            else:
                yield one

    def unit(self, key: str) -> ServicePlan | None:
        """Return the plan of a unit (``Step.key``), which may be a service; None if unknown."""
        plan = self.services.get(service_of(key))
        if plan is None or not plan.units:
            return plan
        return next((unit for unit in plan.units if unit.service == key), plan)

    @property
    def unresolved(self) -> tuple[Unresolved, ...]:
        """The services that are held back. After a dry run: what is left when all steps are done."""
        holds = ((one, one.block or one.wait) for one in self.services.values())
        return tuple(
            Unresolved(
                one.service,
                one.held_phase,
                hold.reason,
                hold.message,
                hold.on if isinstance(hold, Wait) else (),
            )
            for one, hold in holds
            if hold is not None
        )

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps to take now, highest weight first; equal weights in start order."""
        steps = [one.step for one in self.leaves if one.step]
        return tuple(sorted(steps, key=lambda step: -step.weight))

    @property
    def drifts(self) -> tuple[Drift, ...]:
        """Every difference between desired and observed."""
        orphans = (
            Drift(c.service, DriftKind.ORPHAN, False, f"{c.name} belongs to no service in the files", c.id)
            for c in self.orphans
            if c.service not in self.services
        )
        return (*(drift for one in self.services.values() for drift in one.drifts), *orphans)

    def __str__(self) -> str:
        if not self.complete:
            return "nothing: the observation of the engine was incomplete"
        lines = [line for one in self.services.values() for line in _all_lines(one)]
        lines += [f"{c.service}: orphan {c.name}" for c in self.orphans if c.service not in self.services]
        return "\n".join(lines) or "nothing to do"


def _all_lines(one: ServicePlan) -> Iterable[str]:
    for unit in one.units or (one,):
        yield from _lines(unit)


def _lines(one: ServicePlan) -> Iterable[str]:
    if one.step:
        step = one.step
        value = f" {step.value}" if step.value else ""
        yield f"{one.service}: {step.action}{value} ({step.cause}: {step.why})"
    elif one.block:
        yield f"{one.service}: blocked ({one.block.reason}: {one.block.message})"
    elif one.wait:
        yield f"{one.service}: waits ({one.wait.reason}: {one.wait.message})"
