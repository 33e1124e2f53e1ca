"""Plans as text: observed containers on the left, the expected step on the right."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconciler.model.desired import GroupState, Suspension
from reconciler.model.ledger import BuiltFrom, Ledger
from reconciler.model.observed import Action, Container, Health, State
from reconciler.planning.drift import DriftKind
from tests.support.fixtures.builders import NOW, a_stack, container, desire, look, planned, service
from tests.support.fixtures.plans import (
    ALONE,
    APP,
    DB,
    ON,
    ONE,
    ONE_ON,
    TIERS,
    WEB,
    failing,
    kafka,
    text,
    without_image,
)

# --- one service, every kind of drift -------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ([], "kafka: create (missing: has no container)"),
        ([kafka()], "nothing to do"),
        ([kafka(State.CREATED)], "kafka: start (stopped: was created and never started)"),
        ([kafka(State.EXITED)], "kafka: start (stopped: exited with code 0)"),
        ([kafka(State.EXITED, exit_code=137)], "kafka: start (stopped: exited with code 137)"),
        (
            [kafka(State.EXITED, exit_code=137, oom_killed=True)],
            "kafka: start (stopped: exited with code 137, out of memory)",
        ),
        ([kafka(State.DEAD)], "kafka: remove (stopped: is dead)"),
        ([kafka(State.PAUSED)], "kafka: unpause (paused: is paused)"),
        (
            [kafka(State.RESTARTING, exit_code=3)],
            "kafka: waits (crash_looping: ends again and again, last with code 3)",
        ),
        (
            [kafka(State.REMOVING)],
            "kafka: waits (removing: waits for the engine to finish removing it)",
        ),
        ([kafka(name="somebody")], "kafka: rename kafka (altered: was changed by hand: name)"),
        (
            [kafka(restart="no")],
            "kafka: update unless-stopped (altered: was changed by hand: restart)",
        ),
        ([kafka(networks=())], "kafka: stop (altered: was changed by hand: networks.net)"),
        (
            [kafka(State.EXITED, networks=())],
            "kafka: recreate (altered: was changed by hand: networks.net)",
        ),
        ([kafka(networks=("mine", "net"))], "nothing to do"),
        (
            [kafka(config_hash="old")],
            "kafka: stop (definition: was created from another definition)",
        ),
        (
            [kafka(State.EXITED, config_hash="old")],
            "kafka: recreate (definition: was created from another definition)",
        ),
        ([kafka(image="sha-old")], "kafka: stop (image: kafka:1 names another image now)"),
        (
            [kafka(State.PAUSED, image="sha-old")],
            "kafka: unpause (image: kafka:1 names another image now)",
        ),
        (
            [kafka(health=Health.UNHEALTHY)],
            "kafka: waits (unhealthy: runs, but its health check fails)",
        ),
        (
            [kafka(health=Health.STARTING)],
            "kafka: waits (starting: waits for its own health check to succeed)",
        ),
        ([kafka(health=Health.STARTING, probed=True)], "nothing to do"),
    ],
)
def test_each_difference_has_its_step(seen: list[Container], expected: str) -> None:
    assert text(ONE, ONE_ON, *seen) == expected


@pytest.mark.parametrize(
    ("seen", "kinds"),
    [
        ([], {DriftKind.MISSING}),
        ([kafka(State.EXITED)], {DriftKind.STOPPED}),
        ([kafka(State.PAUSED)], {DriftKind.PAUSED}),
        ([kafka(), kafka(id="second")], {DriftKind.DUPLICATE}),
        ([kafka(name="x", restart="no", networks=())], {DriftKind.ALTERED}),
        ([kafka(config_hash="old", image="sha-old")], {DriftKind.DEFINITION, DriftKind.IMAGE}),
        ([kafka(health=Health.UNHEALTHY)], {DriftKind.UNHEALTHY}),
        ([kafka(State.EXITED, image="sha-old")], {DriftKind.IMAGE, DriftKind.STOPPED}),
    ],
)
def test_each_difference_has_its_kind(seen: list[Container], kinds: set[DriftKind]) -> None:
    assert {d.kind for d in planned(ONE, ONE_ON, look(ONE, *seen)).drifts} == kinds


def test_a_container_that_runs_while_its_group_is_off_is_unwanted() -> None:
    for state in (State.RUNNING, State.RESTARTING):
        result = planned(ONE, desire(ONE), look(ONE, kafka(state)))
        assert str(result) == "kafka: stop (unwanted: main is off)"
        assert [d.kind for d in result.drifts] == [DriftKind.UNWANTED]


def test_an_unwanted_paused_container_is_unpaused_before_the_stop() -> None:
    assert text(ONE, desire(ONE), kafka(State.PAUSED)) == "kafka: unpause (unwanted: main is off)"


def test_a_stopped_service_that_is_off_is_left_alone() -> None:
    for state in (State.EXITED, State.CREATED, State.DEAD, State.REMOVING):
        odd = kafka(state, config_hash="old", name="odd", restart="always")
        assert text(ONE, desire(ONE), odd) == "nothing to do"


def test_two_containers_of_a_service_that_is_off_stop_in_turn() -> None:
    both = kafka(id="a"), kafka(id="b")
    result = planned(ONE, desire(ONE), look(ONE, *both))
    assert [s.container for s in result.steps] == ["a"]
    assert len(result.drifts) == 2


def test_a_changed_definition_is_reported_by_field_without_values() -> None:
    ledger = Ledger(
        made={"id-kafka": BuiltFrom("old", {"image": "1", "environment.A": "9", "command": "x"}, "")}
    )
    result = planned(ONE, ONE_ON, look(ONE, kafka(config_hash="old")), ledger)
    assert str(result) == "kafka: stop (definition: differs in command and environment.A)"
    assert result.drifts[0].fields == ("command", "environment.A")


@pytest.mark.pitfall(4)
def test_a_compose_version_that_hashes_the_same_inputs_differently_recreates_nothing() -> None:
    ledger = Ledger(made={"id-kafka": BuiltFrom("def-kafka", {}, "sha-kafka:1")})
    assert text(ONE, ONE_ON, kafka(config_hash="other"), ledger=ledger) == "nothing to do"


@pytest.mark.pitfall(5)
def test_an_image_store_that_shows_another_id_for_the_same_image_recreates_nothing() -> None:
    ledger = Ledger(made={"id-kafka": BuiltFrom("def-kafka", {}, "sha-kafka:1")})
    assert text(ONE, ONE_ON, kafka(image="sha-manifest"), ledger=ledger) == "nothing to do"


@pytest.mark.pitfall(25)
def test_container_that_can_never_start_is_recreated_and_started() -> None:
    known = failing(ONE, ONE_ON, "kafka", due=0.0).failures["kafka"]
    failure = known._replace(reason="network_missing", error="network n not result", container="id-kafka")
    ledger = Ledger(failures={"kafka": failure})
    why = "stopped: can't be started any more: network n not result"
    assert text(ONE, ONE_ON, kafka(State.EXITED), ledger=ledger) == f"kafka: recreate ({why})"
    assert text(ONE, ONE_ON, kafka(State.CREATED), ledger=ledger) == f"kafka: recreate ({why})"
    # Recreation does not help if Compose does not create the network (`network_mode: n`).
    other = service("kafka", networks=())
    one = a_stack({"main": [other]})
    assert text(one, ONE_ON, container(other, State.CREATED), ledger=ledger).startswith("kafka: start")
    assert text(ONE, ONE_ON, kafka(State.CREATED, id="next"), ledger=ledger).startswith("kafka: start")


def test_a_network_that_the_container_lacked_from_the_start_is_no_difference() -> None:
    ledger = Ledger(made={"id-kafka": BuiltFrom("def-kafka", {}, "", ("net",))})
    assert text(ONE, ONE_ON, kafka(networks=()), ledger=ledger) == "nothing to do"


def test_differences_are_pending_until_the_service_has_settled_once() -> None:
    gone = planned(ONE, ONE_ON, look(ONE))
    assert [d.pending for d in gone.drifts] == [True]
    settled = Ledger(settled={"kafka": gone.services["kafka"].wants})
    assert [d.pending for d in planned(ONE, ONE_ON, look(ONE), settled).drifts] == [False]


def test_restart_managed_wants_the_policy_no() -> None:
    stack = replace(ONE, restart="managed")
    why = "altered: has the restart policy unless-stopped, but `restart: managed` wants no"
    assert text(stack, ONE_ON, kafka()) == f"kafka: update no ({why})"
    # Before the start, since the engine could restart it first.
    assert text(stack, ONE_ON, kafka(State.CREATED)) == f"kafka: update no ({why})"
    # A service that is off must not start with the engine either.
    assert text(stack, desire(stack), kafka(State.EXITED)) == f"kafka: update no ({why})"
    assert text(stack, desire(stack), kafka(State.EXITED, restart="no")) == "nothing to do"
    assert text(stack, desire(stack), kafka()) == "kafka: stop (unwanted: main is off)"
    assert text(stack, ONE_ON, kafka(restart="no")) == "nothing to do"


def test_several_alterations_are_repaired_one_per_pass() -> None:
    both = kafka(name="odd", restart="no")
    assert text(ONE, ONE_ON, both).startswith("kafka: rename kafka")
    assert text(ONE, ONE_ON, replace(both, name="kafka")).startswith("kafka: update unless-stopped")


# --- duplicates and interrupted recreations (PITFALLS row 6) --------------------------------------


@pytest.mark.pitfall(6)
def test_the_outdated_one_of_two_containers_is_stopped_then_removed() -> None:
    old = kafka(id="old", name="kafka", config_hash="old")
    new = kafka(id="new", name="ab12_kafka")
    running = planned(ONE, ONE_ON, look(ONE, old, new))
    assert str(running) == "kafka: stop (duplicate: kafka is a second container)"
    assert running.steps[0].container == "old"
    ended = planned(ONE, ONE_ON, look(ONE, replace(old, state=State.EXITED), new))
    assert str(ended) == "kafka: remove (duplicate: kafka is a second container)"
    assert text(ONE, ONE_ON, new) == "kafka: rename kafka (altered: was changed by hand: name)"


def test_a_recreation_by_another_process_is_not_disturbed() -> None:
    just, long_ago = NOW.wall - 1, NOW.wall - 20
    old = kafka(id="old", config_hash="old")
    for others in ((old,), (replace(old, state=State.EXITED),), ()):
        new = kafka(State.CREATED, id="new", name="ab12_kafka", created_at=just)
        result = planned(ONE, ONE_ON, look(ONE, *others, new))
        assert [v.wait and v.wait.reason for v in result.services.values()] == ["being_remade"]
        assert result.due == NOW.mono + ALONE.stop_grace + 5 - 1
        assert planned(ONE, ONE_ON, look(ONE, *others, replace(new, created_at=long_ago))).steps
        # The daemon's own recreation, with a recorded failure.
        ours = failing(ONE, ONE_ON, "kafka", due=0.0)
        failed = ours.failures["kafka"]._replace(at=NOW.wall)
        assert planned(ONE, ONE_ON, look(ONE, *others, new), replace(ours, failures={"kafka": failed})).steps
        ended = replace(ours, failures={"kafka": failed._replace(reason="exited")})
        assert not planned(ONE, ONE_ON, look(ONE, *others, new), ended).steps
        # Or with an unknown outcome, as after a crash of the daemon.
        making = Ledger(making={"kafka": BuiltFrom("", {}, "", at=just - 1)})
        assert planned(ONE, ONE_ON, look(ONE, *others, new), making).steps


def test_the_running_one_of_two_equal_containers_is_kept() -> None:
    stopped = kafka(State.EXITED, id="a")
    runs = kafka(id="b", name="ab12_kafka")
    result = planned(ONE, ONE_ON, look(ONE, stopped, runs))
    assert [(s.action, s.container) for s in result.steps] == [(Action.REMOVE, "a")]


def test_a_paused_second_container_is_unpaused_before_the_stop() -> None:
    result = planned(ONE, ONE_ON, look(ONE, kafka(id="b"), kafka(State.PAUSED, id="a")))
    assert [(s.action, s.container) for s in result.steps] == [(Action.UNPAUSE, "a")]


def test_a_second_container_that_is_being_removed_gets_no_step() -> None:
    result = text(ONE, ONE_ON, kafka(id="a"), kafka(State.REMOVING, id="b"))
    assert result == "kafka: waits (removing: waits for the engine to finish removing it)"


def test_the_outdated_one_of_two_runs_until_the_other_can_start() -> None:
    old = container(APP, id="old", config_hash="old")
    new = container(APP, State.CREATED, id="new", name="ab12_app")
    waiting = text(TIERS, ON, container(DB, State.EXITED), old, new)
    assert "app: waits (dependency_not_ready: waits for db to be healthy)" in waiting
    ready = text(TIERS, ON, container(DB), old, new)
    assert "app: stop (duplicate: app is a second container)" in ready


def test_two_dead_containers_are_both_removed() -> None:
    dead = kafka(State.DEAD, id="a"), kafka(State.DEAD, id="b")
    assert text(ONE, ONE_ON, *dead) == "kafka: remove (stopped: is dead)"


def test_an_orphan_is_listed_and_not_changed() -> None:
    lost = kafka(id="lost", service="zoo", name="zoo")
    result = planned(ONE, ONE_ON, look(ONE, kafka(), lost))
    assert str(result) == "zoo: orphan zoo"
    assert [d.kind for d in result.drifts] == [DriftKind.ORPHAN]
    assert not result.steps


def test_unmanaged_services_are_not_changed() -> None:
    stack = a_stack({"main": [ALONE]}, service("exporter", "kafka"))
    exporter = container(stack.services["exporter"], State.EXITED, exit_code=1)
    for desired in (desire(stack, "main"), desire(stack)):
        managed = [kafka()] if desired.groups["main"].on else []
        assert text(stack, desired, *managed, exporter) == "nothing to do"


# --- images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "kafka: pull (image: the image kafka:1 is not there and has to be pulled)"),
        ({"has_build": True}, "kafka: build (image: the image kafka:1 is not there and has to be built)"),
        (
            {"pull_policy": "never"},
            "kafka: blocked (image_unavailable: the image kafka:1 is not there and pull_policy forbids"
            " pulling it)",
        ),
    ],
)
def test_a_missing_image_is_pulled_or_built(fields: dict[str, Any], expected: str) -> None:
    stack = a_stack({"main": [service("kafka", **fields)]})
    assert str(planned(stack, ONE_ON, without_image(stack))) == expected


def test_an_existing_container_starts_without_its_image_tag() -> None:
    result = planned(ONE, ONE_ON, without_image(ONE, kafka(State.EXITED)))
    assert str(result) == "kafka: start (stopped: exited with code 0)"


def test_one_image_for_several_services_is_fetched_once() -> None:
    pair = [service("a", image="same"), service("b", image="same")]
    stack = a_stack({"main": pair})
    assert str(planned(stack, desire(stack, "main"), without_image(stack))) == (
        "a: pull (image: the image same is not there and has to be pulled)\n"
        "b: waits (image: waits for the image same)"
    )


def test_a_service_of_a_blocked_or_suspended_group_fetches_no_image() -> None:
    groups = {"up": [service("a", image="same")], "down needs off": [service("b", image="same")]}
    stack = a_stack({"off": [service("z")], **groups})
    result = planned(stack, desire(stack, "up", "down"), without_image(stack))
    assert [(s.service, s.action) for s in result.steps] == [("a", Action.PULL)]
    suspended = desire(stack, "up", off=GroupState(on=True, suspend=Suspension()), down=GroupState(on=True))
    assert {s.service for s in planned(stack, suspended, without_image(stack)).steps} == {"a"}


def test_a_missing_image_delays_no_other_service() -> None:
    images = {"db:1": "sha-db:1", "app:1": "sha-app:1"}
    result = str(planned(TIERS, ON, look(TIERS, images=images)))
    assert result == (
        "db: create (missing: has no container)\n"
        "app: create (missing: has no container)\n"
        "web: pull (image: the image web:1 is not there and has to be pulled)"
    )


def test_a_container_name_that_is_taken_is_a_wait() -> None:
    taken = look(ONE, foreign={"kafka": "id-foreign"})
    assert str(planned(ONE, ONE_ON, taken)) == (
        "kafka: waits (name_conflict: a container outside this project has the name kafka: "
        "rename or remove it)"
    )
    renamed = look(ONE, kafka(name="kafka_old"), foreign={"kafka": "id-foreign"})
    assert "name_conflict" in str(planned(ONE, ONE_ON, renamed))


# --- recreations: the old container runs until the new one can ------------------------------------


def test_a_running_container_is_recreated_only_when_the_new_image_is_present() -> None:
    result = planned(ONE, ONE_ON, without_image(ONE, kafka(config_hash="old")))
    assert str(result) == "kafka: pull (image: the image kafka:1 is not there and has to be pulled)"
    assert result.services["kafka"].ready


def test_a_running_container_is_recreated_only_when_its_successor_can_start() -> None:
    old = container(APP, config_hash="old")
    assert "app: waits (dependency_not_ready: waits for db to be healthy)" in text(
        TIERS, ON, container(DB, health=Health.STARTING), old
    )
    assert "app: stop (definition: was created from another definition)" in text(
        TIERS, ON, container(DB), old
    )


def test_a_stopped_container_is_recreated_without_waiting_for_dependencies() -> None:
    old = container(APP, State.EXITED, config_hash="old")
    assert "app: recreate (definition" in text(TIERS, ON, container(DB, State.EXITED), old)


def test_a_service_is_recreated_after_its_dependency() -> None:
    old_db, old_app = container(DB, config_hash="old"), container(APP, config_hash="old")
    web = container(WEB)
    assert text(TIERS, ON, old_db, old_app, web) == (
        "db: stop (definition: was created from another definition)\n"
        "app: waits (dependency_not_ready: waits for db to be healthy)"
    )
    assert text(TIERS, ON, container(DB), old_app, web) == (
        "app: stop (definition: was created from another definition)"
    )


def test_a_failed_recreation_leaves_the_old_container_running_and_ready() -> None:
    old = look(ONE, kafka(config_hash="old"))
    result = planned(ONE, ONE_ON, old, failing(ONE, ONE_ON, "kafka"))
    assert str(result) == "kafka: waits (back_off: tried 2 times: no luck)"
    assert result.services["kafka"].ready
