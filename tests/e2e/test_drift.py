"""Drift is repaired once; a change of the files is applied once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.harness.engine_recorder import PROJECT as PROJECT_LABEL
from tests.support.harness.engine_recorder import SERVICE, Event
from tests.support.harness.sandbox import COMPOSE, PROJECT, Sandbox

RESYNC = 0.4


def made(sandbox: Sandbox, mark: int) -> dict[str, int]:
    """The number of containers created since then, by service."""
    events = [e.service for e in sandbox.recorder.touched(mark, PROJECT) if e.action == "create"]
    return {service: events.count(service) for service in events}


def three_resyncs(sandbox: Sandbox) -> None:
    """Wait for three more full observations."""
    # Without tag events only a full observation lists images; each inspects every container.
    for _ in range(3):
        mark = sandbox.proxy.mark()
        inspected = {f"/containers/{id}/json" for id in sandbox.ids().values()}
        sandbox.recorder.look_until(
            lambda mark=mark: {call.path for call in sandbox.proxy.calls[mark:]},  # type: ignore[misc]
            lambda seen, inspected=inspected: inspected <= seen,  # type: ignore[misc]
        )


def by_hand(sandbox: Sandbox, what: str) -> None:
    client = sandbox.docker
    match what:
        case "removed":
            client.remove_container("small-cache", force=True)
        case "stopped":
            client.stop("small-cache")
        case "killed":
            client.kill("small-cache")
        case "paused":
            client.pause("small-cache")
        case "renamed":
            client.rename("small-cache", "small-cache-backup")
        case "given another restart policy":
            client.update_container("small-cache", restart_policy={"Name": "no"})
        case "cut from its network":
            client.disconnect_container_from_network("small-cache", f"{PROJECT}_inner")


@pytest.mark.parametrize(
    ("what", "repair", "remakes"),
    [
        ("removed", "start", 1),
        ("stopped", "start", 0),
        ("killed", "start", 0),
        ("paused", "unpause", 0),
        ("renamed", "rename", 0),
        ("given another restart policy", "update", 0),
        ("cut from its network", "start", 1),
    ],
)
def test_manual_change_is_repaired_by_event_exactly_once(
    sandbox: Sandbox, what: str, repair: str, remakes: int
) -> None:
    ids, mark = sandbox.ids(), sandbox.recorder.mark()
    # One by the daemon, plus the manual one if it is of this kind: an observation may come in between.
    by_hand_too = what in {"renamed", "given another restart policy"}
    by_hand(sandbox, what)
    sandbox.recorder.until(
        lambda _: sandbox.recorder.count(mark, repair, "cache") == 1 + by_hand_too,
        since=mark,
        within=50.0 if what == "paused" else 20.0,
    )
    sandbox.is_true()
    sandbox.daemon.converged()
    assert made(sandbox, mark) == ({"cache": 1} if remakes else {})
    assert sandbox.recorder.count(mark, repair, "cache") == 1 + by_hand_too
    assert {e.service for e in sandbox.recorder.touched(mark, PROJECT)} == {"cache"}
    after = sandbox.ids()
    assert {name: id for name, id in after.items() if name != "cache"} == {
        name: id for name, id in ids.items() if name != "cache"
    }


def test_surplus_container_is_reported_and_removed_after_accept(sandbox: Sandbox) -> None:
    ids, started = sandbox.ids(), sandbox.one("cache")["State"]["StartedAt"]
    mark = sandbox.recorder.mark()
    second = sandbox.stranger("small-cache-2", {PROJECT_LABEL: PROJECT, SERVICE: "cache"})
    sandbox.daemon.until(lambda s: sandbox.daemon.service("cache", s)["drift"] == ["duplicate"])
    assert sandbox.daemon.service("cache")["reason"] == "held_back"
    assert sandbox.docker.inspect_container(second)["State"]["Running"]
    sandbox.daemon.post("/services/accept/extra")
    sandbox.recorder.until(lambda e: e.action == "destroy" and e.id == second, since=mark)
    sandbox.is_true()
    sandbox.daemon.converged()
    assert sandbox.ids() == ids
    assert sandbox.one("cache")["State"]["StartedAt"] == started


def test_drift_of_a_suspended_group_is_reported_by_kind(sandbox: Sandbox) -> None:
    sandbox.switch(extra="{state: on, suspend: true}")
    kinds = {
        "stopped": "stopped",
        "given another restart policy": "altered",
        "renamed": "altered",
        "removed": "missing",
    }
    for what, kind in kinds.items():
        if what == "removed":
            sandbox.docker.rename("small-cache-backup", "small-cache")
        by_hand(sandbox, what)
        sandbox.daemon.until(lambda s, kind=kind: kind in sandbox.daemon.service("cache", s)["drift"])  # type: ignore[misc]
        drift = sandbox.recorder.look_until(
            lambda: [d for d in sandbox.daemon.get("/services/drift")["drift"] if d["service"] == "cache"],
            # Its restart policy was changed before its name.
            lambda drift, kind=kind, what=what: any(  # type: ignore[misc]
                d["kind"] == kind and (what != "renamed" or "name" in d["fields"]) for d in drift
            ),
        )
        assert not any(d["pending"] for d in drift)


@pytest.mark.pitfall(1)
def test_edited_env_file_recreates_its_service_once(sandbox: Sandbox) -> None:
    sandbox.daemon.end()
    sandbox.daemon.start(RESYNC)
    sandbox.daemon.converged()
    ids, mark = sandbox.ids(), sandbox.recorder.mark()
    generation = sandbox.edit("env/api.env", "one", "two")
    sandbox.daemon.converged(generation)
    sandbox.is_true()
    assert made(sandbox, mark) == {"api": 1}
    assert "API_MODE=two" in sandbox.one("api")["Config"]["Env"]
    three_resyncs(sandbox)
    assert made(sandbox, mark) == {"api": 1}
    assert {n: i for n, i in sandbox.ids().items() if n != "api"} == {
        n: i for n, i in ids.items() if n != "api"
    }


def test_edited_definition_recreates_its_service_once_and_names_the_field(sandbox: Sandbox) -> None:
    sandbox.switch(app="{state: on, suspend: true}")
    generation = sandbox.edit("compose.yaml", "COLOUR: blue", "COLOUR: green")
    sandbox.daemon.until(lambda s: s["observed_generation"] == generation)
    (drift,) = [d for d in sandbox.daemon.get("/services/drift")["drift"] if d["service"] == "worker"]
    assert (drift["kind"], drift["pending"], drift["fields"]) == ("definition", True, ["environment.COLOUR"])
    assert "green" not in str(drift)
    mark = sandbox.recorder.mark()
    sandbox.daemon.converged(sandbox.switch())
    sandbox.is_true()
    assert made(sandbox, mark) == {"worker": 1}
    assert "COLOUR=green" in sandbox.one("worker")["Config"]["Env"]


def test_edit_without_a_change_of_meaning_touches_nothing(sandbox: Sandbox) -> None:
    mark = sandbox.recorder.mark()
    before = sandbox.daemon.get("/services/status")
    sandbox.save("compose.yaml", COMPOSE.replace("services:", "# a word for the reader\nservices:", 1))
    status = sandbox.daemon.until(lambda s: s["revision"] != before["revision"])
    assert status["generation"] == before["generation"]
    assert status["converged"]
    assert not sandbox.recorder.touched(mark, PROJECT)


def test_rebuilt_image_recreates_its_service_once_and_nothing_else(sandbox: Sandbox) -> None:
    ids, mark = sandbox.ids(), sandbox.recorder.mark()
    sandbox.save("build/marker", "two\n")
    sandbox.person("build", "web")
    sandbox.recorder.until(lambda e: e.action == "start" and e.service == "web", since=mark)
    sandbox.is_true()
    sandbox.daemon.converged()
    assert made(sandbox, mark) == {"web": 1}
    image = sandbox.docker.inspect_image("small/web:1")["Id"]
    assert sandbox.one("web")["Image"] == image
    after = sandbox.ids()
    assert {name for name in ids if ids[name] != after[name]} == {"web"}


def test_service_that_is_off_is_stopped_again_when_started_by_hand(sandbox: Sandbox) -> None:
    sandbox.daemon.converged(sandbox.switch(app=False, front=False))
    sandbox.is_true({"base", "extra"})
    mark = sandbox.recorder.mark()
    sandbox.docker.start("small-worker")
    sandbox.recorder.until(_ended("worker"), since=mark)
    sandbox.is_true({"base", "extra"})
    sandbox.daemon.converged()
    assert sandbox.recorder.count(mark, "start", "worker") == 1


@pytest.mark.pitfall(17)
def test_service_that_is_off_stays_off_when_the_engine_revives_it(sandbox: Sandbox) -> None:
    sandbox.daemon.converged(sandbox.switch(app=False, front=False))
    # Started while no daemon runs: the engine revives it by its policy, `restart: always`.
    sandbox.daemon.end()
    sandbox.docker.start("small-worker")
    sandbox.restart_engine()
    mark = len(sandbox.recorder.events)
    assert sandbox.one("worker")["State"]["Status"] in {"running", "restarting"}
    sandbox.daemon.start()
    sandbox.is_true({"base", "extra"})
    sandbox.daemon.converged()
    assert sandbox.recorder.count(mark, "start", "api") == 0


def _ended(service: str) -> Callable[[Event], bool]:
    return lambda event: event.action == "die" and event.service == service


@pytest.mark.pitfall(2)
def test_compose_up_by_a_person_recreates_nothing(sandbox: Sandbox) -> None:
    sandbox.recorder.look_until(
        lambda: {sandbox.one(s)["State"]["Health"]["Status"] for s in ("db", "api")},
        lambda s: s == {"healthy"},
    )
    ids, mark = sandbox.ids(), sandbox.recorder.mark()
    started = {name: sandbox.one(name)["State"]["StartedAt"] for name in ids if name != "migrate"}
    sandbox.person("up", "-d")
    assert sandbox.ids() == ids
    sandbox.is_true()
    sandbox.daemon.converged()
    assert made(sandbox, mark) == {}
    assert {name: sandbox.one(name)["State"]["StartedAt"] for name in started} == started


def test_recreation_by_a_person_is_not_disturbed(sandbox: Sandbox) -> None:
    for _ in range(3):
        old = sandbox.one("api")["Id"]
        # Compose fails if its containers are renamed, started or removed during the call.
        sandbox.person("up", "-d", "--no-deps", "--force-recreate", "api")
        sandbox.is_true()
        sandbox.daemon.converged()
        assert sandbox.one("api")["Id"] != old


def test_containers_made_by_compose_are_adopted_unchanged(sandbox: Sandbox) -> None:
    sandbox.daemon.end()
    for name in ("small-api", "small-worker", "small-cache"):
        sandbox.docker.remove_container(name, force=True)
    sandbox.person(
        "up", "-d", "--wait", *(s for s in sandbox.ids() if s != "migrate"), "api", "worker", "cache"
    )
    ids, mark = sandbox.ids(), sandbox.recorder.mark()
    assert set(ids) == {"db", "migrate", "api", "worker", "web", "edge", "cache"}
    sandbox.daemon.start()
    sandbox.daemon.converged()
    assert sandbox.ids() == ids
    assert not sandbox.recorder.touched(mark, PROJECT)


@pytest.mark.pitfall(42)
def test_service_without_a_group_is_listed_and_left_alone(sandbox: Sandbox) -> None:
    mark = sandbox.recorder.mark()
    assert [s["name"] for s in sandbox.daemon.get("/services/status")["unmanaged"]] == ["stray"]
    sandbox.docker.stop("small-stray")
    sandbox.docker.pause("stranger")
    sandbox.docker.unpause("stranger")
    sandbox.daemon.end()
    sandbox.daemon.start()
    sandbox.daemon.converged()
    assert sandbox.one("stray")["State"]["Status"] == "exited"
    assert {e.action for e in sandbox.recorder.since(mark) if e.service == "stray"} <= {"kill", "die", "stop"}
    sandbox.docker.start("small-stray")
    sandbox.strangers = sandbox.others()


def test_reported_change_waits_until_accepted(sandbox: Sandbox) -> None:
    sandbox.edit("stack.yaml", "    services: [cache]\n", "    services: [cache]\n    on_change: report\n")
    sandbox.daemon.converged()
    started = sandbox.one("cache")["State"]["StartedAt"]
    generation = sandbox.edit("compose.yaml", "cache-data:/data", "cache-data:/elsewhere")
    seen = sandbox.daemon.until(lambda s: s["observed_generation"] == generation)
    assert seen["groups"]["extra"]["reason"] == "held_back"
    assert "service-manager accept extra" in seen["groups"]["extra"]["message"]
    assert not seen["converged"]
    assert sandbox.daemon.get(f"/services/progress/{generation}")["state"] == "degraded"
    assert sandbox.one("cache")["State"]["StartedAt"] == started
    mark = sandbox.recorder.mark()
    done = sandbox.daemon.cli("accept", "extra")
    assert done.returncode == 0, done.stderr
    assert sandbox.daemon.get("/services/status")["converged"]
    assert made(sandbox, mark) == {"cache": 1}
    assert [m["Destination"] for m in sandbox.one("cache")["Mounts"] if m.get("Name")][:1]
    assert "accepted_at" in (sandbox.desired / "groups.yaml").read_text()
