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
    alone,
    failing,
    text,
    without_image,
)

# --- one service, every kind of drift -----------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ([], "kafka: create (missing: has no container)"),
        ([alone()], "nothing to do"),
        ([alone(State.CREATED)], "kafka: start (stopped: was created and never started)"),
        ([alone(State.EXITED)], "kafka: start (stopped: exited with code 0)"),
        ([alone(State.EXITED, exit_code=137)], "kafka: start (stopped: exited with code 137)"),
        (
            [alone(State.EXITED, exit_code=137, oom_killed=True)],
            "kafka: start (stopped: exited with code 137, out of memory)",
        ),
        ([alone(State.DEAD)], "kafka: remove (stopped: is dead)"),
        ([alone(State.PAUSED)], "kafka: unpause (paused: is paused)"),
        (
            [alone(State.RESTARTING, exit_code=3)],
            "kafka: waits (crash_looping: ends again and again, last with code 3)",
        ),
        ([alone(State.REMOVING)], "kafka: waits (removing: waits for the engine to finish removing it)"),
        ([alone(name="somebody")], "kafka: rename kafka (altered: was changed by hand: name)"),
        ([alone(restart="no")], "kafka: update unless-stopped (altered: was changed by hand: restart)"),
        ([alone(networks=())], "kafka: stop (altered: was changed by hand: networks.net)"),
        (
            [alone(State.EXITED, networks=())],
            "kafka: recreate (altered: was changed by hand: networks.net)",
        ),
        ([alone(networks=("mine", "net"))], "nothing to do"),
        ([alone(config_hash="old")], "kafka: stop (definition: was created from another definition)"),
        (
            [alone(State.EXITED, config_hash="old")],
            "kafka: recreate (definition: was created from another definition)",
        ),
        ([alone(image="sha-old")], "kafka: stop (image: kafka:1 names another image now)"),
        ([alone(State.PAUSED, image="sha-old")], "kafka: unpause (image: kafka:1 names another image now)"),
        ([alone(health=Health.UNHEALTHY)], "kafka: waits (unhealthy: runs, but its health check fails)"),
        (
            [alone(health=Health.STARTING)],
            "kafka: waits (starting: waits for its own health check to succeed)",
        ),
        ([alone(health=Health.STARTING, probed=True)], "nothing to do"),
    ],
)
def test_what_is_done_about_each_difference(seen: list[Container], expected: str) -> None:
    assert text(ONE, ONE_ON, *seen) == expected


@pytest.mark.parametrize(
    ("seen", "kinds"),
    [
        ([], {DriftKind.MISSING}),
        ([alone(State.EXITED)], {DriftKind.STOPPED}),
        ([alone(State.PAUSED)], {DriftKind.PAUSED}),
        ([alone(), alone(id="second")], {DriftKind.DUPLICATE}),
        ([alone(name="x", restart="no", networks=())], {DriftKind.ALTERED}),
        ([alone(config_hash="old", image="sha-old")], {DriftKind.DEFINITION, DriftKind.IMAGE}),
        ([alone(health=Health.UNHEALTHY)], {DriftKind.UNHEALTHY}),
        ([alone(State.EXITED, image="sha-old")], {DriftKind.IMAGE, DriftKind.STOPPED}),
    ],
)
def test_every_difference_is_named_by_its_kind(seen: list[Container], kinds: set[DriftKind]) -> None:
    assert {d.kind for d in planned(ONE, ONE_ON, look(ONE, *seen)).drifts} == kinds


def test_what_runs_though_its_group_is_off_is_unwanted() -> None:
    for state in (State.RUNNING, State.RESTARTING):
        found = planned(ONE, desire(ONE), look(ONE, alone(state)))
        assert str(found) == "kafka: stop (unwanted: main is off)"
        assert [d.kind for d in found.drifts] == [DriftKind.UNWANTED]


def test_an_unwanted_paused_container_is_unpaused_to_be_stopped() -> None:
    assert text(ONE, desire(ONE), alone(State.PAUSED)) == "kafka: unpause (unwanted: main is off)"


def test_what_is_off_and_down_is_left_alone_whatever_else_differs() -> None:
    for state in (State.EXITED, State.CREATED, State.DEAD, State.REMOVING):
        odd = alone(state, config_hash="old", name="odd", restart="always")
        assert text(ONE, desire(ONE), odd) == "nothing to do"


