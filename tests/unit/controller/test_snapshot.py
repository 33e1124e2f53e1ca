"""Snapshots: their content, and how readers receive them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from reconciler.controller.progress import Progress
from reconciler.controller.snapshot import EngineView, Snapshot, SnapshotPublisher
from reconciler.controller.snapshot_builder import Inputs, build
from reconciler.errors import Mistake
from reconciler.model.backoff import Failure
from reconciler.model.desired import GroupState, Suspension
from reconciler.model.ledger import Clock, Ledger
from reconciler.model.observed import Container, State, Usage
from reconciler.model.stack import Pilot, Stack
from reconciler.planning.fingerprints import attempt_fingerprint
from reconciler.planning.planner import plan
from tests.support.fixtures.builders import NOW, a_stack, container, desire, look, service
from tests.support.fixtures.virtual_time import run_virtually

DB = service("db", check=True, ports=("5432:5432",))
APP = service("app", "db:healthy")
STACK = a_stack(
    {"base": [DB], "top needs base": [APP]},
    service("stranger"),
    pilot=Pilot(("base",), 5),
    warnings=("beware",),
)


def inputs(
    *seen: Container, stack: Stack = STACK, now: Clock = NOW, ledger: Ledger | None = None, **fields: Any
) -> Inputs:
    desired = fields.pop("desired", desire(stack, *stack.groups, generation=3))
    observed = look(stack, *seen, complete=fields.pop("complete", True))
    values: dict[str, Any] = {
        "stack": stack,
        "desired": desired,
        "observed": observed,
        "ledger": ledger or Ledger(),
        "plan": plan(stack, desired, observed, ledger or Ledger(), now),
        "progress": Progress(generation=3),
        "engine": EngineView(reachable=True),
        "now": now,
    }
    return Inputs(**{**values, **fields})


UP = container(DB, ports=DB.ports), container(APP)


def test_converged_stack_is_published_as_converged() -> None:
    shown = build(inputs(*UP, observed_generation=3, errors=(Mistake("f", 1, 1, "no"),)))
    assert (shown.converged, shown.pilot_ready, shown.generation, shown.observed_generation) == (
        True,
        True,
        3,
        3,
    )
    assert not shown.valid
    assert shown.warnings == ("beware",)
    assert [v.name for v in shown.unmanaged] == ["stranger"]
    base = shown.groups["base"]
    assert (base.status, base.phase, base.running, base.dependents) == ("running", "converged", 1, ("top",))
    (db,) = base.services
    assert (db.ready, db.status, db.health, db.ports) == (True, "running", "healthy", ("5432:5432",))
    assert db.started_at == 999_000.0


@pytest.mark.parametrize(("seen", "status"), [(UP, "running"), (UP[:1], "partial"), ((), "stopped")])
def test_group_status_counts_running_services(seen: tuple[Container, ...], status: str) -> None:
    stack = a_stack({"all": [DB, APP]})
    assert build(inputs(*seen, stack=stack)).groups["all"].status == status


def test_finished_one_shot_does_not_make_a_group_partial() -> None:
    init = service("init", restart="no")
    stack = a_stack({"all": [DB, init]})
    shown = build(inputs(UP[0], container(init, State.EXITED), stack=stack))
    assert (shown.groups["all"].status, shown.converged) == ("running", True)
    assert shown.groups["all"].services[1].done


def test_pending_changes_are_not_drift() -> None:
    pending = build(inputs(UP[0]))
    assert pending.groups["top"].services[0].drift == ()
    assert pending.drifts[0].pending
    settled = {
        "app": plan(STACK, desire(STACK, "base", "top"), look(STACK, *UP), Ledger(), NOW)
        .services["app"]
        .wants
    }
    moved = build(inputs(UP[0], ledger=Ledger(settled=settled)))
    assert moved.groups["top"].services[0].drift == ("missing",)


def test_last_observation_is_published_as_not_converged_without_engine() -> None:
    shown = build(inputs(*UP, engine=EngineView(reachable=False, error="gone")))
    assert (shown.converged, shown.pilot_ready) == (False, False)
    assert shown.groups["base"].services[0].status == "running"


def test_nothing_is_ready_before_the_first_observation() -> None:
    shown = build(inputs(complete=False))
    assert not shown.converged
    assert shown.groups["base"].phase == "waiting"
    assert shown.groups["base"].reason == "engine_unreachable"


def test_blocked_and_suspended_groups_have_reasons() -> None:
    desired = desire(
        STACK, top=GroupState(on=True), base=GroupState(on=False, suspend=Suspension(NOW.wall + 5))
    )
    shown = build(inputs(desired=desired))
    assert (shown.groups["top"].phase, shown.groups["top"].message) == ("blocked", "needs base, which is off")
    assert shown.groups["base"].suspended_until == NOW.wall + 5
    assert not shown.converged


def test_future_times_in_the_files_are_warnings() -> None:
    states = {"base": GroupState(on=True, restarted_at=NOW.wall + 60), "top": GroupState(on=True)}
    warnings = build(inputs(*UP, desired=desire(STACK, **states))).warnings
    assert warnings == (
        "beware",
        "base: restarted_at is in the future, and nothing is done about it before 1970-01-12T13:47:40Z",
    )
    later = Clock(NOW.wall + 60, NOW.mono + 60)
    assert build(inputs(*UP, desired=desire(STACK, **states), now=later)).warnings == ("beware",)


def test_container_that_lost_a_process_to_the_oom_killer_has_an_error() -> None:
    starved = replace(UP[1], oom_killed=True)
    (app,) = build(inputs(UP[0], starved)).groups["top"].services
    assert app.ready
    assert app.last_error.startswith("out of memory")
    for at, error in ((starved.started_at - 1, "out of memory"), (starved.started_at + 1, "why")):
        ledger = Ledger(failures={"app": Failure(1, 0.0, "", "no", "why", at)})
        (app,) = build(inputs(UP[0], starved, ledger=ledger)).groups["top"].services
        assert app.last_error.startswith(error)


def test_usage_is_summed_over_running_services() -> None:
    shown = build(inputs(*UP, usage={"id-db": Usage(7, 1.5), "gone": Usage(9, 1.0)}))
    assert shown.groups["base"].memory == 7
    assert shown.groups["top"].services[0].memory is None


def test_time_of_the_next_attempt_does_not_jitter() -> None:
    state = GroupState(on=True)
    failure = Failure(2, NOW.mono + 5, attempt_fingerprint(DB, state, look(STACK)), "no", "why", 0.0)
    ledger = Ledger(failures={"db": failure})
    shown = build(inputs(ledger=ledger))
    (db,) = shown.groups["base"].services
    assert (db.retry_at, db.last_error) == (NOW.wall + 5, "why")
    later = build(inputs(ledger=ledger, now=Clock(NOW.wall + 1.001, NOW.mono + 1)))
    assert replace(later, at=shown.at) == shown


def test_equal_content_is_not_published_again() -> None:
    snapshots = SnapshotPublisher()
    first = snapshots.publish(build(inputs(*UP)))
    assert first.serial == 1
    again = snapshots.publish(build(inputs(*UP, now=Clock(NOW.wall + 60, NOW.mono + 60))))
    assert again is first
    assert snapshots.publish(build(inputs(UP[0]))).serial == 2


def test_every_waiting_reader_wakes_and_a_slow_one_sees_only_the_last() -> None:
    async def scenario() -> None:
        snapshots = SnapshotPublisher()
        readers = [asyncio.create_task(snapshots.newer_than(0)) for _ in range(500)]
        await asyncio.sleep(0)
        for generation in range(1, 4):
            snapshots.publish(Snapshot(generation=generation))
        assert {snapshot.generation for snapshot in await asyncio.gather(*readers)} == {3}
        assert (await snapshots.newer_than(1)).serial == 3
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(snapshots.newer_than(3), 10)

    run_virtually(scenario())


def test_outcome_of_an_overtaken_generation_stays_known() -> None:
    snapshots = SnapshotPublisher()
    snapshots.publish(Snapshot(progress=Progress(generation=1)))
    snapshots.publish_outcome(Progress(generation=1, state="superseded"))
    snapshots.publish_outcome(Progress(generation=1, state="degraded"))
    progress = snapshots.progress(1)
    assert progress is not None
    assert progress.state == "superseded"
    assert snapshots.progress(9) is None
    for generation in range(2, 200):
        snapshots.publish(Snapshot(progress=Progress(generation=generation)))
    assert snapshots.progress(1) is None
    assert snapshots.progress(199) is not None
