"""Plans as text: requested restarts and one-shots."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconciler.model.desired import Desired, GroupState
from reconciler.model.ledger import Ledger
from reconciler.model.observed import State
from reconciler.model.stack import Stack
from tests.support.fixtures.builders import NOW, a_stack, container, desire, look, planned, service
from tests.support.fixtures.plans import APP, DB, ONE, ONE_ON, TIERS, WEAK, WEB, kafka, text

# --- requested restarts ---------------------------------------------------------------------------


def restarting(stack: Stack, at: float = NOW.wall) -> Desired:
    return desire(stack, **{name: GroupState(on=True, restarted_at=at) for name in stack.groups})


def test_a_restart_stops_in_reverse_and_starts_in_order() -> None:
    wish = restarting(TIERS)
    db, app, web = container(DB), container(APP), container(WEB)
    ended = State.EXITED
    assert text(TIERS, wish, db, app, web) == (
        "db: waits (stops_after: stops after app)\n"
        "app: waits (stops_after: stops after web)\n"
        "web: stop (restart: a restart was requested)"
    )
    down = text(TIERS, wish, db, replace(app, state=ended), replace(web, state=ended))
    assert down == (
        "db: stop (restart: a restart was requested)\n"
        "app: waits (dependency_not_ready: waits for db to be healthy)\n"
        "web: waits (dependency_not_ready: waits for app to start)"
    )
    fresh = container(DB, started_at=NOW.wall)
    assert "app: start" in text(TIERS, wish, fresh, replace(app, state=ended), replace(web, state=ended))


def test_a_service_does_not_start_before_a_pending_stop_of_its_dependency() -> None:
    # A dependency with condition service_started runs, but is about to stop.
    stack = a_stack({"main": [service("zoo"), service("kafka", "zoo")]})
    seen = container(stack.services["zoo"]), container(stack.services["kafka"], State.EXITED)
    assert text(stack, restarting(stack), *seen) == (
        "zoo: stop (restart: a restart was requested)\n"
        "kafka: waits (dependency_not_ready: waits for zoo to start)"
    )
    remade = container(stack.services["zoo"], config_hash="old"), seen[1]
    assert "kafka: waits" in text(stack, desire(stack, "main"), *remade)


def test_a_restart_is_carried_out_once() -> None:
    wish = restarting(ONE)
    assert text(ONE, wish, kafka()) == "kafka: stop (restart: a restart was requested)"
    assert text(ONE, wish, kafka(started_at=NOW.wall)) == "nothing to do"
    skewed = Ledger(restarted={"kafka": NOW.wall})
    assert text(ONE, wish, kafka(), ledger=skewed) == "nothing to do"


@pytest.mark.pitfall(36)
def test_a_restart_requested_after_the_clock_was_set_back_is_carried_out() -> None:
    ahead = kafka(started_at=NOW.wall + 3e8)
    wanted = planned(ONE, ONE_ON, look(ONE, ahead)).services["kafka"].wants
    before = Ledger(settled={"kafka": wanted})
    asked = restarting(ONE, NOW.wall - 1)
    assert text(ONE, asked, ahead, ledger=before) == "kafka: stop (restart: a restart was requested)"
    # A request that was carried out long ago, or is unknown, has no effect.
    settled = Ledger(settled={"kafka": planned(ONE, asked, look(ONE, ahead)).services["kafka"].wants})
    assert text(ONE, asked, ahead, ledger=settled) == "nothing to do"
    assert text(ONE, asked, ahead) == "nothing to do"
    done = replace(before, restarted={"kafka": NOW.wall - 1})
    assert text(ONE, asked, ahead, ledger=done) == "nothing to do"


def test_a_restart_in_the_future_is_due_then() -> None:
    wish = restarting(ONE, NOW.wall + 60)
    result = planned(ONE, wish, look(ONE, kafka()))
    assert str(result) == "nothing to do"
    assert result.due == NOW.mono + 60


def test_a_restart_does_not_wait_for_a_crash_loop() -> None:
    stack = a_stack({"main": [service("db"), service("app", "db")]})
    up = container(stack.services["db"]), container(stack.services["app"], State.RESTARTING)
    assert text(stack, restarting(stack), *up) == (
        "db: waits (stops_after: stops after app)\napp: stop (restart: a restart was requested)"
    )


def test_a_restart_and_a_new_definition_do_not_deadlock() -> None:
    up = container(DB), container(APP, config_hash="old"), container(WEB)
    first = text(TIERS, restarting(TIERS), *up)
    assert "web: stop (restart" in first
    second = text(TIERS, restarting(TIERS), *up[:2], container(WEB, State.EXITED))
    assert "app: stop (restart: a restart was requested)" in second
    third = text(TIERS, restarting(TIERS), up[0], replace(up[1], state=State.EXITED))
    assert "db: stop (restart" in third
    assert "app: recreate (definition" in third


def test_a_restart_that_lacks_its_image_delays_no_other_restart() -> None:
    observed = look(TIERS, container(DB), container(APP, config_hash="old"), images={"db:1": "sha-db:1"})
    result = str(planned(TIERS, restarting(TIERS), observed))
    assert "app: pull" in result
    assert "db: stop (restart: a restart was requested)" in result


def test_a_blocked_group_is_not_restarted() -> None:
    wish = desire(WEAK, top=GroupState(on=True, restarted_at=NOW.wall))
    assert "blocked" in text(WEAK, wish, container(WEAK.services["api"]))


@pytest.mark.parametrize("fields", [{}, {"shares": ("db",)}])
def test_a_service_follows_the_restart_of_its_parent(fields: dict[str, Any]) -> None:
    need = "db" if fields else "db:restart"
    child = service("child", need, **fields)
    stack = a_stack({"main": [service("db"), child]})
    on = desire(stack, "main")
    parent = container(stack.services["db"], started_at=999_500.0)
    assert text(stack, on, parent, container(child)) == "child: stop (follows: db was restarted)"
    after = container(child, started_at=999_501.0)
    assert text(stack, on, parent, after) == "nothing to do"
    marked = Ledger(followed={"child": "id-db@999500.0"})
    assert text(stack, on, parent, container(child), ledger=marked) == "nothing to do"
    down = replace(parent, state=State.EXITED)
    assert "child: waits (dependency_not_ready: waits for db to start)" in text(
        stack, on, down, container(child)
    )


# --- one-shots ------------------------------------------------------------------------------------

INIT = service("init", restart="no")
MIGRATION = service("migration")
WITH_INIT = a_stack({"main": [INIT, MIGRATION, service("app", "migration:completed")]})
INIT_ON = desire(WITH_INIT, "main")
DONE = [container(s, State.EXITED) for s in (INIT, MIGRATION)]


def test_a_completed_one_shot_is_done_and_no_drift() -> None:
    result = planned(WITH_INIT, INIT_ON, look(WITH_INIT, *DONE, container(WITH_INIT.services["app"])))
    assert str(result) == "nothing to do"
    assert result.drifts == ()
    assert result.services["init"].done
    assert result.services["migration"].settled


def test_a_one_shot_that_failed_is_started_again() -> None:
    for one in (INIT, MIGRATION):
        seen = [c for c in DONE if c.service != one.name] + [container(one, State.EXITED, exit_code=1)]
        assert f"{one.name}: start (stopped: exited with code 1)" in text(WITH_INIT, INIT_ON, *seen)


def test_a_running_one_shot_is_not_settled() -> None:
    app = container(WITH_INIT.services["app"], State.CREATED)
    result = planned(WITH_INIT, INIT_ON, look(WITH_INIT, DONE[0], container(MIGRATION), app))
    assert str(result) == (
        "migration: waits (completing: runs until its work is complete)\n"
        "app: waits (dependency_not_ready: waits for migration to complete)"
    )
    assert not result.services["migration"].ready


def test_a_one_shot_that_never_started_is_not_done() -> None:
    assert "init: start" in text(WITH_INIT, INIT_ON, container(INIT, State.CREATED))


def test_a_service_without_restart_policy_that_the_daemon_stopped_is_started_again() -> None:
    # Many servers exit with code 0 on a stop signal: that does not complete a one-shot.
    stack = a_stack({"main": [service("db", restart="no")]})
    ended = container(stack.services["db"], State.EXITED)
    ledger = Ledger(stopped={ended.id: ended.started_at})
    on = desire(stack, "main")
    assert text(stack, on, ended, ledger=ledger) == "db: start (stopped: exited with code 0)"
    again = replace(ended, started_at=ended.started_at + 1)
    assert text(stack, on, again, ledger=ledger) == "nothing to do"


def test_a_service_that_others_need_healthy_is_no_one_shot() -> None:
    stack = a_stack({"main": [service("db", restart="no"), APP]})
    ended = container(stack.services["db"], State.EXITED)
    assert "db: start" in text(stack, desire(stack, "main"), ended, container(APP))


def test_a_one_shot_with_a_new_definition_runs_again_before_its_dependents() -> None:
    old = container(MIGRATION, State.EXITED, config_hash="old")
    app = container(WITH_INIT.services["app"], State.EXITED)
    assert text(WITH_INIT, INIT_ON, DONE[0], old, app) == (
        "migration: recreate (definition: was created from another definition)\n"
        "app: waits (dependency_not_ready: waits for migration to complete)"
    )


def test_needing_a_completed_one_shot_to_be_healthy_is_reported() -> None:
    other = service("other", "init:completed")
    stack = a_stack({"main": [INIT, service("app", "init:healthy"), other]})
    app = container(stack.services["app"], State.CREATED)
    assert text(stack, desire(stack, "main"), DONE[0], app, container(other)) == (
        "app: waits (dependency_ended: needs init to be healthy, but it has completed)"
    )


def test_a_completed_one_shot_is_not_restarted() -> None:
    app = container(WITH_INIT.services["app"], started_at=NOW.wall)
    assert text(WITH_INIT, restarting(WITH_INIT), *DONE, app) == "nothing to do"
