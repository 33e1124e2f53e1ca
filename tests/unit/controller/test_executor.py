"""Which steps the executor sends, how many at once, in how many calls."""

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


class ExecutorHarness:
    """An executor on an engine that calls ``answer`` a second after each command."""

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


def test_starts_are_limited_and_in_order() -> None:
    assert ExecutorHarness(Concurrency(start=2)).choose(step("a"), step("b"), step("c")) == ["a", "b"]


def test_kinds_of_actions_have_separate_limits() -> None:
    steps = [step("a"), step("b"), step("c", Action.STOP), step("d", Action.PULL), step("e", Action.BUILD)]
    assert ExecutorHarness(Concurrency(start=1)).choose(*steps) == ["a", "c", "d", "e"]


def test_steps_in_flight_count_towards_the_limit() -> None:
    async def scenario() -> None:
        harness = ExecutorHarness(Concurrency(start=2))
        harness.send(step("a"))
        assert harness.choose(step("a"), step("b"), step("c")) == ["b"]
        assert harness.executor.in_flight == {"a": Action.START}
        assert harness.executor.busy("a")
        await asyncio.sleep(2)
        assert not harness.executor.busy("a")

    run_virtually(scenario())


def test_all_missing_containers_are_created_in_one_call_at_a_time() -> None:
    async def scenario() -> None:
        harness = ExecutorHarness()
        harness.send(step("a", Action.CREATE), step("b", Action.RECREATE), step("c", Action.CREATE))
        await asyncio.sleep(0.5)
        assert [(c.action, c.services) for c in harness.calls] == [(Action.CREATE, ("a", "c"))]
        assert harness.choose(step("b", Action.RECREATE), step("d", Action.CREATE)) == []
        await asyncio.sleep(1)
        assert harness.choose(step("b", Action.RECREATE)) == ["b"]

    run_virtually(scenario())


def test_observation_older_than_a_step_result_sends_no_step() -> None:
    async def scenario() -> None:
        harness = ExecutorHarness()
        before = asyncio.get_running_loop().time()
        harness.send(step("a"))
        await asyncio.sleep(1.5)
        assert harness.choose(step("a"), step("b"), began=before + 0.5) == ["b"]
        assert harness.choose(step("a"), began=before + 1.2) == ["a"]

    run_virtually(scenario())


def refuse(_: Command) -> None:
    raise StepFailed("no")


def test_errors_are_reported_with_their_step() -> None:
    async def scenario() -> None:
        harness = ExecutorHarness(answer=refuse)
        harness.send(step("a"))
        await asyncio.sleep(2)
        ((name, error),) = harness.back
        assert name == "a"
        assert isinstance(error, StepFailed)

    run_virtually(scenario())


def test_partly_failed_batch_is_reported_per_step() -> None:
    def answer(_: Command) -> None:
        raise BatchFailed({"b": StepFailed("no")})

    async def scenario() -> None:
        harness = ExecutorHarness(answer=answer)
        harness.send(step("a", Action.CREATE), step("b", Action.CREATE))
        await asyncio.sleep(2)
        assert [(name, str(error)) for name, error in harness.back] == [("a", "None"), ("b", "no")]

    run_virtually(scenario())


def test_unknown_outcome_of_a_batch_applies_to_each_step() -> None:
    def answer(_: Command) -> None:
        raise OutcomeUnknown("silence")

    async def scenario() -> None:
        harness = ExecutorHarness(answer=answer)
        harness.send(step("a", Action.CREATE), step("b", Action.CREATE))
        await asyncio.sleep(2)
        assert all(isinstance(error, OutcomeUnknown) for _, error in harness.back)

    run_virtually(scenario())


def test_adapter_bug_fails_the_step_not_the_executor() -> None:
    def answer(_: Command) -> None:
        raise ZeroDivisionError

    async def scenario() -> None:
        harness = ExecutorHarness(answer=answer)
        harness.send(step("a"))
        await asyncio.sleep(2)
        ((_, error),) = harness.back
        assert error is not None
        assert error.reason == "internal_error"
        assert harness.executor.in_flight == {}

    run_virtually(scenario())


def test_draining_waits_for_steps_in_flight_up_to_its_timeout() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        harness = ExecutorHarness()
        harness.send(step("a"))
        began = loop.time()
        await harness.executor.drain(3)
        assert loop.time() - began == 1
        assert harness.back == [("a", None)]
        harness.send(step("b"))
        await harness.executor.drain(0.25)
        assert loop.time() - began == 1.25
        assert [name for name, _ in harness.back] == ["a"]
        await harness.executor.drain(1)

    run_virtually(scenario())
