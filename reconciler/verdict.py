"""What a decision is made of: steps, waits, blocks, and the plan that holds one verdict per service.

Values only. ``plan`` makes them; progress, drift, reasons and the dry run are read off them, so what is
shown is what is done. A plan prints itself as stable text, and tests compare that text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from reconciler.drift import Drift, Kind
from reconciler.observed import Action, Command, Container


class Step(NamedTuple):
    """One action to take now. ``cause`` is a stable word, ``why`` says it to a person.

    ``weight`` is how many services wait in a row behind this one, to start or to stop: the heaviest go first.
    ``long``: it waits for commands of people's own (hooks), so it holds up no other and may be given up.
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

    def command(self) -> Command:
        """The order to the engine."""
        return Command(self.action, (self.service,), self.container, self.grace, self.value)


class Wait(NamedTuple):
    """Why nothing is done now, though it will be by itself. ``until`` is monotonic, None: an event."""

    reason: str
    message: str
    on: tuple[str, ...] = ()
    until: float | None = None


class Block(NamedTuple):
    """Why nothing is done until somebody changes something."""

    reason: str
    message: str


class Verdict(NamedTuple):
    """All there is to say of one service. ``settled``: as wanted, nothing to do and nothing to wait for.

    ``wants`` is the fingerprint of what is wanted of it, ``inputs`` of what an attempt is made with.
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

    def with_step(self, step: Step) -> Verdict:
        """The same, with a step: ``_replace`` in less time, for what is made for every service that moves."""
        return Verdict(*self[:9], step, *self[10:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The outcome of one decision. ``due`` is the monotonic second of the next wake-up by time.

    ``orphans`` have a verdict, of no group, only where they are to be pruned.

    ``complete`` is False when the look was not: such a plan has no verdicts and must change nothing.
    """

    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    orphans: tuple[Container, ...] = ()
    due: float | None = None
    complete: bool = True

    @property
    def steps(self) -> tuple[Step, ...]:
        """What to do now, the heaviest first; equal weights in start order."""
        found = [verdict.step for verdict in self.verdicts.values() if verdict.step]
        return tuple(sorted(found, key=lambda step: -step.weight))

    @property
    def drifts(self) -> tuple[Drift, ...]:
        """Every difference between desired and observed."""
        orphans = (
            Drift(c.service, Kind.ORPHAN, False, f"{c.name} belongs to no service of the files", c.id)
            for c in self.orphans
            if c.service not in self.verdicts
        )
        return (*(drift for verdict in self.verdicts.values() for drift in verdict.drifts), *orphans)

    def __str__(self) -> str:
        if not self.complete:
            return "nothing: the look at the engine was incomplete"
        lines = [line for verdict in self.verdicts.values() for line in _lines(verdict)]
        lines += [f"{c.service}: orphan {c.name}" for c in self.orphans if c.service not in self.verdicts]
        return "\n".join(lines) or "nothing to do"


def _lines(verdict: Verdict) -> Iterable[str]:
    if verdict.step:
        step = verdict.step
        value = f" {step.value}" if step.value else ""
        yield f"{verdict.service}: {step.action}{value} ({step.cause}: {step.why})"
    elif verdict.block:
        yield f"{verdict.service}: blocked ({verdict.block.reason}: {verdict.block.message})"
    elif verdict.wait:
        yield f"{verdict.service}: waits ({verdict.wait.reason}: {verdict.wait.message})"
