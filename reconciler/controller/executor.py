"""Carries out steps: tracks those in flight, limits concurrency, reports results. Decides nothing else.

Only the loop calls it. Starts are bound by CPU, so only a few run at once, the longest chain first (the
plan sorts them); missing containers are created by one Compose call; stops mostly wait, so many may run
at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from reconciler.errors import BatchFailed, EngineError, OutcomeUnknown, StepFailed
from reconciler.model.observed import Action, Command
from reconciler.model.stack import Stack
from reconciler.planning.planner import Plan, Step

log = logging.getLogger(__name__)

BATCHED = frozenset({Action.CREATE, Action.RECREATE})


class Concurrency(NamedTuple):
    """How many steps of each kind may be in flight at once."""

    start: int = 3
    compose: int = 1
    build: int = 1
    pull: int = 3
    other: int = 32


_KIND = {
    Action.START: "start",
    Action.CREATE: "compose",
    Action.RECREATE: "compose",
    Action.BUILD: "build",
    Action.PULL: "pull",
}


_OVERTAKES = frozenset({Action.STOP, Action.RECREATE, Action.REMOVE})
"""Actions that cancel running hooks instead of waiting for them."""


def _is_overtaken(step: Step, plan: Plan) -> bool:
    """Return whether the plan requires something else of the service than the step in flight."""
    service_plan = plan.unit(step.key)
    if service_plan is None or not service_plan.wanted:
        return True
    return service_plan.step is not None and service_plan.step.action in _OVERTAKES


def _kind(step: Step) -> str:
    return "other" if step.long else _KIND.get(step.action, "other")


class Executor:
    """Sends steps and keeps those in flight, by unit (``Step.key``).

    ``act`` carries out a command and returns a warning or ''. ``done`` is called in the event loop when a
    step returns, with its error or None. A warning is appended to the ``why`` of the step.
    """

    def __init__(
        self,
        act: Callable[[Command, Stack], Awaitable[str]],
        *,
        limits: Concurrency,
        done: Callable[[Step, EngineError | None], None],
    ) -> None:
        self._act = act
        self._limits = limits._asdict()
        self._done = done
        self._in_flight: dict[str, Step] = {}
        self._returned_at: dict[str, float] = {}
        # By service: when the last of its steps returned, and when the last batched one did.
        self._last_return: dict[str, float] = {}
        self._last_batch_return: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._long: dict[str, asyncio.Task[None]] = {}

    @property
    def in_flight(self) -> Mapping[str, Action]:
        """The actions in flight, by unit, and by service where a unit is a replica."""
        services = {step.service: step.action for step in self._in_flight.values()}
        return services | {key: step.action for key, step in self._in_flight.items()}

    def busy(self, service: str) -> bool:
        """Return whether a step of the service is in flight."""
        return any(step.service == service for step in self._in_flight.values())

    def admit_steps(self, steps: Sequence[Step], began: float) -> tuple[Step, ...]:
        """Return the steps that may be sent now.

        ``began`` is the monotonic second at which the observation behind these steps began. A unit is left
        out while a step of it is in flight, and if its last step returned after ``began``: the observation
        may lack the effect of that step. A Compose call handles all replicas of a service, so no other step
        for them runs at the same time.
        """
        free_slots = dict(self._limits)
        batches: set[Action] = set()
        for in_flight in self._in_flight.values():
            kind = _kind(in_flight)
            # A batch is one call for any number of services.
            if kind != "compose":
                free_slots[kind] -= 1
            elif not batches:
                free_slots[kind] -= 1
                batches.add(in_flight.action)
        admitted: list[Step] = []
        batch: Action | None = None
        next_call: set[str] = set()
        unbatched = {step.service for step in self._in_flight.values() if step.action not in BATCHED}
        running_call = {step.service for step in self._in_flight.values() if step.action in BATCHED}
        for step in steps:
            if step.key in self._in_flight or self._returned_at.get(step.key, -1.0) > began:
                continue
            if self._waits_for_replicas(step, began, unbatched, next_call, running_call):
                continue
            kind = _kind(step)
            if step.action in BATCHED and batch is step.action:
                admitted.append(step)
            elif free_slots[kind] > 0:
                free_slots[kind] -= 1
                admitted.append(step)
                if step.action in BATCHED:
                    batch = step.action
            else:
                continue
            (next_call if step.action in BATCHED else unbatched).add(step.service)
        return tuple(admitted)

    def _waits_for_replicas(
        self, step: Step, began: float, unbatched: set[str], next_call: set[str], running_call: set[str]
    ) -> bool:
        """Return whether a step for one replica has to wait for steps for other replicas of its service.

        The sets are services: with unbatched steps, in the next Compose call, in the running Compose call.
        """
        name = step.service
        if step.action in BATCHED:
            return name in unbatched or name in running_call or self._last_return.get(name, -1.0) > began
        return name in next_call or name in running_call or self._last_batch_return.get(name, -1.0) > began

    def send(self, steps: Sequence[Step], stack: Stack) -> None:
        """Send the admitted steps: batched ones in one command, the others in one each."""
        batch = tuple(step for step in steps if step.action in BATCHED)
        for group in ([batch] if batch else []) + [(s,) for s in steps if s.action not in BATCHED]:
            for step in group:
                self._in_flight[step.key] = step
            task = asyncio.create_task(self._run(group, stack), name=f"step {group[0].action}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            if group[0].long:
                self._long[group[0].key] = task

    def cancel_overtaken(self, plan: Plan) -> None:
        """Cancel long steps (``Step.long``) in flight whose service the current plan treats differently."""
        for key, task in list(self._long.items()):
            if _is_overtaken(self._in_flight[key], plan):
                del self._long[key]
                task.cancel()

    async def _run(self, steps: Sequence[Step], stack: Stack) -> None:
        first = steps[0]
        services = tuple(dict.fromkeys(step.service for step in steps))
        command = first.command()._replace(services=services)
        if first.action is Action.RECREATE:
            # Recreate only these replicas of the service.
            command = command._replace(replaces=tuple(step.container for step in steps))
        error: EngineError | None = None
        warning = ""
        try:
            warning = await self._act(command, stack) or ""
        except EngineError as failure:
            error = failure
        except asyncio.CancelledError:
            if not first.long or first.key in self._long:
                raise
            error = OutcomeUnknown("cancelled, because the plan now requires something else", "given_up")
        except Exception as failure:
            # An adapter's bug must not end the loop.
            log.exception("a step failed unexpectedly")
            error = StepFailed(f"internal error: {type(failure).__name__}", "internal_error")
        returned_at = asyncio.get_running_loop().time()
        failed = error.failed if isinstance(error, BatchFailed) else None
        for step in steps:
            del self._in_flight[step.key]
            self._long.pop(step.key, None)
            self._returned_at[step.key] = self._last_return[step.service] = returned_at
            if step.action in BATCHED:
                self._last_batch_return[step.service] = returned_at
            if warning:
                log.warning(
                    "step done with a warning",
                    extra={"service": step.service, "action": str(step.action), "problem": warning},
                )
                step = step._replace(why=f"{step.why}; {warning}")  # noqa: PLW2901
            self._done(step, failed.get(step.service) if failed is not None else error)

    async def drain(self, seconds: float) -> None:
        """Wait at most ``seconds`` for the steps in flight, then cancel them.

        The engine continues its work; the next daemon observes the result.
        """
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