def test_both_containers_of_a_service_that_is_off_are_stopped_one_after_the_other() -> None:
    both = alone(id="a"), alone(id="b")
    found = planned(ONE, desire(ONE), look(ONE, *both))
    assert [s.container for s in found.steps] == ["a"]
    assert len(found.drifts) == 2


def test_a_definition_that_differs_is_named_field_by_field_without_values() -> None:
    ledger = Ledger(
        made={"id-kafka": BuiltFrom("old", {"image": "1", "environment.A": "9", "command": "x"}, "")}
    )
    found = planned(ONE, ONE_ON, look(ONE, alone(config_hash="old")), ledger)
    assert str(found) == "kafka: stop (definition: differs in command and environment.A)"
    assert found.drifts[0].fields == ("command", "environment.A")


@pytest.mark.pitfall(4)
def test_a_new_compose_version_that_hashes_the_same_inputs_differently_remakes_nothing() -> None:
    ledger = Ledger(made={"id-kafka": BuiltFrom("def-kafka", {}, "sha-kafka:1")})
    assert text(ONE, ONE_ON, alone(config_hash="other"), ledger=ledger) == "nothing to do"


@pytest.mark.pitfall(5)
def test_an_image_store_that_shows_another_id_for_the_same_image_remakes_nothing() -> None:
    ledger = Ledger(made={"id-kafka": BuiltFrom("def-kafka", {}, "sha-kafka:1")})
    assert text(ONE, ONE_ON, alone(image="sha-manifest"), ledger=ledger) == "nothing to do"


@pytest.mark.pitfall(25)
def test_container_that_can_never_start_is_recreated_and_started() -> None:
    known = failing(ONE, ONE_ON, "kafka", due=0.0).failures["kafka"]
    failure = known._replace(reason="network_missing", error="network n not found", container="id-kafka")
    ledger = Ledger(failures={"kafka": failure})
    why = "stopped: can't be started any more: network n not found"
    assert text(ONE, ONE_ON, alone(State.EXITED), ledger=ledger) == f"kafka: recreate ({why})"
    assert text(ONE, ONE_ON, alone(State.CREATED), ledger=ledger) == f"kafka: recreate ({why})"
    # Nothing is won by another one where it is not Compose that makes the network (`network_mode: n`).
    other = service("kafka", networks=())
    one = a_stack({"main": [other]})
    assert text(one, ONE_ON, container(other, State.CREATED), ledger=ledger).startswith("kafka: start")
    assert text(ONE, ONE_ON, alone(State.CREATED, id="next"), ledger=ledger).startswith("kafka: start")


def test_a_network_that_the_container_came_without_is_not_asked_for_again() -> None:
    ledger = Ledger(made={"id-kafka": BuiltFrom("def-kafka", {}, "", ("net",))})
    assert text(ONE, ONE_ON, alone(networks=()), ledger=ledger) == "nothing to do"


def test_drift_is_pending_until_the_service_once_was_as_wanted() -> None:
    gone = planned(ONE, ONE_ON, look(ONE))
    assert [d.pending for d in gone.drifts] == [True]
    settled = Ledger(settled={"kafka": gone.services["kafka"].wants})
    assert [d.pending for d in planned(ONE, ONE_ON, look(ONE), settled).drifts] == [False]


def test_restart_managed_wants_the_policy_no() -> None:
    stack = replace(ONE, restart="managed")
    why = "altered: has the restart policy unless-stopped, but `restart: managed` wants no"
    assert text(stack, ONE_ON, alone()) == f"kafka: update no ({why})"
    # Before it is started, or the engine might be quicker one day.
    assert text(stack, ONE_ON, alone(State.CREATED)) == f"kafka: update no ({why})"
    # What is off must not come back with the engine either.
    assert text(stack, desire(stack), alone(State.EXITED)) == f"kafka: update no ({why})"
    assert text(stack, desire(stack), alone(State.EXITED, restart="no")) == "nothing to do"
    assert text(stack, desire(stack), alone()) == "kafka: stop (unwanted: main is off)"
    assert text(stack, ONE_ON, alone(restart="no")) == "nothing to do"


