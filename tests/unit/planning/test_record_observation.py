"""Updates of the ledger from one observation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconciler.model.backoff import Failure
from reconciler.model.desired import Desired
from reconciler.model.ledger import UNKNOWN, BuiltFrom, Clock, Ledger, ReadySince
from reconciler.model.ledger_updates import for_boot
from reconciler.model.observed import LABEL_UNKNOWN, Container, Health, State
from reconciler.model.stack import Stack
from reconciler.planning.container_state import has_completed
from reconciler.planning.record_observation import mark_settled, record_observation
from tests.support.fixtures.builders import NOW, a_stack, container, desire, look, planned, service

A = service("a", check=True)
STACK = a_stack({"g": [A, service("job", restart="no"), service("init"), service("x", "init:completed")]})
ON = desire(STACK, "g")
OFF = desire(STACK)
FAILED = Failure(2, 5.0, "in", "no", "why", 0.0)


def seen(
    *containers: Container,
    ledger: Ledger | None = None,
    desired: Desired = ON,
    stack: Stack = STACK,
    now: Clock = NOW,
    **fields: Any,
) -> Ledger:
    return record_observation(
        stack, desired, look(stack, *containers, **fields), ledger or Ledger(), now, chance=0.5
    )


def ended(name: str, **fields: Any) -> Container:
    return container(STACK.services[name], State.EXITED, finished_at=999_900.0, **fields)


def test_an_incomplete_observation_changes_no_entry() -> None:
    ledger = Ledger(made={"id-a": UNKNOWN})
    assert seen(ledger=ledger, complete=False) is ledger


def test_a_second_equal_observation_changes_nothing() -> None:
    once = seen(container(A), ended("job"), ended("init"))
    assert seen(container(A), ended("job"), ended("init"), ledger=once) == once


def test_a_container_with_an_equal_label_is_adopted() -> None:
    assert seen(container(A)).made["id-a"] == BuiltFrom("def-a", A.fields, "sha-a:1")
    assert seen(container(A, config_hash="old")).made == {}


def test_a_label_that_compose_writes_for_shared_containers_is_adopted() -> None:
    """Issue 13, 4: Compose hashes a container that uses ``service:x`` with an id in place of the name."""
    guest = container(A, config_hash="with an id in it")
    adopted = {"id-a": BuiltFrom("def-a", A.fields, "sha-a:1")}
    assert seen(guest, labels={"id-a": "with an id in it"}).made == adopted
    assert seen(guest, labels={"id-a": LABEL_UNKNOWN}).made == adopted
    assert seen(guest, labels={"id-a": "of another definition"}).made == {}


def test_an_equal_label_overrides_a_digest_of_an_earlier_version() -> None:
    guest = container(A, config_hash="with an id in it")
    before = Ledger(made={"id-a": BuiltFrom("digested differently", {}, "sha-a:1", at=5.0)})
    for label, definition in {"with an id in it": "def-a", LABEL_UNKNOWN: "digested differently"}.items():
        assert seen(guest, ledger=before, labels={"id-a": label}).made["id-a"].definition == definition


def test_the_inputs_of_a_create_step_are_recorded_with_its_container() -> None:
    asked = BuiltFrom("def-a", {"x": "1"}, "sha-a:1", at=NOW.wall)
    ledger = seen(container(A, config_hash="odd", created_at=NOW.wall), ledger=Ledger(making={"a": asked}))
    assert (ledger.made, ledger.making) == ({"id-a": asked}, {})


def test_an_older_container_is_not_the_result_of_a_create_step() -> None:
    asked = BuiltFrom("def-a", {}, "sha-a:1", at=NOW.wall)
    ledger = Ledger(making={"a": asked})
    old = container(A, config_hash="old", created_at=NOW.wall - 60)
    assert seen(old, ledger=ledger).made == {}
    known = replace(ledger, made={"id-a": UNKNOWN})
    assert seen(container(A, created_at=NOW.wall), ledger=known).made == {"id-a": UNKNOWN}


def test_only_networks_that_the_predecessor_lacked_too_are_recorded_as_missing() -> None:
    def of(networks: tuple[str, ...], lacks: tuple[str, ...]) -> tuple[str, ...]:
        ledger = Ledger(making={"a": BuiltFrom("def-a", {}, "", lacks)})
        return seen(container(A, networks=networks), ledger=ledger).made["id-a"].lacks

    assert of((), ("net",)) == ("net",)
    assert of((), ()) == ()
    assert of(("net",), ("net",)) == ()


def test_entries_of_removed_containers_are_dropped() -> None:
    ledger = Ledger(
        made={"id-a": UNKNOWN, "gone": UNKNOWN}, stopped={"gone": 1.0, "id-a": 1.0, "id-job": 999_000.0}
    )
    after = seen(container(A), ended("job"), ledger=ledger)
    assert "gone" not in after.made
    assert after.stopped == {"id-job": 999_000.0}


def test_a_container_that_exits_between_observations_counts_as_exited() -> None:
    live = seen(container(A))
    assert live.live == {"a": "id-a"}
    after = seen(ended("a", exit_code=137, oom_killed=True), ledger=live)
    assert after.live == {}
    assert after.failures["a"].reason == "out_of_memory"
    assert after.exits["a"].code == 137
    assert after.ready == {}


def test_a_container_never_observed_alive_is_no_failure() -> None:
    assert seen(ended("a", exit_code=1)).failures == {}


def test_a_stop_by_the_daemon_is_no_failure() -> None:
    told = replace(seen(container(A)), stopped={"id-a": 999_000.0})
    for code in (0, 137, 143):
        after = seen(ended("a", exit_code=code), ledger=told)
        assert after.failures == after.exits == {}
    # Observing it alive once more while it stops changes nothing.
    again = seen(container(A), ledger=told)
    assert seen(ended("a", exit_code=143), ledger=again).failures == {}


def test_exit_code_0_is_a_failure_of_a_server_and_not_of_a_one_shot() -> None:
    live = Ledger(live={"a": "id-a", "job": "id-job", "init": "id-init"})
    after = seen(ended("a"), ended("job"), ended("init"), ledger=live)
    assert set(after.failures) == {"a"}
    assert after.durations["init"] == (900.0,)
    assert "job" not in after.durations


def test_a_completed_one_shot_drops_its_earlier_failures() -> None:
    ledger = Ledger(live={"job": "id-job"}, failures={"job": FAILED})
    assert seen(ended("job"), ledger=ledger).failures == {}


def test_readiness_counts_from_its_first_observation_and_for_one_start() -> None:
    ready = seen(container(A))
    assert ready.ready["a"] == ReadySince("id-a", 999_000.0, NOW.mono)
    later = Clock(NOW.wall + 5, NOW.mono + 5)
    assert seen(container(A), ledger=ready, now=later).ready["a"].since == NOW.mono
    assert seen(container(A, started_at=2.0), ledger=ready, now=later).ready["a"].since == later.mono
    assert seen(container(A, health=Health.UNHEALTHY), ledger=ready).ready == {}


def test_ten_minutes_of_health_forget_failures() -> None:
    ledger = replace(seen(container(A)), failures={"a": FAILED})
    assert seen(container(A), ledger=ledger, now=Clock(0.0, NOW.mono + 599)).failures
    assert not seen(container(A), ledger=ledger, now=Clock(0.0, NOW.mono + 600)).failures


def test_a_service_without_a_check_is_ready_at_once() -> None:
    assert seen(container(STACK.services["x"])).durations == {"x": (0.0,)}
    assert "init" not in seen(container(STACK.services["init"])).durations


def test_switching_off_forgets_failures() -> None:
    ledger = Ledger(failures={"a": FAILED}, live={"a": "id-a"}, ready={"a": ReadySince("id-a", 1.0, 1.0)})
    after = seen(container(A), ledger=ledger, desired=OFF)
    assert after.failures == after.live == after.ready == {}


def test_a_stop_that_fails_counts_until_the_service_is_down() -> None:
    ledger = Ledger(failures={"a": FAILED._replace(inputs="off")})
    assert seen(container(A), ledger=ledger, desired=OFF).failures
    assert not seen(ended("a"), ledger=ledger, desired=OFF).failures


def test_a_settled_service_is_recorded_once() -> None:
    stack = a_stack({"g": [A]})
    on = desire(stack, "g")
    result = planned(stack, on, look(stack, container(A)))
    settled = mark_settled(Ledger(), result)
    assert settled.settled == {"a": result.services["a"].wants}
    assert mark_settled(settled, result) is settled
    assert mark_settled(Ledger(), planned(stack, on, look(stack))) == Ledger()


@pytest.mark.pitfall(20)
def test_a_one_shot_interrupted_by_a_reboot_is_not_done_whatever_its_exit_code() -> None:
    job = STACK.services["job"]
    running, over = container(job), ended("job")
    here = replace(seen(running), boot="one")
    assert here.at_work == {"id-job": 999_000.0}
    # Only the daemon restarted; the container exited during that time.
    assert has_completed(STACK, seen(over, ledger=for_boot(here, "one")), job, over)
    again = seen(over, ledger=for_boot(here, "two"))
    assert not has_completed(STACK, again, job, over)
    assert "job: start" in str(planned(STACK, ON, look(STACK, over), again))
    # Its next run counts, and so does an earlier exit.
    rerun = replace(over, started_at=999_500.0)
    assert has_completed(STACK, seen(rerun, ledger=again), job, rerun)
    before = for_boot(replace(seen(over, ledger=seen(running)), boot="one"), "two")
    assert has_completed(STACK, seen(over, ledger=before), job, over)
    assert for_boot(Ledger(at_work={"id-job": 1.0}), "first").cut == {}
