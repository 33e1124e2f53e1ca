"""What another ``groups.yaml`` would lead to: every step, and what would wait, without writing anything.

For whoever shows a person what a change does before it is made. Rests on the last look, asks no engine.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from reconciler.desired_state.assemble import group_states, parse_files
from reconciler.desired_state.schema import GROUPS, STACK
from reconciler.errors import InvalidDesiredState, Mistake
from reconciler.model.desired import Desired, GroupState
from reconciler.model.ledger import Clock, Ledger
from reconciler.model.observed import ObservedState
from reconciler.model.stack import Stack
from reconciler.planning.drift import Drift
from reconciler.planning.dry_run import dry_run
from reconciler.planning.planner import ServicePlan, Step, plan

Sources = Callable[[int], Mapping[str, bytes]]
"""The files of a generation, by name; ``Generations.sources``."""


class CurrentState(Protocol):
    """Where things stand; ``Loop`` is one."""

    @property
    def target(self) -> tuple[Stack, Desired] | None:
        """What is converged to; None before the first valid desired state."""

    @property
    def observed(self) -> ObservedState:
        """The last look."""

    @property
    def ledger(self) -> Ledger:
        """What is remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unresolved:
    """What stays undone after all steps. ``phase`` is blocked, suspended or waiting."""

    service: str
    phase: str
    reason: str
    message: str
    waits_for: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewResult:
    """Every step in order if each succeeds, what is left undone then, and what differs now."""

    steps: tuple[Step, ...] = ()
    drifts: tuple[Drift, ...] = ()
    left: tuple[Unresolved, ...] = ()
    complete: bool = True

    def __str__(self) -> str:
        if not self.complete:
            return "nothing: the observation of the engine was incomplete"
        lines = [f"{s.service}: {s.action} ({s.cause}: {s.why})" for s in self.steps]
        lines += [f"{rest.service}: {rest.phase} ({rest.reason}: {rest.message})" for rest in self.left]
        return "\n".join(lines) or "nothing to do"


class Previewer:
    """Looks ahead from where ``loop`` stands. ``wall`` gives the time of day in seconds since the epoch."""

    def __init__(self, loop: CurrentState, sources: Sources, *, wall: Callable[[], float]) -> None:
        self._loop = loop
        self._sources = sources
        self._wall = wall
        # A large stack takes a moment of the core; one after the other is enough.
        self._turn = asyncio.Lock()

    async def __call__(self, state: Mapping[str, Any]) -> PreviewResult:
        """The outlook for a ``groups.yaml`` given as plain values.

        Raises:
            InvalidDesiredState: the loop would not accept it, or has accepted nothing so far.
        """
        target = self._loop.target
        if target is None:
            raise InvalidDesiredState((Mistake("", 0, 0, "there is no valid desired state to compare with"),))
        now = Clock(self._wall(), asyncio.get_running_loop().time())
        async with self._turn:
            return await asyncio.to_thread(self._made, *target, state, now)

    def _made(self, stack: Stack, held: Desired, state: Mapping[str, Any], now: Clock) -> PreviewResult:
        wanted = replace(held, groups=_groups(self._sources(held.generation)[STACK], state))
        observed, ledger = self._loop.observed, self._loop.ledger
        first = plan(stack, wanted, observed, ledger, now)
        outlook = dry_run(stack, wanted, observed, ledger, now)
        left = tuple(rest for verdict in outlook.rest.verdicts.values() for rest in _left(verdict))
        return PreviewResult(steps=outlook.steps, drifts=first.drifts, left=left, complete=first.complete)


def _groups(stack: bytes, state: Mapping[str, Any]) -> Mapping[str, GroupState]:
    try:
        # JSON is YAML too, and the very rules of the file are to hold.
        parsed = parse_files(stack, json.dumps(state, ensure_ascii=False).encode())
    except UnicodeEncodeError:
        raise InvalidDesiredState((Mistake(GROUPS, 0, 0, "holds half of a surrogate pair"),)) from None
    if parsed.mistakes or parsed.groups_file is None:
        # Lines and columns are those of a text that nobody has seen.
        told = dict.fromkeys(mistake._replace(line=0, column=0) for mistake in parsed.mistakes)
        raise InvalidDesiredState(tuple(told))
    return group_states(parsed.groups_file)


def _left(verdict: ServicePlan) -> Iterator[Unresolved]:
    block, wait = verdict.block, verdict.wait
    if block:
        yield Unresolved(service=verdict.service, phase="blocked", reason=block.reason, message=block.message)
    elif wait:
        phase = "suspended" if wait.reason == "suspended" else "waiting"
        yield Unresolved(
            service=verdict.service, phase=phase, reason=wait.reason, message=wait.message, waits_for=wait.on
        )
