"""Gates: precedence, due times, and a new gate that needs one function and one entry."""

from __future__ import annotations

import pytest

from reconciler.model.desired import GroupState, Suspension
from reconciler.model.edit import Edit
from reconciler.model.ledger import Ledger
from reconciler.model.observed import State
from reconciler.planning import gates
from reconciler.planning.edits import Rejected, resolve
from reconciler.planning.gates import GATES, OPEN, Gate, GateResult, PlanInputs, group_gate
from reconciler.planning.plan_types import Block, Wait
from reconciler.planning.planner import plan
from reconciler.planning.status import of_group, summarise
from tests.support.fixtures.builders import NOW, a_stack, container, desire, look, service

WEB = service("web")
STACK = a_stack({"base": [service("db")], "app needs base": [WEB]})
ON = desire(STACK, "base", "app")
FULL = Block("memory_full", "needs 2 GiB, 1 GiB is free", "stop another group first")
NIGHT = Wait("outside_schedule", "starts at 08:00")


def with_gate(monkeypatch: pytest.MonkeyPatch, result: GateResult) -> None:
    def gate(inputs: PlanInputs, group: str) -> GateResult:
        return result if group == "app" and inputs.desired.groups[group].on else OPEN

    added: tuple[Gate, ...] = (*GATES, gate)
    monkeypatch.setattr(gates, "GATES", added)


def test_suspension_precedes_an_unmet_dependency() -> None:
    suspended = GroupState(on=True, suspend=Suspension(until=NOW.wall + 60, reason="upgrade"))
    inputs = PlanInputs(STACK, desire(STACK, app=suspended), look(STACK), Ledger(), NOW)
    gate = group_gate(inputs, "app")
    assert gate.hold == Wait("suspended", "app is suspended: upgrade")
    assert gate.due == NOW.wall + 60


def test_the_earliest_future_time_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gate(monkeypatch, GateResult(due=NOW.wall + 30))
    states = {"base": GroupState(on=True), "app": GroupState(on=True, restarted_at=NOW.wall + 90)}
    seen = look(STACK, container(service("db")), container(WEB))
    result = plan(STACK, desire(STACK, **states), seen, Ledger(), NOW)
    assert result.due == NOW.mono + 30


def test_a_past_due_time_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gate(monkeypatch, GateResult(FULL, due=NOW.wall - 1))
    assert plan(STACK, ON, look(STACK), Ledger(), NOW).due is None


def test_an_added_block_is_reported_even_if_nothing_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gate(monkeypatch, GateResult(FULL))
    result = plan(STACK, ON, look(STACK, container(service("db")), container(WEB)), Ledger(), NOW)
    assert str(result) == "web: blocked (memory_full: needs 2 GiB, 1 GiB is free)"
    statuses = summarise(result, Ledger(), {})
    group = of_group([("web", statuses["web"])], suspended=False)
    assert (group.phase, group.reason, group.message) == ("blocked", FULL.reason, FULL.message)


def test_an_added_wait_only_delays_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gate(monkeypatch, GateResult(NIGHT, due=NOW.wall + 3600))
    settled = plan(STACK, ON, look(STACK, container(service("db")), container(WEB)), Ledger(), NOW)
    assert summarise(settled, Ledger(), {})["web"].phase == "converged"
    stopped = look(STACK, container(service("db")), container(WEB, State.EXITED))
    result = plan(STACK, ON, stopped, Ledger(), NOW)
    assert str(result) == "web: waits (outside_schedule: starts at 08:00)"
    status = summarise(result, Ledger(), {})["web"]
    assert (status.phase, status.reason, status.message) == ("waiting", NIGHT.reason, NIGHT.message)


@pytest.mark.parametrize("hold", [FULL, NIGHT])
def test_starts_only_holds_back_starts_and_leaves_running_containers(
    hold: Block | Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gate(monkeypatch, GateResult(hold, starts_only=True))
    db = container(service("db"))
    for stopped in (look(STACK, db), look(STACK, db, container(WEB, State.EXITED))):
        result = plan(STACK, ON, stopped, Ledger(), NOW)
        assert result.steps == ()
        assert hold in {result.services["web"].block, result.services["web"].wait}
    running = plan(STACK, ON, look(STACK, db, container(WEB)), Ledger(), NOW)
    assert str(running) == "nothing to do"
    renamed = plan(STACK, ON, look(STACK, db, container(WEB, name="other")), Ledger(), NOW)
    assert [step.action for step in renamed.steps] == ["rename"]


def test_an_added_block_rejects_a_start(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gate(monkeypatch, GateResult(FULL))
    edit = Edit(verb="start", groups=("app",))
    rejected = Rejected(FULL.reason, f"app {FULL.message}", FULL.remedy)
    assert resolve(edit, STACK, desire(STACK, "base")) == rejected


@pytest.mark.parametrize("result", [GateResult(NIGHT), GateResult(FULL, starts_only=True)])
def test_a_gate_that_opens_without_help_or_holds_starts_only_rejects_no_start(
    monkeypatch: pytest.MonkeyPatch, result: GateResult
) -> None:
    with_gate(monkeypatch, result)
    edit = Edit(verb="start", groups=("app",))
    assert resolve(edit, STACK, desire(STACK, "base")) == {"app": GroupState(on=True)}