def test_several_alterations_are_mended_one_per_pass() -> None:
    both = alone(name="odd", restart="no")
    assert text(ONE, ONE_ON, both).startswith("kafka: rename kafka")
    assert text(ONE, ONE_ON, replace(both, name="kafka")).startswith("kafka: update unless-stopped")


# --- duplicates and remakes cut short (PITFALLS row 6) --------------------------------------------


@pytest.mark.pitfall(6)
def test_of_two_containers_the_one_as_defined_is_kept_and_the_other_stopped_then_removed() -> None:
    old = alone(id="old", name="kafka", config_hash="old")
    new = alone(id="new", name="ab12_kafka")
    running = planned(ONE, ONE_ON, look(ONE, old, new))
    assert str(running) == "kafka: stop (duplicate: kafka is a second container)"
    assert running.steps[0].container == "old"
    ended = planned(ONE, ONE_ON, look(ONE, replace(old, state=State.EXITED), new))
    assert str(ended) == "kafka: remove (duplicate: kafka is a second container)"
    assert text(ONE, ONE_ON, new) == "kafka: rename kafka (altered: was changed by hand: name)"


def test_a_recreation_by_another_process_is_waited_for() -> None:
    just, long_ago = NOW.wall - 1, NOW.wall - 20
    old = alone(id="old", config_hash="old")
    for others in ((old,), (replace(old, state=State.EXITED),), ()):
        new = alone(State.CREATED, id="new", name="ab12_kafka", created_at=just)
        found = planned(ONE, ONE_ON, look(ONE, *others, new))
        assert [v.wait and v.wait.reason for v in found.services.values()] == ["being_remade"]
        assert found.due == NOW.mono + ALONE.stop_grace + 5 - 1
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


def test_of_two_equal_containers_the_one_that_runs_is_kept() -> None:
    stopped = alone(State.EXITED, id="a")
    runs = alone(id="b", name="ab12_kafka")
    found = planned(ONE, ONE_ON, look(ONE, stopped, runs))
    assert [(s.action, s.container) for s in found.steps] == [(Action.REMOVE, "a")]


def test_a_paused_second_container_is_unpaused_so_that_it_can_be_stopped() -> None:
    found = planned(ONE, ONE_ON, look(ONE, alone(id="b"), alone(State.PAUSED, id="a")))
    assert [(s.action, s.container) for s in found.steps] == [(Action.UNPAUSE, "a")]


def test_a_second_container_that_is_being_removed_is_waited_for_not_removed_again() -> None:
    found = text(ONE, ONE_ON, alone(id="a"), alone(State.REMOVING, id="b"))
    assert found == "kafka: waits (removing: waits for the engine to finish removing it)"


def test_the_old_one_of_two_runs_on_until_the_new_one_could_start() -> None:
    old = container(APP, id="old", config_hash="old")
    new = container(APP, State.CREATED, id="new", name="ab12_app")
    waiting = text(TIERS, ON, container(DB, State.EXITED), old, new)
    assert "app: waits (dependency_not_ready: waits for db to be healthy)" in waiting
    ready = text(TIERS, ON, container(DB), old, new)
    assert "app: stop (duplicate: app is a second container)" in ready


def test_when_both_containers_are_dead_both_go() -> None:
    dead = alone(State.DEAD, id="a"), alone(State.DEAD, id="b")
    assert text(ONE, ONE_ON, *dead) == "kafka: remove (stopped: is dead)"


def test_an_orphan_is_listed_and_never_touched() -> None:
    lost = alone(id="lost", service="zoo", name="zoo")
    found = planned(ONE, ONE_ON, look(ONE, alone(), lost))
    assert str(found) == "zoo: orphan zoo"
    assert [d.kind for d in found.drifts] == [DriftKind.ORPHAN]
    assert not found.steps


def test_unmanaged_services_are_never_touched() -> None:
    stack = a_stack({"main": [ALONE]}, service("exporter", "kafka"))
    exporter = container(stack.services["exporter"], State.EXITED, exit_code=1)
    for desired in (desire(stack, "main"), desire(stack)):
        kafka = [alone()] if desired.groups["main"].on else []
        assert text(stack, desired, *kafka, exporter) == "nothing to do"


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
def test_an_image_that_is_not_there_is_fetched_as_compose_says(fields: dict[str, Any], expected: str) -> None:
    stack = a_stack({"main": [service("kafka", **fields)]})
    assert str(planned(stack, ONE_ON, without_image(stack))) == expected


