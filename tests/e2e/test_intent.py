"""Force, suspend, restart and dependencies of groups, from files and REST, on real containers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from tests.support.harness.daemon import RequestRefused
from tests.support.harness.engine_recorder import Event
from tests.support.harness.sandbox import COMPOSE, PROJECT, Sandbox


def order(events: Sequence[Event], action: str) -> list[str]:
    """The services with this event, in order."""
    return [e.service for e in events if e.action == action]


def before(found: Sequence[str], *services: str) -> bool:
    """Whether these occur in this order."""
    places = [found.index(service) for service in services]
    return places == sorted(places)


def test_stack_starts_in_order_and_stops_in_reverse(sandbox: Sandbox) -> None:
    mark = sandbox.recorder.mark()
    sandbox.daemon.converged(sandbox.switch(base=False, app=False, front=False, extra=False))
    sandbox.is_true(())
    stopped = order(sandbox.recorder.touched(mark, PROJECT), "die")
    assert before(stopped, "edge", "web", "api", "db")
    assert before(stopped, "worker", "api")
    # A finished one-shot is done, also without its container, until its definition changes.
    sandbox.docker.remove_container("small-migrate")
    sandbox.save("compose.yaml", COMPOSE.replace('{STANDIN_RUN_FOR: "0.1"}', '{STANDIN_RUN_FOR: "0.2"}'))
    mark = sandbox.recorder.mark()
    sandbox.daemon.converged(sandbox.switch())
    sandbox.is_true()
    events = sandbox.recorder.touched(mark, PROJECT)
    started = order(events, "start")
    assert sorted(started) == sorted(["db", "migrate", "api", "worker", "web", "edge", "cache"])
    assert before(started, "db", "migrate", "api", "worker")
    # front needs all of app ready, not only the api that web names.
    assert before(started, "worker", "web", "edge")
    assert before([f"{e.action} {e.service}" for e in events], "die migrate", "start api")
    ready = datetime.fromisoformat(sandbox.one("migrate")["State"]["FinishedAt"][:26] + "+00:00").timestamp()
    begun = datetime.fromisoformat(sandbox.one("api")["State"]["StartedAt"][:26] + "+00:00").timestamp()
    assert ready < begun


def test_next_stop_waits_for_the_process_to_end_and_not_for_the_engines_cleanup(
    sandbox: Sandbox,
) -> None:
    edge, mark = sandbox.one("edge")["Id"], sandbox.recorder.mark()
    with sandbox.proxy.hooked(lambda call: "late" if call.path == f"/containers/{edge}/stop" else None):
        generation = sandbox.switch(front=False)
        sandbox.recorder.until(lambda e: (e.service, e.action) == ("web", "die"), since=mark)
        status = sandbox.daemon.until(lambda s: sandbox.daemon.service("web", s)["status"] == "exited")
        assert not status["converged"], "edge is stopping until the engine answers"
    sandbox.daemon.converged(generation)
    sandbox.is_true({"base", "app", "extra"})


def test_suspended_group_is_left_alone_until_the_suspension_ends(sandbox: Sandbox) -> None:
    sandbox.daemon.converged(sandbox.switch(extra="{state: on, suspend: {reason: looking into it}}"))
    mark = sandbox.recorder.mark()
    sandbox.docker.stop("small-cache")
    status = sandbox.daemon.until(lambda s: "stopped" in sandbox.daemon.service("cache", s)["drift"])
    assert status["groups"]["extra"]["phase"] == "suspended"
    assert status["converged"], "suspended groups do not count"
    # Other groups are repaired, which shows that passes continue.
    sandbox.docker.stop("small-edge")
    sandbox.recorder.until(lambda e: (e.service, e.action) == ("edge", "start"), since=mark)
    assert sandbox.recorder.count(mark, "start", "cache") == 0
    response = sandbox.daemon.post("/services/stop/extra")
    assert "suspension of extra" in response["message"]
    sandbox.daemon.post("/services/start/extra")
    sandbox.daemon.converged(sandbox.switch())
    sandbox.is_true()


def test_suspension_ends_at_its_time(sandbox: Sandbox) -> None:
    end = datetime.fromtimestamp(time.time() + 2.0, UTC).isoformat().replace("+00:00", "Z")
    sandbox.switch(extra=f"{{state: on, suspend: {{until: {end}}}}}")
    mark = sandbox.recorder.mark()
    sandbox.docker.stop("small-cache")
    event = sandbox.recorder.until(lambda e: (e.service, e.action) == ("cache", "start"), since=mark)
    assert event.at >= datetime.fromisoformat(end).timestamp()


@pytest.mark.parametrize("way", ["file", "REST"])
def test_restart_request_is_applied_once_in_order_and_recreates_nothing(sandbox: Sandbox, way: str) -> None:
    ids, mark = sandbox.ids(), sandbox.recorder.mark()
    if way == "file":
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        generation = sandbox.switch(app=f"{{state: on, restarted_at: {now}}}")
    else:
        generation = sandbox.daemon.post("/services/restart/app")["generation"]
    sandbox.daemon.converged(generation)
    sandbox.is_true()
    events = sandbox.recorder.touched(mark, PROJECT)
    assert {s: order(events, "start").count(s) for s in ("api", "worker")} == {"api": 1, "worker": 1}
    assert before(order(events, "die"), "worker", "api")
    assert before(order(events, "start"), "api", "worker")
    assert sandbox.ids() == ids
    # It is remembered: no second restart after a restart of the daemon or an unrelated edit.
    mark = sandbox.recorder.mark()
    sandbox.daemon.end()
    sandbox.daemon.start()
    sandbox.daemon.converged()
    assert not sandbox.recorder.touched(mark, PROJECT)


def test_group_with_a_dependency_that_is_off_is_blocked_and_keeps_running(sandbox: Sandbox) -> None:
    ids, mark = sandbox.ids(), sandbox.recorder.mark()
    generation = sandbox.switch(base=False)
    status = sandbox.daemon.until(lambda s: s["observed_generation"] == generation)
    app = status["groups"]["app"]
    assert (app["phase"], app["reason"]) == ("blocked", "dependency_off")
    assert "base" in app["message"]
    assert status["progress"]["state"] == "degraded"
    assert not status["converged"]
    assert sandbox.one("api")["State"]["Running"]
    assert sandbox.one("db")["State"]["Status"] == "exited"
    sandbox.docker.stop("small-worker")
    sandbox.docker.stop("small-cache")
    sandbox.recorder.until(lambda e: (e.service, e.action) == ("cache", "start"), since=mark)
    assert sandbox.one("worker")["State"]["Status"] == "exited", "no service of a blocked group starts"
    # force lifts it.
    generation = sandbox.switch(base=False, app="{state: on, force: true}")
    sandbox.daemon.converged(generation)
    sandbox.is_true({"app", "front", "extra"})
    assert sandbox.ids() == ids


def test_rest_refuses_changes_that_break_dependents_unless_forced(sandbox: Sandbox) -> None:
    with pytest.raises(RequestRefused) as refused:
        sandbox.daemon.post("/services/stop/base")
    assert refused.value.status == 409
    assert "app" in refused.value.value["detail"]
    response = sandbox.daemon.post("/services/stop/base?with_dependents=true&wait=30")
    assert response["progress"]["state"] == "converged"
    sandbox.is_true({"extra"})
    assert sandbox.desired.joinpath("groups.yaml").read_text() == (
        "groups:\n  base: off      # a comment that stays\n  app: off\n  front: off\n  extra: on\n"
    )
    with pytest.raises(RequestRefused) as refused:
        sandbox.daemon.post("/services/start/app")
    assert refused.value.status == 409
    assert "force=true" in str(refused.value.value)
    response = sandbox.daemon.post("/services/start/front?with_dependencies=true&wait=40")
    assert response["progress"]["state"] == "converged"
    sandbox.is_true()


def test_rest_can_set_everything_that_a_file_can(sandbox: Sandbox) -> None:
    response = sandbox.daemon.put(
        "/services/groups/extra", {"state": "on", "suspend": {"reason": "camera work"}}
    )
    status = sandbox.daemon.until(lambda s: s["generation"] >= response["generation"])
    assert status["groups"]["extra"]["phase"] == "suspended"
    assert "camera work" in (sandbox.desired / "groups.yaml").read_text()
    sandbox.docker.stop("small-cache")
    sandbox.daemon.until(lambda s: sandbox.daemon.service("cache", s)["drift"] == ["stopped"])
    response = sandbox.daemon.put("/services/groups/extra", {"state": "on", "suspend": False})
    sandbox.daemon.converged(response["generation"])
    sandbox.is_true()
    assert "# a comment that stays" in (sandbox.desired / "groups.yaml").read_text()
    # force: app without base.
    sandbox.daemon.post("/services/stop/base?force=true&wait=20")
    assert sandbox.one("db")["State"]["Status"] == "exited"
    response = sandbox.daemon.post("/services/start/app?force=true&wait=20")
    assert response["progress"]["state"] == "converged"
    assert "app: {state: on, force: true}" in (sandbox.desired / "groups.yaml").read_text()
    sandbox.is_true({"app", "front", "extra"})
