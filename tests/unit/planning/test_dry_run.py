"""``dry_run``: every step until nothing more happens."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.model.backoff import Failure
from reconciler.model.desired import Desired, GroupState, Suspension
from reconciler.model.ledger import Ledger
from reconciler.model.observed import Action, Container, Health, ObservedState, State
from reconciler.model.stack import Stack
from reconciler.planning.dry_run import dry_run, expected_steps, simulate_settling, simulate_steps
from reconciler.planning.planner import plan
from tests.support.fixtures.builders import NOW, a_stack, container, desire, look, service


def told(stack: Stack, desired: Desired, observed: ObservedState, ledger: Ledger | None = None) -> str:
    steps = expected_steps(stack, desired, observed, ledger or Ledger(), NOW)
    return "\n".join(f"{step.service}: {step.action}" for step in steps)


def test_a_missing_service_is_created_and_started() -> None:
    stack = a_stack({"a": [service("web")]})
    assert told(stack, desire(stack, "a"), look(stack)) == "web: create\nweb: start"


def test_a_settled_stack_has_no_steps() -> None:
    web = service("web", check=True)
    stack = a_stack({"a": [web]})
    assert told(stack, desire(stack, "a"), look(stack, container(web))) == ""


def test_starts_follow_dependencies() -> None:
    stack = a_stack({"a": [service("web", "db:healthy"), service("db", check=True)]})
    assert told(stack, desire(stack, "a"), look(stack)) == ("db: create\nweb: create\ndb: start\nweb: start")


def test_a_whole_group_is_stopped_in_reverse_order() -> None:
    db, web = service("db"), service("web", "db")
    stack = a_stack({"a": [web, db]})
    observed = look(stack, container(db), container(web))
    assert told(stack, desire(stack), observed) == "web: stop\ndb: stop"


def test_a_recreation_is_shown_to_its_end() -> None:
    web = service("web", restart="no")
    stack = a_stack({"a": [web]})
    observed = look(stack, container(web, config_hash="older"))
    assert told(stack, desire(stack, "a"), observed) == "web: stop\nweb: recreate\nweb: start"


def test_a_missing_image_is_pulled_once_for_all_its_users() -> None:
    one, two = service("one", image="both:1"), service("two", image="both:1")
    stack = a_stack({"a": [one, two]})
    steps = told(stack, desire(stack, "a"), ObservedState())
    assert steps.splitlines().count("one: pull") + steps.splitlines().count("two: pull") == 1
    assert "one: start" in steps
    assert "two: start" in steps


def test_dependents_of_a_one_shot_start_after_it_completes() -> None:
    stack = a_stack({"a": [service("web", "migrate:completed"), service("migrate", restart="no")]})
    assert told(stack, desire(stack, "a"), look(stack)) == (
        "migrate: create\nweb: create\nmigrate: start\nweb: start"
    )


def test_a_restart_ends_with_a_start() -> None:
    web, db = service("web", "db"), service("db")
    stack = a_stack({"a": [web, db]})
    desired = desire(stack, a=GroupState(on=True, restarted_at=NOW.wall - 1))
    observed = look(stack, container(db), container(web))
    assert told(stack, desired, observed) == "web: stop\ndb: stop\ndb: start\nweb: start"


def test_time_advances_to_the_end_of_a_back_off() -> None:
    web = service("web")
    stack = a_stack({"a": [web]})
    desired, observed = desire(stack, "a"), look(stack)
    inputs = plan(stack, desired, observed, Ledger(), NOW).services["web"].inputs
    failure = Failure(2, NOW.mono + 100.0, inputs, "step_failed", "port taken", NOW.wall)
    ledger = Ledger(failures={"web": failure})
    assert told(stack, desired, observed, ledger) == "web: create\nweb: start"


def test_suspended_blocked_and_unhealthy_services_stay_as_they_are() -> None:
    held, needy, ill = service("held"), service("needy"), service("ill", check=True)
    stack = a_stack({"a": [held], "b needs c": [needy], "c": [], "d": [ill]})
    desired = desire(stack, "b", "d", a=GroupState(on=True, suspend=Suspension()))
    outlook = dry_run(stack, desired, look(stack, container(ill, health=Health.UNHEALTHY)), Ledger(), NOW)
    left = {name for name, one in outlook.rest.services.items() if one.wait or one.block}
    assert {"held", "needy"} <= left
    assert not any(step.service in {"held", "needy"} for step in outlook.steps)


def test_an_incomplete_observation_has_no_steps() -> None:
    stack = a_stack({"a": [service("web")]})
    assert told(stack, desire(stack, "a"), replace(look(stack), complete=False)) == ""


def test_steps_name_no_simulated_container() -> None:
    stack = a_stack({"a": [service("web")]})
    assert {
        step.container for step in expected_steps(stack, desire(stack, "a"), look(stack), Ledger(), NOW)
    } == {""}


def test_simulating_steps_changes_no_argument() -> None:
    web = service("web")
    stack = a_stack({"a": [web]})
    observed = look(stack, container(web))
    step = expected_steps(stack, desire(stack), observed, Ledger(), NOW)[0]
    assert step.action is Action.STOP
    assert simulate_steps([step], stack, observed, NOW).containers[0].state is State.EXITED
    assert observed.containers[0].state is State.RUNNING


_STATES = st.sampled_from([None, *State])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    states=st.lists(_STATES, min_size=4, max_size=4),
    stale=st.lists(st.booleans(), min_size=4, max_size=4),
    on=st.sets(st.sampled_from(["a", "b"])),
)
def test_after_all_steps_the_plan_has_no_step(
    states: list[State | None], stale: list[bool], on: set[str]
) -> None:
    db = service("db", check=True)
    cache, web = service("cache"), service("web", "db:healthy", "cache", restart="no")
    jobs = service("jobs", "web:restart", check=True)
    stack = a_stack({"a": [db, cache], "b needs a:ready": [web, jobs]})
    made: list[Container] = [
        container(of, state, config_hash="older" if old else of.config_hash)
        for of, state, old in zip((db, cache, web, jobs), states, stale, strict=True)
        if state is not None
    ]
    desired, observed = desire(stack, *on), look(stack, *made)
    outlook = dry_run(stack, desired, observed, Ledger(), NOW)
    # A crash loop and an unknown state need a person; everything else ends as desired.
    mended_by_people = {"crash_looping", "state_unknown"}
    reasons = {n: v.wait or v.block for n, v in outlook.rest.services.items()}
    stuck = {n for n, why in reasons.items() if why and why.reason in mended_by_people}
    assert outlook.rest.steps == ()
    if not stuck and ("b" not in on or "a" in on):
        assert all(one.settled for one in outlook.rest.services.values())


def test_settling_drops_containers_that_are_being_removed() -> None:
    web = service("web")
    stack = a_stack({"a": [web]})
    assert simulate_settling(look(stack, container(web, State.REMOVING)), stack).containers == ()
