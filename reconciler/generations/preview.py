"""Previews another ``groups.yaml``: every step, and what would still wait, without writing anything.

Shows what a change would do before it is made. Uses the last observation and calls no engine.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from reconciler.desired_state.assemble import group_states, parse_files
from reconciler.desired_state.schema import GROUPS, STACK
from reconciler.errors import InvalidDesiredState, Mistake
from reconciler.generations.preview_results import PreviewResult
from reconciler.model.accepted_state import AcceptedState
from reconciler.model.desired import Desired, GroupState
from reconciler.model.ledger import Clock, Ledger
from reconciler.model.observed import ObservedState
from reconciler.planning.dry_run import dry_run
from reconciler.planning.planner import plan

Sources = Callable[[int], Mapping[str, bytes]]
"""Returns the files of a generation by name; ``Generations.sources``."""


class CurrentState(Protocol):
    """Current desired and observed state; ``Loop`` implements it."""

    @property
    def target(self) -> AcceptedState | None:
        """Desired state; None before the first valid one."""

    @property
    def observed(self) -> ObservedState:
        """State of the containers at the last observation."""

    @property
    def ledger(self) -> Ledger:
        """The loop's memory of attempts, failures and held changes."""


class Previewer:
    """Plans ahead from the current state of ``loop``. ``wall`` returns wall time in seconds."""

    def __init__(self, loop: CurrentState, sources: Sources, *, wall: Callable[[], float]) -> None:
        self._loop = loop
        self._sources = sources
        self._wall = wall
        # A large stack keeps the core busy for a moment, so previews run one at a time.
        self._turn = asyncio.Lock()

    async def __call__(self, state: Mapping[str, Any]) -> PreviewResult:
        """Preview a ``groups.yaml``, given as plain values; groups that it does not name stay as they are.

        Raises:
            InvalidDesiredState: the loop would not accept it, or has no valid state to compare with.
        """
        target = self._loop.target
        if target is None:
            raise InvalidDesiredState((Mistake("", 0, 0, "there is no valid desired state to compare with"),))
        now = Clock(self._wall(), asyncio.get_running_loop().time())
        async with self._turn:
            return await asyncio.to_thread(self._preview, target, state, now)

    def _preview(self, current: AcceptedState, state: Mapping[str, Any], now: Clock) -> PreviewResult:
        stack, desired = current.stack, current.desired
        wanted = replace(desired, groups=_groups(self._sources(desired.generation)[STACK], state, desired))
        observed, ledger = self._loop.observed, self._loop.ledger
        first = plan(stack, wanted, observed, ledger, now)
        outlook = dry_run(stack, wanted, observed, ledger, now)
        return PreviewResult(
            steps=outlook.steps, drifts=first.drifts, left=outlook.rest.unresolved, complete=first.complete
        )


def _groups(stack: bytes, state: Mapping[str, Any], current: Desired) -> Mapping[str, GroupState]:
    named = state.get("groups")
    if isinstance(named, Mapping):
        # Groups that are not named are filled in only for the check; their state has fields that JSON lacks.
        others = {name: _entry(one) for name, one in current.groups.items() if name not in named}
        state = {**state, "groups": {**others, **named}}
    try:
        # JSON is also YAML, so the same parser validates it by the same rules.
        parsed = parse_files(stack, json.dumps(state, ensure_ascii=False).encode())
    except UnicodeEncodeError:
        raise InvalidDesiredState((Mistake(GROUPS, 0, 0, "holds half of a surrogate pair"),)) from None
    if parsed.mistakes or parsed.groups_file is None:
        # Lines and columns refer to generated text that the caller has never seen.
        mistakes = dict.fromkeys(mistake._replace(line=0, column=0) for mistake in parsed.mistakes)
        raise InvalidDesiredState(tuple(mistakes))
    states = group_states(parsed.groups_file)
    return {**current.groups, **{name: states[name] for name in named or ()}}


def _entry(state: GroupState) -> dict[str, Any]:
    return {"state": "on" if state.on else "off", "force": state.force}
