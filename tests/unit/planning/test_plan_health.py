"""Services that run and fail: unhealthy for too long, or crash looping."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.model.ledger import Clock, Ledger, ReadySince, Restarts
from reconciler.model.observed import Action, Container, Health, State
from reconciler.model.stack import Stack, UnhealthyPolicy
from reconciler.planning.planner import Plan, plan
from reconciler.planning.record_observation import record_observation
from reconciler.planning.status import outcome, summarise
from tests.support.fixtures.builders import NOW, a_stack, container, desire, look, service

DB = service("db", check=True)
WEB = service("web", "db:healthy")


def stack_with(**policy: Any) -> Stack:
    stack = a_stack({"main": [DB, WEB]})
    group = replace(stack.groups["main"], unhealthy=UnhealthyPolicy(**policy))
    return replace(stack, groups={"main": group})


SICK = container(DB, health=Health.UNHEALTHY)


def after(seconds: float) -> Clock:
    return Clock(NOW.wall + seconds, NOW.mono + seconds)


def decide(
    stack: Stack, seen: Container, ledger: Ledger, now: Clock, *others: Container
) -> tuple[Plan, Ledger]:
    observed = look(stack, seen, *(others or (container(WEB),)))
    ledger = record_observation(stack, desire(stack, "main"), observed, ledger, now, chance=0.5)
    return plan(stack, desire(stack, "main"), observed, ledger, now), ledger


FAILS = "db: waits (unhealthy: runs, but its health check fails)"


def test_an_unhealthy_service_is_restarted_after_the_policys_delay() -> None:
    stack = stack_with()
    result, ledger = decide(stack, SICK, Ledger(), NOW)
    assert (str(result), result.due) == (FAILS, NOW.mono + 120)
    assert str(decide(stack, SICK, ledger, after(119))[0]) == FAILS
    result, _ = decide(stack, SICK, ledger, after(120))
    assert str(result) == "db: stop (unhealthy: its health check has failed for more than 120 s)"
    assert not result.services["db"].ready


def test_the_delay_restarts_with_each_start_and_each_recovery() -> None:
    stack = stack_with()
    _, ledger = decide(stack, SICK, Ledger(), NOW)
    again = replace(SICK, started_at=SICK.started_at + 5)
    assert str(decide(stack, again, ledger, after(200))[0]) == FAILS
    _, ledger = decide(stack, container(DB), ledger, after(60))
    assert str(decide(stack, SICK, ledger, after(200))[0]) == FAILS


def test_the_action_is_that_of_the_group() -> None:
    ledger = Ledger(unhealthy={"db": ReadySince("id-db", SICK.started_at, 0.0)})
    recreated = decide(stack_with(action="recreate"), SICK, ledger, NOW)[0]
    assert [s.action for s in recreated.steps] == [Action.RECREATE]
    reported = decide(stack_with(action="report"), SICK, ledger, NOW)[0]
    assert (str(reported), reported.due) == (FAILS, None)


def test_a_limit_within_a_window_ends_the_attempts() -> None:
    stack = stack_with(limit=2, window=600.0)
    old = Ledger(unhealthy={"db": ReadySince("id-db", SICK.started_at, 0.0)})
    tried = replace(old, healed={"db": (NOW.mono - 700, NOW.mono - 500, NOW.mono - 1)})
    result, _ = decide(stack, SICK, tried, NOW)
    assert str(result) == f"{FAILS[:-1]} still, after 2 attempts to repair it in the last 10 minutes)"
    assert result.due == NOW.mono + 100
    assert decide(stack, SICK, tried, after(100))[0].steps


def test_a_service_that_can_not_start_again_is_not_stopped() -> None:
    stack = stack_with()
    web = replace(container(WEB), health=Health.UNHEALTHY)
    ledger = Ledger(unhealthy={"web": ReadySince("id-web", web.started_at, 0.0)})
    result, _ = decide(stack, container(DB, health=Health.STARTING), ledger, NOW, web)
    assert "web: waits (dependency_not_ready: waits for db to be healthy)" in str(result)


LOOP = replace(WEB, restart="always")
ALONE = a_stack({"main": [LOOP]})


def runs(count: int, state: State = State.RUNNING, **fields: Any) -> Container:
    return container(LOOP, state, restart_count=count, **fields)


def through(*looks: tuple[float, Container]) -> tuple[Plan, Ledger]:
    """Plan after each observation; ``looks`` are the seconds and the container."""
    ledger, result = Ledger(), Plan()
    for seconds, seen in looks:
        observed = look(ALONE, seen)
        ledger = record_observation(
            ALONE, desire(ALONE, "main"), observed, ledger, after(seconds), chance=0.5
        )
        result = plan(ALONE, desire(ALONE, "main"), observed, ledger, after(seconds))
    return result, ledger


def test_a_crash_loop_is_not_ready_between_two_exits() -> None:
    result, ledger = through(
        (0, runs(0)), (1, runs(1)), (2, runs(1, State.RESTARTING, exit_code=3, finished_at=5.0)), (3, runs(2))
    )
    assert str(result) == "web: waits (crash_looping: ends again and again, last with code 3)"
    assert not result.services["web"].ready
    assert outcome(summarise(result, ledger, {}).values()) == "degraded"
    assert result.due == NOW.mono + 3 + 10
    assert ledger.exits["web"].code == 3


def test_one_exit_is_no_crash_loop_and_time_without_exits_ends_it() -> None:
    assert str(through((0, runs(0)), (1, runs(1)))[0]) == "nothing to do"
    looping = ((0, runs(0)), (1, runs(1)), (31, runs(2)))
    assert not through(*looping, (90, runs(2)))[0].services["web"].ready
    assert through(*looping, (91, runs(2)))[0].services["web"].ready
    rare = ((0, runs(0)), (1, runs(1)), (4000, runs(2)))
    assert through(*rare)[0].services["web"].ready


def test_an_external_start_ends_a_crash_loop() -> None:
    assert through((0, runs(5)), (1, runs(7)), (2, runs(0)))[0].services["web"].ready


def test_dependents_of_a_crash_loop_wait() -> None:
    stack = a_stack({"main": [LOOP, service("top", "web:healthy")]})
    loop = Ledger(restarts={"web": Restarts("id-web", 2, (NOW.mono - 2, NOW.mono - 1))})
    result = plan(
        stack,
        desire(stack, "main"),
        look(stack, runs(2), container(service("top"), State.CREATED)),
        loop,
        NOW,
    )
    assert "top: waits (dependency_not_ready: waits for web, which ends again and again)" in str(result)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(gaps=st.lists(st.floats(0.1, 140.0), min_size=3, max_size=12))
def test_a_crash_loop_is_never_ready_however_long_each_run_lasts(gaps: list[float]) -> None:
    gaps = [sorted(gaps)[0] * (1 + i / 100) for i in range(len(gaps))]
    at, looks = 0.0, [(0.0, runs(0))]
    for count, gap in enumerate(gaps, 1):
        at += gap
        looks.append((at, runs(count)))
        if count >= 2:
            # Just before the next exit.
            result, _ = through(*looks, (at + gap * 0.99, runs(count)))
            assert not result.services["web"].ready


@pytest.mark.parametrize("state", [State.RESTARTING])
def test_the_state_restarting_is_a_crash_loop(state: State) -> None:
    assert not through((0, runs(1, state)))[0].services["web"].ready
