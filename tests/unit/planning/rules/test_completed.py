"""One-shots: which exits complete them, and what is remembered when their container is removed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconciler.model.ledger import Ledger
from reconciler.model.observed import Container, HostPath, State
from reconciler.model.stack import Mount, Service
from reconciler.planning.container_state import has_completed, is_one_shot
from reconciler.planning.record_observation import record_observation
from tests.support.fixtures.builders import NOW, a_stack, container, desire, look, planned, service

JOB = service("job", restart="no")


def over(job: Service = JOB, **fields: Any) -> Container:
    return container(job, State.EXITED, **{"started_at": 999_000.0, "finished_at": 999_900.0, **fields})


def after(job: Service, *containers: Container, ledger: Ledger | None = None, **fields: Any) -> Ledger:
    stack = a_stack({"g": [job]})
    observed = look(stack, *containers, **fields)
    return record_observation(stack, desire(stack, "g"), observed, ledger or Ledger(), NOW, chance=0.5)


def text(job: Service, ledger: Ledger, *containers: Container, **fields: Any) -> str:
    stack = a_stack({"g": [job]})
    return str(planned(stack, desire(stack, "g"), look(stack, *containers, **fields), ledger))


@pytest.mark.parametrize(
    ("fields", "one_shot"),
    [
        ({"restart": "no"}, True),
        ({"restart": "no", "publishes": True}, False),
        ({"restart": "no", "kind": "service"}, False),
        ({"restart": "no", "publishes": True, "kind": "job"}, True),
        ({"restart": "on-failure", "kind": "job"}, True),
        ({"restart": "on-failure"}, False),
    ],
)
def test_policy_ports_and_kind_decide_which_services_complete(fields: dict[str, Any], one_shot: bool) -> None:
    job = service("job", **fields)
    assert is_one_shot(a_stack({"g": [job]}), job) is one_shot


@pytest.mark.parametrize(
    ("requested_at", "done"),
    [
        (0.0, True),
        (999_899.0, False),
        (999_900.5, False),  # the engine reports a stop after the end of the process
        (998_000.0, True),  # an earlier run
        (999_100.0, True),  # the process ignored the signal
    ],
)
def test_a_run_that_another_client_stopped_has_not_completed(requested_at: float, done: bool) -> None:
    ended = over(stop_requested_at=requested_at)
    ledger = after(JOB, ended, ledger=Ledger(live={"job": ended.id}))
    assert has_completed(a_stack({"g": [JOB]}), ledger, JOB, ended) is done
    assert ("start" in text(JOB, ledger, ended)) is not done
    # The engine forgets its events, also when it is restarted.
    assert ("start" in text(JOB, after(JOB, over(), ledger=ledger), over())) is not done


def test_a_stop_that_is_reported_late_takes_the_success_back() -> None:
    ledger = after(JOB, over(), ledger=Ledger(live={"job": "id-job"}))
    assert ledger.completed
    ledger = after(JOB, over(stop_requested_at=999_900.5), ledger=ledger)
    assert not ledger.completed
    assert "job: start" in text(JOB, ledger, over(stop_requested_at=999_900.5))


def test_a_completed_one_shot_does_not_run_again_without_its_container() -> None:
    ledger = after(JOB, over())
    assert text(JOB, ledger) == "nothing to do"
    # `docker system prune` removes the image too.
    assert text(JOB, ledger, images={}) == "nothing to do"
    assert "job: create" in text(JOB, Ledger())
    stack = a_stack({"g": [JOB, service("app", "job:completed")]})
    result = planned(stack, desire(stack, "g"), look(stack), ledger)
    assert result.services["job"].done
    assert result.services["job"].drifts == ()
    assert result.services["app"].step


def test_it_stays_done_while_its_group_is_off() -> None:
    stack = a_stack({"g": [JOB]})
    ledger = record_observation(stack, desire(stack), look(stack, over()), Ledger(), NOW, chance=0.5)
    assert text(JOB, ledger) == "nothing to do"


def test_new_inputs_let_it_run_again() -> None:
    mounted = replace(JOB, mounts=(Mount("bind", "/in", "/srv/in"),))
    sources = {"/srv/in": HostPath("file", "one", "1")}
    ledger = after(mounted, over(mounted), sources=sources)
    assert text(mounted, ledger, sources=sources) == "nothing to do"
    changed = {"/srv/in": HostPath("file", "two", "1")}
    assert "job: create" in text(mounted, ledger, sources=changed)
    ledger = after(JOB, over())
    assert "job: create" in text(replace(JOB, definition="other", config_hash="other"), ledger)
    assert "job: create" in text(JOB, ledger, images={"job:1": "sha-other"})


@pytest.mark.parametrize(
    "state", [container(JOB), container(JOB, State.CREATED), over(exit_code=1), over(started_at=0.0)]
)
def test_another_run_replaces_the_success(state: Container) -> None:
    ledger = after(JOB, over())
    assert not after(JOB, state, ledger=ledger).completed


def test_a_removed_service_is_forgotten() -> None:
    ledger = after(JOB, over())
    assert not after(service("other"), ledger=ledger).completed


def test_a_one_shot_whose_container_is_shared_gets_a_container() -> None:
    stack = a_stack({"g": [JOB, service("guest", "job", shares=("job",))]})
    result = planned(stack, desire(stack, "g"), look(stack), after(JOB, over()))
    assert "job: create" in str(result)


def test_the_success_of_another_compose_version_counts() -> None:
    stack = replace(a_stack({"g": [JOB]}), inputs="i", compose="1")
    on = desire(stack, "g")
    ledger = record_observation(stack, on, look(stack, over()), Ledger(), NOW, chance=0.5)
    newer = replace(
        a_stack({"g": [replace(JOB, definition="new", config_hash="new")]}), inputs="i", compose="2"
    )
    ledger = record_observation(newer, on, look(newer), ledger, NOW, chance=0.5)
    assert str(planned(newer, on, look(newer), ledger)) == "nothing to do"