def test_a_container_that_is_there_starts_even_when_its_image_tag_is_gone() -> None:
    found = planned(ONE, ONE_ON, without_image(ONE, alone(State.EXITED)))
    assert str(found) == "kafka: start (stopped: exited with code 0)"


def test_one_image_for_several_services_is_fetched_once() -> None:
    pair = [service("a", image="same"), service("b", image="same")]
    stack = a_stack({"main": pair})
    assert str(planned(stack, desire(stack, "main"), without_image(stack))) == (
        "a: pull (image: the image same is not there and has to be pulled)\n"
        "b: waits (image: waits for the image same)"
    )


def test_a_service_of_a_blocked_or_suspended_group_claims_no_image() -> None:
    groups = {"up": [service("a", image="same")], "down needs off": [service("b", image="same")]}
    stack = a_stack({"off": [service("z")], **groups})
    found = planned(stack, desire(stack, "up", "down"), without_image(stack))
    assert [(s.service, s.action) for s in found.steps] == [("a", Action.PULL)]
    suspended = desire(stack, "up", off=GroupState(on=True, suspend=Suspension()), down=GroupState(on=True))
    assert {s.service for s in planned(stack, suspended, without_image(stack)).steps} == {"a"}


def test_a_missing_image_holds_up_nothing_else() -> None:
    images = {"db:1": "sha-db:1", "app:1": "sha-app:1"}
    found = str(planned(TIERS, ON, look(TIERS, images=images)))
    assert found == (
        "db: create (missing: has no container)\n"
        "app: create (missing: has no container)\n"
        "web: pull (image: the image web:1 is not there and has to be pulled)"
    )


def test_a_name_of_another_container_is_waited_for() -> None:
    taken = look(ONE, foreign={"kafka": "id-foreign"})
    assert str(planned(ONE, ONE_ON, taken)) == (
        "kafka: waits (name_conflict: a container outside this project has the name kafka: "
        "rename or remove it)"
    )
    renamed = look(ONE, alone(name="kafka_old"), foreign={"kafka": "id-foreign"})
    assert "name_conflict" in str(planned(ONE, ONE_ON, renamed))


# --- remakes: never worse than before ---------------------------------------------------------------


def test_what_runs_is_stopped_for_a_remake_only_when_the_image_of_its_successor_is_there() -> None:
    found = planned(ONE, ONE_ON, without_image(ONE, alone(config_hash="old")))
    assert str(found) == "kafka: pull (image: the image kafka:1 is not there and has to be pulled)"
    assert found.services["kafka"].ready


def test_what_runs_is_stopped_for_a_remake_only_when_its_successor_could_start() -> None:
    old = container(APP, config_hash="old")
    assert "app: waits (dependency_not_ready: waits for db to be healthy)" in text(
        TIERS, ON, container(DB, health=Health.STARTING), old
    )
    assert "app: stop (definition: was created from another definition)" in text(
        TIERS, ON, container(DB), old
    )


def test_a_stopped_container_is_remade_without_waiting_for_dependencies() -> None:
    old = container(APP, State.EXITED, config_hash="old")
    assert "app: recreate (definition" in text(TIERS, ON, container(DB, State.EXITED), old)


def test_a_service_and_what_it_depends_on_are_remade_one_after_the_other() -> None:
    old_db, old_app = container(DB, config_hash="old"), container(APP, config_hash="old")
    web = container(WEB)
    assert text(TIERS, ON, old_db, old_app, web) == (
        "db: stop (definition: was created from another definition)\n"
        "app: waits (dependency_not_ready: waits for db to be healthy)"
    )
    assert text(TIERS, ON, container(DB), old_app, web) == (
        "app: stop (definition: was created from another definition)"
    )


def test_a_failed_remake_leaves_the_old_one_running_and_ready() -> None:
    old = look(ONE, alone(config_hash="old"))
    found = planned(ONE, ONE_ON, old, failing(ONE, ONE_ON, "kafka"))
    assert str(found) == "kafka: waits (back_off: tried 2 times: no luck)"
    assert found.services["kafka"].ready
