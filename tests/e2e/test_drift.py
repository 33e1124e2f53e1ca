"""What moves by itself is put back, once; what the files say anew is carried out, once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.harness.engine_recorder import PROJECT as PROJECT_LABEL
from tests.support.harness.engine_recorder import SERVICE, Event
from tests.support.harness.sandbox import COMPOSE, PROJECT, Sandbox

RESYNC = 0.4


def made(yard: Sandbox, mark: int) -> dict[str, int]:
    """How many containers were made since then, by service."""
    events = [e.service for e in yard.recorder.touched(mark, PROJECT) if e.action == "create"]
    return {service: events.count(service) for service in events}


def three_resyncs(yard: Sandbox) -> None:
    """Wait until the daemon has inspected everything three times more."""
    # Only a full look lists images where nothing moved the tags; each inspects every container.
    for _ in range(3):
        mark = yard.proxy.mark()
        inspected = {f"/containers/{id}/json" for id in yard.ids().values()}
        yard.recorder.look_until(
            lambda mark=mark: {call.path for call in yard.proxy.calls[mark:]},  # type: ignore[misc]
            lambda seen, inspected=inspected: inspected <= seen,  # type: ignore[misc]
        )


def by_hand(yard: Sandbox, what: str) -> None:
    client = yard.docker
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
def test_what_was_done_by_hand_is_undone_by_event_and_only_once(
    yard: Sandbox, what: str, repair: str, remakes: int
) -> None:
    ids, mark = yard.ids(), yard.recorder.mark()
    # By us, and where that is what was done by hand, by hand too: a look in between may come too late.
    by_hand_too = what in {"renamed", "given another restart policy"}
    by_hand(yard, what)
    yard.recorder.until(lambda _: yard.recorder.count(mark, repair, "cache") == 1 + by_hand_too, since=mark)
    yard.is_true()
    yard.daemon.converged()
    assert made(yard, mark) == ({"cache": 1} if remakes else {})
    assert yard.recorder.count(mark, repair, "cache") == 1 + by_hand_too
    assert {e.service for e in yard.recorder.touched(mark, PROJECT)} == {"cache"}
    after = yard.ids()
    assert {name: id for name, id in after.items() if name != "cache"} == {
        name: id for name, id in ids.items() if name != "cache"
    }


def test_a_second_container_of_a_service_is_reported_and_goes_once_that_is_accepted(yard: Sandbox) -> None:
    ids, started = yard.ids(), yard.one("cache")["State"]["StartedAt"]
    mark = yard.recorder.mark()
    second = yard.stranger("small-cache-2", {PROJECT_LABEL: PROJECT, SERVICE: "cache"})
    yard.daemon.until(lambda s: yard.daemon.service("cache", s)["drift"] == ["duplicate"])
    assert yard.daemon.service("cache")["reason"] == "held_back"
    assert yard.docker.inspect_container(second)["State"]["Running"]
    yard.daemon.post("/services/accept/extra")
    yard.recorder.until(lambda e: e.action == "destroy" and e.id == second, since=mark)
    yard.is_true()
    yard.daemon.converged()
    assert yard.ids() == ids
    assert yard.one("cache")["State"]["StartedAt"] == started


def test_drift_is_told_by_kind_while_nothing_may_be_done_about_it(yard: Sandbox) -> None:
    yard.switch(extra="{state: on, suspend: true}")
    kinds = {
        "stopped": "stopped",
        "given another restart policy": "altered",
        "renamed": "altered",
        "removed": "missing",
    }
    for what, kind in kinds.items():
        if what == "removed":
            yard.docker.rename("small-cache-backup", "small-cache")
        by_hand(yard, what)
        yard.daemon.until(lambda s, kind=kind: kind in yard.daemon.service("cache", s)["drift"])  # type: ignore[misc]
        told = yard.recorder.look_until(
            lambda: [d for d in yard.daemon.get("/services/drift")["drift"] if d["service"] == "cache"],
            # Its policy was altered before its name was.
            lambda told, kind=kind, what=what: any(  # type: ignore[misc]
                d["kind"] == kind and (what != "renamed" or "name" in d["fields"]) for d in told
            ),
        )
        assert not any(d["pending"] for d in told)


@pytest.mark.pitfall(1)
def test_an_edited_env_file_makes_its_service_anew_once_and_never_again(yard: Sandbox) -> None:
    yard.daemon.end()
    yard.daemon.start(RESYNC)
    yard.daemon.converged()
    ids, mark = yard.ids(), yard.recorder.mark()
    generation = yard.edit("env/api.env", "one", "two")
    yard.daemon.converged(generation)
    yard.is_true()
    assert made(yard, mark) == {"api": 1}
    assert "API_MODE=two" in yard.one("api")["Config"]["Env"]
    three_resyncs(yard)
    assert made(yard, mark) == {"api": 1}
    assert {n: i for n, i in yard.ids().items() if n != "api"} == {n: i for n, i in ids.items() if n != "api"}


def test_an_edited_definition_makes_its_service_anew_once_and_names_the_field(yard: Sandbox) -> None:
    yard.switch(app="{state: on, suspend: true}")
    generation = yard.edit("compose.yaml", "COLOUR: blue", "COLOUR: green")
    yard.daemon.until(lambda s: s["observed_generation"] == generation)
    (drift,) = [d for d in yard.daemon.get("/services/drift")["drift"] if d["service"] == "worker"]
    assert (drift["kind"], drift["pending"], drift["fields"]) == ("definition", True, ["environment.COLOUR"])
    assert "green" not in str(drift)
    mark = yard.recorder.mark()
    yard.daemon.converged(yard.switch())
    yard.is_true()
    assert made(yard, mark) == {"worker": 1}
    assert "COLOUR=green" in yard.one("worker")["Config"]["Env"]


def test_an_edit_that_means_nothing_touches_nothing(yard: Sandbox) -> None:
    mark = yard.recorder.mark()
    before = yard.daemon.get("/services/status")
    yard.save("compose.yaml", COMPOSE.replace("services:", "# a word for the reader\nservices:", 1))
    status = yard.daemon.until(lambda s: s["revision"] != before["revision"])
    assert status["generation"] == before["generation"]
    assert status["converged"]
    assert not yard.recorder.touched(mark, PROJECT)


def test_a_rebuilt_image_makes_its_service_anew_once_and_nothing_else(yard: Sandbox) -> None:
    ids, mark = yard.ids(), yard.recorder.mark()
    yard.save("build/marker", "two\n")
    yard.person("build", "web")
    yard.recorder.until(lambda e: e.action == "start" and e.service == "web", since=mark)
    yard.is_true()
    yard.daemon.converged()
    assert made(yard, mark) == {"web": 1}
    image = yard.docker.inspect_image("small/web:1")["Id"]
    assert yard.one("web")["Image"] == image
    after = yard.ids()
    assert {name for name in ids if ids[name] != after[name]} == {"web"}


def test_what_is_off_is_stopped_again_whoever_starts_it(yard: Sandbox) -> None:
    yard.daemon.converged(yard.switch(app=False, front=False))
    yard.is_true({"base", "extra"})
    mark = yard.recorder.mark()
    yard.docker.start("small-worker")
    yard.recorder.until(_ended("worker"), since=mark)
    yard.is_true({"base", "extra"})
    yard.daemon.converged()
    assert yard.recorder.count(mark, "start", "worker") == 1


@pytest.mark.pitfall(17)
def test_what_is_off_stays_off_when_the_engine_revives_it(yard: Sandbox) -> None:
    yard.daemon.converged(yard.switch(app=False, front=False))
    # Started while nobody looks: the engine will then bring it up by its own policy, `restart: always`.
    yard.daemon.end()
    yard.docker.start("small-worker")
    yard.restart_engine()
    mark = len(yard.recorder.events)
    assert yard.one("worker")["State"]["Status"] in {"running", "restarting"}
    yard.daemon.start()
    yard.is_true({"base", "extra"})
    yard.daemon.converged()
    assert yard.recorder.count(mark, "start", "api") == 0


def _ended(service: str) -> Callable[[Event], bool]:
    return lambda event: event.action == "die" and event.service == service


@pytest.mark.pitfall(2)
def test_a_persons_up_makes_nothing_anew(yard: Sandbox) -> None:
    yard.recorder.look_until(
        lambda: {yard.one(s)["State"]["Health"]["Status"] for s in ("db", "api")}, lambda s: s == {"healthy"}
    )
    ids, mark = yard.ids(), yard.recorder.mark()
    started = {name: yard.one(name)["State"]["StartedAt"] for name in ids if name != "migrate"}
    yard.person("up", "-d")
    assert yard.ids() == ids
    yard.is_true()
    yard.daemon.converged()
    assert made(yard, mark) == {}
    assert {name: yard.one(name)["State"]["StartedAt"] for name in started} == started


def test_a_persons_own_remake_is_not_meddled_with(yard: Sandbox) -> None:
    for _ in range(3):
        old = yard.one("api")["Id"]
        # It fails if anybody renames, starts or removes what it is at.
        yard.person("up", "-d", "--no-deps", "--force-recreate", "api")
        yard.is_true()
        yard.daemon.converged()
        assert yard.one("api")["Id"] != old


def test_containers_that_compose_made_are_adopted_as_they_are(yard: Sandbox) -> None:
    yard.daemon.end()
    for name in ("small-api", "small-worker", "small-cache"):
        yard.docker.remove_container(name, force=True)
    yard.person("up", "-d", "--wait", *(s for s in yard.ids() if s != "migrate"), "api", "worker", "cache")
    ids, mark = yard.ids(), yard.recorder.mark()
    assert set(ids) == {"db", "migrate", "api", "worker", "web", "edge", "cache"}
    yard.daemon.start()
    yard.daemon.converged()
    assert yard.ids() == ids
    assert not yard.recorder.touched(mark, PROJECT)


@pytest.mark.pitfall(42)
def test_a_service_of_no_group_is_listed_and_left_alone(yard: Sandbox) -> None:
    mark = yard.recorder.mark()
    assert [s["name"] for s in yard.daemon.get("/services/status")["unmanaged"]] == ["stray"]
    yard.docker.stop("small-stray")
    yard.docker.pause("stranger")
    yard.docker.unpause("stranger")
    yard.daemon.end()
    yard.daemon.start()
    yard.daemon.converged()
    assert yard.one("stray")["State"]["Status"] == "exited"
    assert {e.action for e in yard.recorder.since(mark) if e.service == "stray"} <= {"kill", "die", "stop"}
    yard.docker.start("small-stray")
    yard.strangers = yard.others()


def test_what_is_only_to_be_reported_waits_until_it_is_accepted(yard: Sandbox) -> None:
    yard.edit("stack.yaml", "    services: [cache]\n", "    services: [cache]\n    on_change: report\n")
    yard.daemon.converged()
    started = yard.one("cache")["State"]["StartedAt"]
    generation = yard.edit("compose.yaml", "cache-data:/data", "cache-data:/elsewhere")
    seen = yard.daemon.until(lambda s: s["observed_generation"] == generation)
    assert seen["groups"]["extra"]["reason"] == "held_back"
    assert "service-manager accept extra" in seen["groups"]["extra"]["message"]
    assert not seen["converged"]
    assert yard.daemon.get(f"/services/progress/{generation}")["state"] == "degraded"
    assert yard.one("cache")["State"]["StartedAt"] == started
    mark = yard.recorder.mark()
    done = yard.daemon.cli("accept", "extra")
    assert done.returncode == 0, done.stderr
    assert yard.daemon.get("/services/status")["converged"]
    assert made(yard, mark) == {"cache": 1}
    assert [m["Destination"] for m in yard.one("cache")["Mounts"] if m.get("Name")][:1]
    assert "accepted_at" in (yard.desired / "groups.yaml").read_text()
