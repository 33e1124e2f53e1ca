"""Which steps are sent, how many at once, in how many calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from reconciler.controller.executor import Concurrency, Executor
from reconciler.errors import BatchFailed, EngineError, OutcomeUnknown, StepFailed
from reconciler.model.observed import Action, Command
from reconciler.model.stack import Stack
from reconciler.planning.planner import Step
from tests.support.fixtures.builders import a_stack, service
from tests.support.fixtures.virtual_time import run_virtually

STACK = a_stack({"g": [service("a")]})


def step(name: str, action: Action = Action.START) -> Step:
    return Step(name, action, "cause", "why", f"id-{name}")


class Bed:
    """An executor on an engine that does what the test says, a second later."""

    def __init__(
        self,
        limits: Concurrency = Concurrency(),  # noqa: B008
        answer: Callable[[Command], None] = lambda _: None,
    ) -> None:
        self.calls: list[Command] = []
        self.back: list[tuple[str, EngineError | None]] = []
        self.answer = answer
        self.executor = Executor(
            self.act, limits=limits, done=lambda step, error: self.back.append((step.service, error))
        )

    async def act(self, command: Command, _: Stack) -> None:
        self.calls.append(command)
        await asyncio.sleep(1)
        self.answer(command)

    def choose(self, *steps: Step, began: float = 0.0) -> list[str]:
        return [s.service for s in self.executor.admit_steps(steps, began)]

    def send(self, *steps: Step) -> None:
        self.executor.send(self.executor.admit_steps(steps, asyncio.get_running_loop().time()), STACK)


def test_so_many_start_at_once_and_the_first_come_first() -> None:
    assert Bed(Concurrency(start=2)).choose(step("a"), step("b"), step("c")) == ["a", "b"]


def test_kinds_have_limits_of_their_own() -> None:
    steps = [step("a"), step("b"), step("c", Action.STOP), step("d", Action.PULL), step("e", Action.BUILD)]
    assert Bed(Concurrency(start=1)).choose(*steps) == ["a", "c", "d", "e"]


def test_what_flies_takes_up_room() -> None:
    async def story() -> None:
        bed = Bed(Concurrency(start=2))
        bed.send(step("a"))
        assert bed.choose(step("a"), step("b"), step("c")) == ["b"]
        assert bed.executor.in_flight == {"a": Action.START}
        assert bed.executor.busy("a")
        await asyncio.sleep(2)
        assert not bed.executor.busy("a")

    run_virtually(story())


def test_everything_missing_goes_into_one_call_and_one_such_call_flies_at_a_time() -> None:
    async def story() -> None:
        bed = Bed()
        bed.send(step("a", Action.CREATE), step("b", Action.RECREATE), step("c", Action.CREATE))
        await asyncio.sleep(0.5)
        assert [(c.action, c.services) for c in bed.calls] == [(Action.CREATE, ("a", "c"))]
        assert bed.choose(step("b", Action.RECREATE), step("d", Action.CREATE)) == []
        await asyncio.sleep(1)
        assert bed.choose(step("b", Action.RECREATE)) == ["b"]

    run_virtually(story())


def test_a_look_from_before_a_step_came_back_says_nothing_about_that_service() -> None:
    async def story() -> None:
        bed = Bed()
        before = asyncio.get_running_loop().time()
        bed.send(step("a"))
        await asyncio.sleep(1.5)
        assert bed.choose(step("a"), step("b"), began=before + 0.5) == ["b"]
        assert bed.choose(step("a"), began=before + 1.2) == ["a"]

    run_virtually(story())


def refuse(_: Command) -> None:
    raise StepFailed("no")


def test_errors_come_back_with_their_step() -> None:
    async def story() -> None:
        bed = Bed(answer=refuse)
        bed.send(step("a"))
        await asyncio.sleep(2)
        ((name, error),) = bed.back
        assert name == "a"
        assert isinstance(error, StepFailed)

    run_virtually(story())


def test_a_batch_that_fails_in_part_is_told_part_by_part() -> None:
    def answer(_: Command) -> None:
        raise BatchFailed({"b": StepFailed("no")})

    async def story() -> None:
        bed = Bed(answer=answer)
        bed.send(step("a", Action.CREATE), step("b", Action.CREATE))
        await asyncio.sleep(2)
        assert [(name, str(error)) for name, error in bed.back] == [("a", "None"), ("b", "no")]

    run_virtually(story())


def test_a_batch_whose_outcome_is_unknown_is_so_for_each() -> None:
    def answer(_: Command) -> None:
        raise OutcomeUnknown("silence")

    async def story() -> None:
        bed = Bed(answer=answer)
        bed.send(step("a", Action.CREATE), step("b", Action.CREATE))
        await asyncio.sleep(2)
        assert all(isinstance(error, OutcomeUnknown) for _, error in bed.back)

    run_virtually(story())


def test_a_bug_in_an_adapter_is_a_failed_step_and_not_the_end() -> None:
    def answer(_: Command) -> None:
        raise ZeroDivisionError

    async def story() -> None:
        bed = Bed(answer=answer)
        bed.send(step("a"))
        await asyncio.sleep(2)
        ((_, error),) = bed.back
        assert error is not None
        assert error.reason == "internal_error"
        assert bed.executor.in_flight == {}

    run_virtually(story())


def test_draining_waits_for_what_flies_and_then_lets_go() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        bed = Bed()
        bed.send(step("a"))
        began = loop.time()
        await bed.executor.drain(3)
        assert loop.time() - began == 1
        assert bed.back == [("a", None)]
        bed.send(step("b"))
        await bed.executor.drain(0.25)
        assert loop.time() - began == 1.25
        assert [name for name, _ in bed.back] == ["a"]
        await bed.executor.drain(1)

    run_virtually(story())
