"""The decision, told as literal plans: what is seen on the left, what is done about it on the right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from reconciler.backoff import Failure
from reconciler.desired import Desired, GroupState, Suspension
from reconciler.drift import Kind, inputs_of
from reconciler.ledger import Ledger, Made, Now
from reconciler.observed import Action, Container, Health, Observed, State
from reconciler.plan import Plan, plan
from reconciler.stack import Dependency, Stack
from tests.builders import NOW, STARTED, a_stack, container, desire, look, planned, service

DB = service("db", check=True)
APP = service("app", "db:healthy")
WEB = service("web", "app")
TIERS = a_stack({"main": [DB, APP, WEB]})
ON = desire(TIERS, "main")
OFF = desire(TIERS)


def text(stack: Stack, desired: Desired, *containers: Container, ledger: Ledger | None = None) -> str:
    return str(planned(stack, desired, look(stack, *containers), ledger))


def failing(stack: Stack, desired: Desired, name: str, attempts: int = 2, due: float = 1_010.0) -> Ledger:
    """A ledger in which the service failed with the inputs that it has now."""
    state = desired.groups[stack.group_of[name]]
    inputs = inputs_of(stack.services[name], state, look(stack))
    return Ledger(failures={name: Failure(attempts, due, inputs, "step_failed", "no luck", 0.0)})


# --- one service, every kind of drift -----------------------------------------------------------

ALONE = service("kafka")
ONE = a_stack({"main": [ALONE]})
ONE_ON = desire(ONE, "main")


def alone(state: State = State.RUNNING, **fields: Any) -> Container:
    return container(ALONE, state, **fields)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ([], "kafka: create (missing: has no container)"),
        ([alone()], "nothing to do"),
        ([alone(State.CREATED)], "kafka: start (stopped: was made and never started)"),
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
        ([alone(config_hash="old")], "kafka: stop (definition: was made from another definition)"),
        (
            [alone(State.EXITED, config_hash="old")],
            "kafka: recreate (definition: was made from another definition)",
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
        ([], {Kind.MISSING}),
        ([alone(State.EXITED)], {Kind.STOPPED}),
        ([alone(State.PAUSED)], {Kind.PAUSED}),
        ([alone(), alone(id="second")], {Kind.DUPLICATE}),
        ([alone(name="x", restart="no", networks=())], {Kind.ALTERED}),
        ([alone(config_hash="old", image="sha-old")], {Kind.DEFINITION, Kind.IMAGE}),
        ([alone(health=Health.UNHEALTHY)], {Kind.UNHEALTHY}),
        ([alone(State.EXITED, image="sha-old")], {Kind.IMAGE, Kind.STOPPED}),
    ],
)
def test_every_difference_is_named_by_its_kind(seen: list[Container], kinds: set[Kind]) -> None:
    assert {d.kind for d in planned(ONE, ONE_ON, look(ONE, *seen)).drifts} == kinds


def test_what_runs_though_its_group_is_off_is_unwanted() -> None:
    for state in (State.RUNNING, State.RESTARTING):
        found = planned(ONE, desire(ONE), look(ONE, alone(state)))
        assert str(found) == "kafka: stop (unwanted: main is off)"
        assert [d.kind for d in found.drifts] == [Kind.UNWANTED]


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
    ledger = Ledger(made={"id-kafka": Made("old", {"image": "1", "environment.A": "9", "command": "x"}, "")})
    found = planned(ONE, ONE_ON, look(ONE, alone(config_hash="old")), ledger)
    assert str(found) == "kafka: stop (definition: differs in command and environment.A)"
    assert found.drifts[0].fields == ("command", "environment.A")


@pytest.mark.pitfall(4)
def test_a_new_compose_version_that_hashes_the_same_inputs_differently_remakes_nothing() -> None:
    ledger = Ledger(made={"id-kafka": Made("def-kafka", {}, "sha-kafka:1")})
    assert text(ONE, ONE_ON, alone(config_hash="other"), ledger=ledger) == "nothing to do"


@pytest.mark.pitfall(5)
def test_an_image_store_that_shows_another_id_for_the_same_image_remakes_nothing() -> None:
    ledger = Ledger(made={"id-kafka": Made("def-kafka", {}, "sha-kafka:1")})
    assert text(ONE, ONE_ON, alone(image="sha-manifest"), ledger=ledger) == "nothing to do"


@pytest.mark.pitfall(25)
def test_who_can_never_start_is_made_anew_and_his_successor_is_started() -> None:
    known = failing(ONE, ONE_ON, "kafka", due=0.0).failures["kafka"]
    failure = known._replace(reason="network_missing", error="network n not found", container="id-kafka")
    ledger = Ledger(failures={"kafka": failure})
    why = "stopped: can't be started any more: network n not found"
    assert text(ONE, ONE_ON, alone(State.CREATED), ledger=ledger) == f"kafka: recreate ({why})"
    assert text(ONE, ONE_ON, alone(State.EXITED), ledger=ledger) == f"kafka: recreate ({why})"
    assert text(ONE, ONE_ON, alone(State.CREATED, id="next"), ledger=ledger).startswith("kafka: start")


def test_a_network_that_the_container_came_without_is_not_asked_for_again() -> None:
    ledger = Ledger(made={"id-kafka": Made("def-kafka", {}, "", ("net",))})
    assert text(ONE, ONE_ON, alone(networks=()), ledger=ledger) == "nothing to do"


def test_drift_is_pending_until_the_service_once_was_as_wanted() -> None:
    gone = planned(ONE, ONE_ON, look(ONE))
    assert [d.pending for d in gone.drifts] == [True]
    settled = Ledger(settled={"kafka": gone.verdicts["kafka"].wants})
    assert [d.pending for d in planned(ONE, ONE_ON, look(ONE), settled).drifts] == [False]


def test_restart_managed_wants_the_policy_no() -> None:
    stack = replace(ONE, restart="managed")
    why = "altered: has the restart policy unless-stopped, and restarting is ours here"
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


def test_a_remake_by_somebody_else_is_not_meddled_with_for_a_moment() -> None:
    just, long_ago = NOW.wall - 1, NOW.wall - 20
    old = alone(id="old", config_hash="old")
    for others in ((old,), (replace(old, state=State.EXITED),), ()):
        new = alone(State.CREATED, id="new", name="ab12_kafka", created_at=just)
        found = planned(ONE, ONE_ON, look(ONE, *others, new))
        assert [v.wait and v.wait.reason for v in found.verdicts.values()] == ["being_remade"]
        assert found.due == NOW.mono + ALONE.stop_grace + 5 - 1
        assert planned(ONE, ONE_ON, look(ONE, *others, replace(new, created_at=long_ago))).steps
        # One of ours, of which we know that it failed.
        ours = failing(ONE, ONE_ON, "kafka", due=0.0)
        failed = ours.failures["kafka"]._replace(at=NOW.wall)
        assert planned(ONE, ONE_ON, look(ONE, *others, new), replace(ours, failures={"kafka": failed})).steps
        ended = replace(ours, failures={"kafka": failed._replace(reason="exited")})
        assert not planned(ONE, ONE_ON, look(ONE, *others, new), ended).steps
        # Or of which nobody can tell what came of it, as after a crash of ours.
        making = Ledger(making={"kafka": Made("", {}, "", at=just - 1)})
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
    assert [d.kind for d in found.drifts] == [Kind.ORPHAN]
    assert not found.steps


def test_unmanaged_services_are_never_touched() -> None:
    stack = a_stack({"main": [ALONE]}, service("exporter", "kafka"))
    exporter = container(stack.services["exporter"], State.EXITED, exit_code=1)
    for desired in (desire(stack, "main"), desire(stack)):
        kafka = [alone()] if desired.groups["main"].on else []
        assert text(stack, desired, *kafka, exporter) == "nothing to do"


# --- images ---------------------------------------------------------------------------------------


def without_image(stack: Stack, *containers: Container) -> Observed:
    return look(stack, *containers, images={})


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


def test_a_name_that_somebody_else_holds_is_waited_for() -> None:
    taken = look(ONE, foreign={"kafka": "id-foreign"})
    assert str(planned(ONE, ONE_ON, taken)) == (
        "kafka: waits (name_conflict: a container that is not ours holds the name kafka: rename or remove it)"
    )
    renamed = look(ONE, alone(name="kafka_old"), foreign={"kafka": "id-foreign"})
    assert "name_conflict" in str(planned(ONE, ONE_ON, renamed))


# --- remakes: never worse than before ---------------------------------------------------------------


def test_what_runs_is_stopped_for_a_remake_only_when_the_image_of_its_successor_is_there() -> None:
    found = planned(ONE, ONE_ON, without_image(ONE, alone(config_hash="old")))
    assert str(found) == "kafka: pull (image: the image kafka:1 is not there and has to be pulled)"
    assert found.verdicts["kafka"].ready


def test_what_runs_is_stopped_for_a_remake_only_when_its_successor_could_start() -> None:
    old = container(APP, config_hash="old")
    assert "app: waits (dependency_not_ready: waits for db to be healthy)" in text(
        TIERS, ON, container(DB, health=Health.STARTING), old
    )
    assert "app: stop (definition: was made from another definition)" in text(TIERS, ON, container(DB), old)


def test_a_stopped_container_is_remade_without_waiting_for_dependencies() -> None:
    old = container(APP, State.EXITED, config_hash="old")
    assert "app: recreate (definition" in text(TIERS, ON, container(DB, State.EXITED), old)


def test_a_service_and_what_it_depends_on_are_remade_one_after_the_other() -> None:
    old_db, old_app = container(DB, config_hash="old"), container(APP, config_hash="old")
    web = container(WEB)
    assert text(TIERS, ON, old_db, old_app, web) == (
        "db: stop (definition: was made from another definition)\n"
        "app: waits (dependency_not_ready: waits for db to be healthy)"
    )
    assert text(TIERS, ON, container(DB), old_app, web) == (
        "app: stop (definition: was made from another definition)"
    )


def test_a_failed_remake_leaves_the_old_one_running_and_ready() -> None:
    old = look(ONE, alone(config_hash="old"))
    found = planned(ONE, ONE_ON, old, failing(ONE, ONE_ON, "kafka"))
    assert str(found) == "kafka: waits (back_off: tried 2 times: no luck)"
    assert found.verdicts["kafka"].ready


# --- order ------------------------------------------------------------------------------------------


def test_everything_missing_is_created_at_once_ahead_of_being_needed() -> None:
    assert text(TIERS, ON) == (
        "db: create (missing: has no container)\n"
        "app: create (missing: has no container)\n"
        "web: create (missing: has no container)"
    )


def made(stack: Stack, **states: State) -> list[Container]:
    return [container(s, states.get(name, State.CREATED)) for name, s in stack.services.items()]


def test_services_start_when_their_compose_conditions_hold() -> None:
    init = service("init", restart="no")
    stack = a_stack({"main": [init, DB, service("app", "init:completed", "db:healthy"), WEB]})
    on = desire(stack, "main")
    first = text(stack, on, *made(stack))
    assert first == (
        "db: start (stopped: was made and never started)\n"
        "init: start (stopped: was made and never started)\n"
        "app: waits (dependency_not_ready: waits for init to complete)\n"
        "web: waits (dependency_not_ready: waits for app to start)"
    )
    done = container(init, State.EXITED)
    assert "app: waits (dependency_not_ready: waits for db to be healthy)" in text(
        stack,
        on,
        done,
        container(DB, health=Health.STARTING),
        *(c for c in made(stack) if c.service in {"app", "web"}),
    )


def test_condition_started_asks_for_running_and_no_more() -> None:
    starting = container(APP, health=Health.STARTING)
    found = text(TIERS, ON, container(DB), starting, container(WEB, State.CREATED))
    assert "web: start (stopped: was made and never started)" in found


def test_condition_healthy_without_a_check_asks_for_running() -> None:
    stack = a_stack({"main": [service("db"), APP]})
    on = desire(stack, "main")
    assert "waits for db to be running" in text(stack, on, *made(stack))
    assert text(stack, on, container(stack.services["db"]), container(APP, State.CREATED)) == (
        "app: start (stopped: was made and never started)"
    )


def test_the_heaviest_chain_goes_first() -> None:
    stack = a_stack({"main": [service("a"), service("b"), service("c", "b"), service("d", "c")]})
    found = planned(stack, desire(stack, "main"), look(stack, *made(stack)))
    assert [(s.service, s.weight) for s in found.steps] == [("b", 2), ("a", 0)]


def test_a_dependency_that_is_off_is_not_waited_for() -> None:
    stack = a_stack({"main": [service("api", "search:healthy")], "find": [service("search", check=True)]})
    api = container(stack.services["api"], State.CREATED)
    assert text(stack, desire(stack, "main"), api) == "api: start (stopped: was made and never started)"


def test_a_dependency_that_is_unmanaged_is_not_waited_for() -> None:
    stack = a_stack({"main": [service("api", "tempo:healthy")]}, service("tempo", check=True))
    api = container(stack.services["api"], State.CREATED)
    assert text(stack, desire(stack, "main"), api) == "api: start (stopped: was made and never started)"


def test_a_dependency_that_is_not_required_is_waited_for_until_it_fails() -> None:
    api = replace(service("api"), depends_on=(Dependency("db", STARTED, required=False),))
    stack = a_stack({"main": [DB, api]})
    on = desire(stack, "main")
    seen = container(DB, State.EXITED, exit_code=1), container(api, State.CREATED)
    assert "api: waits" in text(stack, on, *seen)
    assert "api: start" in text(stack, on, *seen, ledger=failing(stack, on, "db"))


def test_a_stop_goes_in_reverse_order() -> None:
    up = container(DB), container(APP), container(WEB)
    assert text(TIERS, OFF, *up) == (
        "db: waits (stops_after: stops after app)\n"
        "app: waits (stops_after: stops after web)\n"
        "web: stop (unwanted: main is off)"
    )
    assert text(TIERS, OFF, *up[:2]) == (
        "db: waits (stops_after: stops after app)\napp: stop (unwanted: main is off)"
    )


def test_a_stop_does_not_wait_for_dependents_that_stay_up() -> None:
    stack = a_stack({"base": [DB], "top": [APP]})
    up = container(DB), container(APP)
    assert text(stack, desire(stack, "top"), *up) == "db: stop (unwanted: base is off)"


def test_a_dependent_that_can_not_be_stopped_does_not_keep_the_others_up_for_ever() -> None:
    up = container(DB), container(APP)
    stuck = failing(TIERS, OFF, "app", attempts=3)
    assert text(TIERS, OFF, *up, ledger=stuck) == (
        "db: stop (unwanted: main is off)\napp: waits (back_off: tried 3 times: no luck)"
    )
    still_trying = failing(TIERS, OFF, "app", attempts=2)
    assert "db: waits (stops_after" in text(TIERS, OFF, *up, ledger=still_trying)


STRONG = a_stack({"base": [DB, service("zoo")], "top needs base:ready": [service("api")]})
WEAK = a_stack({"base": [DB, service("zoo")], "top needs base": [service("api")]})


@pytest.mark.parametrize(
    ("stack", "expected"),
    [
        (STRONG, "api: waits (group_not_ready: waits for all of base to be ready)"),
        (WEAK, "api: start (stopped: was made and never started)"),
    ],
)
def test_the_strength_of_a_group_dependency_decides_when_its_services_start(
    stack: Stack, expected: str
) -> None:
    zoo = container(stack.services["zoo"], State.CREATED)
    api = container(stack.services["api"], State.CREATED)
    assert expected in text(stack, desire(stack, "base", "top"), container(DB), zoo, api)


@pytest.mark.parametrize(
    ("stack", "base_waits"),
    [(STRONG, True), (WEAK, False)],
)
def test_the_strength_of_a_group_dependency_decides_what_stops_first(stack: Stack, base_waits: bool) -> None:
    up = [container(s) for s in stack.services.values()]
    found = planned(stack, desire(stack), look(stack, *up))
    assert ("stops after api" in str(found)) is base_waits
    assert ("api", Action.STOP) in {(s.service, s.action) for s in found.steps}


def test_a_finished_one_shot_opens_a_ready_group() -> None:
    init = service("init", restart="no")
    stack = a_stack({"base": [DB, init], "top needs base:ready": [service("api")]})
    api = container(stack.services["api"], State.CREATED)
    seen = container(DB), container(init, State.EXITED), api
    assert text(stack, desire(stack, "base", "top"), *seen).startswith("api: start")


def test_a_group_whose_dependency_is_off_is_left_as_it_is() -> None:
    for stack in (STRONG, WEAK):
        on_top = desire(stack, "top")
        api = stack.services["api"]
        reason = "api: blocked (dependency_off: needs base, which is off)"
        for state in (State.RUNNING, State.EXITED, State.PAUSED, State.DEAD):
            assert text(stack, on_top, container(api, state)) == reason
        assert text(stack, on_top) == reason
        odd = container(api, name="odd", config_hash="old")
        assert text(stack, on_top, odd) == reason


def test_a_blocked_group_names_everything_that_is_off() -> None:
    stack = a_stack({"a": [service("x")], "b": [service("y")], "c needs a, b": [service("z")]})
    assert text(stack, desire(stack, "c")) == "z: blocked (dependency_off: needs a and b, which are off)"


def test_force_lifts_the_dependencies_of_groups_but_not_those_between_services() -> None:
    stack = a_stack({"base": [DB], "top needs base:ready": [service("api"), service("ui", "api")]})
    forced = desire(stack, top=GroupState(on=True, force=True))
    assert text(stack, forced, *made(stack)[1:]) == (
        "api: start (stopped: was made and never started)\n"
        "ui: waits (dependency_not_ready: waits for api to start)"
    )


def test_a_long_chain_starts_link_by_link_and_stops_link_by_link() -> None:
    links = [service("s000")] + [service(f"s{i:03}", f"s{i - 1:03}") for i in range(1, 200)]
    stack = a_stack({"main": links})
    assert len(planned(stack, desire(stack, "main"), look(stack, *made(stack))).steps) == 1
    up = [container(s) for s in links]
    assert [s.service for s in planned(stack, desire(stack), look(stack, *up)).steps] == ["s199"]


# --- suspend ------------------------------------------------------------------------------------------


def test_nothing_of_a_suspended_group_is_touched_and_its_drift_is_shown() -> None:
    hands_off = desire(ONE, main=GroupState(on=True, suspend=Suspension(reason="camera work")))
    for seen in ([], [alone(State.EXITED)], [alone(config_hash="old")], [alone(), alone(id="b")]):
        found = planned(ONE, hands_off, look(ONE, *seen))
        assert str(found) == "kafka: waits (suspended: main is suspended: camera work)"
        assert found.drifts
    off = desire(ONE, main=GroupState(on=False, suspend=Suspension()))
    assert text(ONE, off, alone()) == "kafka: waits (suspended: main is suspended)"


def test_a_suspension_ends_by_itself_and_the_plan_says_when() -> None:
    until = desire(ONE, main=GroupState(on=True, suspend=Suspension(until=NOW.wall + 30)))
    assert planned(ONE, until, look(ONE)).due == NOW.mono + 30
    later = Now(NOW.wall + 30, NOW.mono + 30)
    found = planned(ONE, until, look(ONE), now=later)
    assert str(found) == "kafka: create (missing: has no container)"
    assert found.due is None


def test_a_suspended_group_holds_up_no_stop() -> None:
    stack = a_stack({"base": [DB], "top": [APP]})
    desired = desire(stack, top=GroupState(on=False, suspend=Suspension()))
    assert "db: stop (unwanted: base is off)" in text(stack, desired, container(DB), container(APP))


# --- restarts asked for -----------------------------------------------------------------------------


def restarting(stack: Stack, at: float = NOW.wall) -> Desired:
    return desire(stack, **{name: GroupState(on=True, restarted_at=at) for name in stack.groups})


def test_a_restart_stops_in_reverse_and_starts_in_order() -> None:
    wish = restarting(TIERS)
    db, app, web = container(DB), container(APP), container(WEB)
    ended = State.EXITED
    assert text(TIERS, wish, db, app, web) == (
        "db: waits (stops_after: stops after app)\n"
        "app: waits (stops_after: stops after web)\n"
        "web: stop (restart: a restart was asked for)"
    )
    down = text(TIERS, wish, db, replace(app, state=ended), replace(web, state=ended))
    assert down == (
        "db: stop (restart: a restart was asked for)\n"
        "app: waits (dependency_not_ready: waits for db to be healthy)\n"
        "web: waits (dependency_not_ready: waits for app to start)"
    )
    fresh = container(DB, started_at=NOW.wall)
    assert "app: start" in text(TIERS, wish, fresh, replace(app, state=ended), replace(web, state=ended))


def test_a_service_does_not_start_beside_a_dependency_that_is_about_to_be_stopped() -> None:
    # A dependency with condition service_started runs, but not for long.
    stack = a_stack({"main": [service("zoo"), service("kafka", "zoo")]})
    seen = container(stack.services["zoo"]), container(stack.services["kafka"], State.EXITED)
    assert text(stack, restarting(stack), *seen) == (
        "zoo: stop (restart: a restart was asked for)\n"
        "kafka: waits (dependency_not_ready: waits for zoo to start)"
    )
    remade = container(stack.services["zoo"], config_hash="old"), seen[1]
    assert "kafka: waits" in text(stack, desire(stack, "main"), *remade)


def test_a_restart_is_carried_out_once() -> None:
    wish = restarting(ONE)
    assert text(ONE, wish, alone()) == "kafka: stop (restart: a restart was asked for)"
    assert text(ONE, wish, alone(started_at=NOW.wall)) == "nothing to do"
    skewed = Ledger(restarted={"kafka": NOW.wall})
    assert text(ONE, wish, alone(), ledger=skewed) == "nothing to do"


@pytest.mark.pitfall(36)
def test_a_restart_asked_for_after_the_clock_was_set_back_is_carried_out_too() -> None:
    ahead = alone(started_at=NOW.wall + 3e8)
    wanted = planned(ONE, ONE_ON, look(ONE, ahead)).verdicts["kafka"].wants
    before = Ledger(settled={"kafka": wanted})
    asked = restarting(ONE, NOW.wall - 1)
    assert text(ONE, asked, ahead, ledger=before) == "kafka: stop (restart: a restart was asked for)"
    # One that was carried out long ago, or of which nothing is known, is none.
    settled = Ledger(settled={"kafka": planned(ONE, asked, look(ONE, ahead)).verdicts["kafka"].wants})
    assert text(ONE, asked, ahead, ledger=settled) == "nothing to do"
    assert text(ONE, asked, ahead) == "nothing to do"
    done = replace(before, restarted={"kafka": NOW.wall - 1})
    assert text(ONE, asked, ahead, ledger=done) == "nothing to do"


def test_a_restart_in_the_future_is_not_acted_on_but_due() -> None:
    wish = restarting(ONE, NOW.wall + 60)
    found = planned(ONE, wish, look(ONE, alone()))
    assert str(found) == "nothing to do"
    assert found.due == NOW.mono + 60


def test_a_restart_of_a_container_that_crash_loops_does_not_wait_for_it_for_ever() -> None:
    stack = a_stack({"main": [service("db"), service("app", "db")]})
    up = container(stack.services["db"]), container(stack.services["app"], State.RESTARTING)
    assert text(stack, restarting(stack), *up) == (
        "db: waits (stops_after: stops after app)\napp: stop (restart: a restart was asked for)"
    )


def test_a_restart_together_with_a_new_definition_is_no_deadlock() -> None:
    up = container(DB), container(APP, config_hash="old"), container(WEB)
    first = text(TIERS, restarting(TIERS), *up)
    assert "web: stop (restart" in first
    second = text(TIERS, restarting(TIERS), *up[:2], container(WEB, State.EXITED))
    assert "app: stop (restart: a restart was asked for)" in second
    third = text(TIERS, restarting(TIERS), up[0], replace(up[1], state=State.EXITED))
    assert "db: stop (restart" in third
    assert "app: recreate (definition" in third


def test_a_restart_with_a_definition_whose_image_is_not_there_holds_up_no_other_restart() -> None:
    observed = look(TIERS, container(DB), container(APP, config_hash="old"), images={"db:1": "sha-db:1"})
    found = str(planned(TIERS, restarting(TIERS), observed))
    assert "app: pull" in found
    assert "db: stop (restart: a restart was asked for)" in found


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


# --- one-shots ----------------------------------------------------------------------------------------

INIT = service("init", restart="no")
MIGRATION = service("migration")
WITH_INIT = a_stack({"main": [INIT, MIGRATION, service("app", "migration:completed")]})
INIT_ON = desire(WITH_INIT, "main")
DONE = [container(s, State.EXITED) for s in (INIT, MIGRATION)]


def test_a_one_shot_that_ended_well_is_done_and_not_drift() -> None:
    found = planned(WITH_INIT, INIT_ON, look(WITH_INIT, *DONE, container(WITH_INIT.services["app"])))
    assert str(found) == "nothing to do"
    assert found.drifts == ()
    assert found.verdicts["init"].done
    assert found.verdicts["migration"].settled


def test_a_one_shot_that_failed_is_started_again() -> None:
    for one in (INIT, MIGRATION):
        seen = [c for c in DONE if c.service != one.name] + [container(one, State.EXITED, exit_code=1)]
        assert f"{one.name}: start (stopped: exited with code 1)" in text(WITH_INIT, INIT_ON, *seen)


def test_a_one_shot_that_others_wait_for_is_not_settled_while_it_runs() -> None:
    app = container(WITH_INIT.services["app"], State.CREATED)
    found = planned(WITH_INIT, INIT_ON, look(WITH_INIT, DONE[0], container(MIGRATION), app))
    assert str(found) == (
        "migration: waits (completing: runs until it has done its work)\n"
        "app: waits (dependency_not_ready: waits for migration to complete)"
    )
    assert not found.verdicts["migration"].ready


def test_a_one_shot_never_started_is_not_done() -> None:
    assert "init: start" in text(WITH_INIT, INIT_ON, container(INIT, State.CREATED))


def test_a_service_without_a_restart_policy_that_we_stopped_is_started_again() -> None:
    # Many a server ends with code 0 when told to: that is not a one-shot's success.
    stack = a_stack({"main": [service("db", restart="no")]})
    ended = container(stack.services["db"], State.EXITED)
    ledger = Ledger(stopped={ended.id: ended.started_at})
    on = desire(stack, "main")
    assert text(stack, on, ended, ledger=ledger) == "db: start (stopped: exited with code 0)"
    again = replace(ended, started_at=ended.started_at + 1)
    assert text(stack, on, again, ledger=ledger) == "nothing to do"


def test_what_somebody_needs_to_be_healthy_is_no_one_shot_whatever_its_restart_policy() -> None:
    stack = a_stack({"main": [service("db", restart="no"), APP]})
    ended = container(stack.services["db"], State.EXITED)
    assert "db: start" in text(stack, desire(stack, "main"), ended, container(APP))


def test_a_one_shot_with_a_new_definition_runs_again_before_what_waits_for_it() -> None:
    old = container(MIGRATION, State.EXITED, config_hash="old")
    app = container(WITH_INIT.services["app"], State.EXITED)
    assert text(WITH_INIT, INIT_ON, DONE[0], old, app) == (
        "migration: recreate (definition: was made from another definition)\n"
        "app: waits (dependency_not_ready: waits for migration to complete)"
    )


def test_who_needs_a_finished_one_shot_to_be_healthy_is_told_that_it_will_not_be() -> None:
    other = service("other", "init:completed")
    stack = a_stack({"main": [INIT, service("app", "init:healthy"), other]})
    app = container(stack.services["app"], State.CREATED)
    assert text(stack, desire(stack, "main"), DONE[0], app, container(other)) == (
        "app: waits (dependency_ended: needs init to be healthy, but it did its work and ended)"
    )


def test_a_finished_one_shot_is_not_restarted() -> None:
    app = container(WITH_INIT.services["app"], started_at=NOW.wall)
    assert text(WITH_INIT, restarting(WITH_INIT), *DONE, app) == "nothing to do"


# --- waiting ------------------------------------------------------------------------------------------


def test_a_service_that_failed_is_tried_again_only_when_its_time_has_come() -> None:
    ledger = failing(ONE, ONE_ON, "kafka", attempts=1, due=NOW.mono + 5)
    found = planned(ONE, ONE_ON, look(ONE), ledger)
    assert str(found) == "kafka: waits (back_off: tried 1 time: no luck)"
    assert found.due == NOW.mono + 5
    later = Now(NOW.wall + 5, NOW.mono + 5)
    assert str(planned(ONE, ONE_ON, look(ONE), ledger, later)) == "kafka: create (missing: has no container)"


@pytest.mark.parametrize(
    "change",
    [
        lambda s, d, o: (a_stack({"main": [service("kafka", definition="new")]}), d, o),
        lambda s, d, o: (s, desire(s, main=GroupState(on=True, restarted_at=1.0)), o),
        lambda s, d, o: (s, d, replace(o, images={"kafka:1": "sha-new"})),
    ],
)
def test_a_change_of_its_inputs_ends_the_back_off(change: Callable[..., Any]) -> None:
    ledger = failing(ONE, ONE_ON, "kafka", due=NOW.mono + 300)
    assert not planned(ONE, ONE_ON, look(ONE), ledger).steps
    assert planned(*change(ONE, ONE_ON, look(ONE)), ledger).steps


def test_one_failing_service_delays_only_those_that_need_it() -> None:
    stack = a_stack({"main": [DB, APP, service("other")]})
    on = desire(stack, "main")
    found = text(stack, on, *made(stack), ledger=failing(stack, on, "db"))
    assert "db: waits (back_off" in found
    assert "app: waits (dependency_not_ready" in found
    assert "other: start" in found


def test_an_incomplete_look_leads_to_nothing() -> None:
    found = planned(TIERS, OFF, look(TIERS, container(DB), complete=False))
    assert found == Plan(complete=False)
    assert str(found) == "nothing: the look at the engine was incomplete"
    assert found.steps == found.drifts == ()


def test_the_earliest_of_several_moments_is_due() -> None:
    stack = a_stack({"a": [service("x")], "b": [service("y")], "c": [service("z")]})
    desired = desire(
        stack,
        a=GroupState(on=True, suspend=Suspension(until=NOW.wall + 50)),
        b=GroupState(on=True, restarted_at=NOW.wall + 40),
        c=GroupState(on=True),
    )
    seen = [container(s) for s in stack.services.values()]
    assert planned(stack, desired, look(stack, *seen)).due == NOW.mono + 40


def test_every_step_carries_what_the_engine_needs() -> None:
    slow = service("db", stop_grace=90.0)
    stack = a_stack({"main": [slow]})
    (step,) = plan(stack, desire(stack), look(stack, container(slow)), Ledger(), NOW).steps
    command = step.command()
    assert (command.action, command.services, command.container) == (Action.STOP, ("db",), "id-db")
    assert command.grace == 90.0
