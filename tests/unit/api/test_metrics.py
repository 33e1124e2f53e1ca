"""Metrics: names, counters, gauges, and access on both addresses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from api.metrics.registry import Metrics, metrics_app
from reconciler.auth.keys import KeyRing
from reconciler.controller.snapshot import Snapshot, SnapshotPublisher
from reconciler.errors import EngineUnavailable, Mistake, StepFailed
from reconciler.model.desired import GroupState, Suspension
from reconciler.model.observed import Action, State, Usage
from reconciler.planning.plan_types import Step
from tests.support.fixtures.api import WALL, a_snapshot, a_world, desired, running

ON = desired(kafka=True)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Meter:
    """Metrics over snapshots of the test; ``value`` reads the text as Prometheus does."""

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        self.snapshots = SnapshotPublisher()
        self.timer = Clock()
        self.metrics = Metrics(self.snapshots, clock=lambda: WALL, timer=self.timer)
        if snapshot is not None:
            self.snapshots.publish(snapshot)

    @property
    def counters(self) -> Any:
        return self.metrics.counters

    def value(self, name: str, **labels: str) -> float | None:
        self.timer.now += 1.0
        return values(self.metrics.render("")[0].decode()).get((name, frozenset(labels.items())))


def values(text: str) -> Mapping[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def step(service: str = "kafka", action: Action = Action.START) -> Step:
    return Step(service=service, action=action, container=f"id-{service}", cause="stopped", why="it stopped")


# --- what holds now ------------------------------------------------------------------------------------


def test_gauges_describe_the_whole_stack() -> None:
    use = {"id-kafka": Usage(600_000_000, 25.0), "id-zookeeper": Usage(84_000_000, 5.0)}
    meter = Meter(a_snapshot(ON, running("kafka"), running("zookeeper"), usage=use))
    p = "service_manager_"
    assert meter.value(p + "converged") == 1
    assert meter.value(p + "engine_reachable") == 1
    assert meter.value(p + "desired_state_valid") == 1
    assert (meter.value(p + "generation"), meter.value(p + "observed_generation")) == (1, 0)
    assert meter.value(p + "group_desired", group="kafka") == 1
    assert meter.value(p + "group_ready", group="kafka") == 1
    assert meter.value(p + "group_ready", group="storage") == 0
    assert meter.value(p + "services_running", group="kafka") == 2
    assert meter.value(p + "services_expected", group="kafka") == 2
    assert meter.value(p + "services_expected", group="storage") == 0
    assert meter.value(p + "group_memory_bytes", group="kafka") == 684_000_000
    assert meter.value(p + "group_memory_estimate_bytes", group="kafka") == 700_000_000
    assert meter.value(p + "group_cpu_ratio", group="kafka") == 0.3
    assert meter.value(p + "service_memory_bytes", group="kafka", service="kafka") == 600_000_000
    assert meter.value(p + "service_cpu_ratio", group="kafka", service="kafka") == 0.25
    assert meter.value(p + "pilot_ready") == 1


def test_usage_without_a_sample_has_no_series() -> None:
    meter = Meter(a_snapshot(ON, running("kafka")))
    assert meter.value("service_manager_service_memory_bytes", group="kafka", service="kafka") is None


def test_drift_is_counted_by_kind_apart_from_pending_changes() -> None:
    meter = Meter(a_snapshot(ON, running("kafka"), running("loki")))
    assert meter.value("service_manager_drift", kind="missing", pending="true") == 1
    assert meter.value("service_manager_drift", kind="unwanted", pending="true") == 1
    assert meter.value("service_manager_drift", kind="unwanted", pending="false") == 0


def test_invalid_files_and_suspensions_are_gauges() -> None:
    held = desired(2, kafka=GroupState(on=True, suspend=Suspension()))
    broken = (Mistake("groups.yaml", 3, 1, "what is that?"),)
    meter = Meter(a_snapshot(held, running("kafka"), errors=broken))
    assert meter.value("service_manager_desired_state_valid") == 0
    assert meter.value("service_manager_desired_state_errors") == 1
    assert meter.value("service_manager_group_phase", group="kafka", phase="suspended") == 1
    assert meter.value("service_manager_group_phase", group="kafka", phase="converged") == 0


def test_labels_escape_any_name() -> None:
    # Names come from files and may contain any character.
    meter = Meter(a_snapshot(ON, running("kafka")))
    meter.counters.on_request("GET", 'a"b\\c\nd', 200, 0.1)
    assert (
        meter.value("service_manager_http_requests_total", method="GET", route='a"b\\c\nd', status="200") == 1
    )


# --- what is counted -----------------------------------------------------------------------------------


def test_passes_are_counted_by_outcome() -> None:
    meter = Meter(a_snapshot(ON))
    name = "service_manager_reconciles_total"
    assert meter.value(name, outcome="acting") == 0
    meter.counters.on_pass(0.004, "acting")
    meter.counters.on_pass(2.0, "unreachable")
    assert meter.value(name, outcome="acting") == 1
    assert meter.value(name, outcome="unreachable") == 1
    assert meter.value("service_manager_reconcile_duration_seconds_count") == 2
    assert meter.value("service_manager_reconcile_duration_seconds_bucket", le="0.005") == 1
    assert meter.value("service_manager_last_look_timestamp_seconds") == WALL


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(None, "succeeded"), (StepFailed("no"), "failed"), (EngineUnavailable("gone"), "unknown")],
)
def test_actions_are_counted_by_outcome_and_timed(error: Any, outcome: str) -> None:
    meter = Meter(a_snapshot(ON, running("kafka")))
    meter.counters.on_step(step(), None, False)
    meter.timer.now += 3.0
    meter.counters.on_step(step(), error, True)
    assert meter.value("service_manager_actions_total", action="start", outcome=outcome) == 1
    labels = {"action": "start", "outcome": outcome}
    assert meter.value("service_manager_action_duration_seconds_sum", **labels) == pytest.approx(3.0)


def test_retry_is_an_action_sent_again_after_a_failure() -> None:
    meter = Meter(a_snapshot(ON, running("kafka")))
    for _ in range(3):
        meter.counters.on_step(step(), None, False)
        meter.counters.on_step(step(), StepFailed("no"), True)
    meter.counters.on_step(step(), None, False)
    meter.counters.on_step(step(), None, True)
    meter.counters.on_step(step(), None, False)
    assert meter.value("service_manager_retries_total", group="kafka", service="kafka") == 3


def test_counters_of_a_removed_service_vanish_unless_they_counted() -> None:
    snapshot = a_snapshot(ON, running("kafka"))
    meter = Meter(snapshot)
    meter.counters.on_step(step(), None, False)
    meter.counters.on_step(step(), StepFailed("no"), True)
    meter.counters.on_step(step(), None, False)
    name = "service_manager_retries_total"
    assert meter.value(name, group="kafka", service="zookeeper") == 0
    meter.snapshots.publish(replace(snapshot, groups={}))
    assert meter.value(name, group="kafka", service="zookeeper") is None
    assert meter.value(name, group="kafka", service="kafka") == 1
    meter.snapshots.publish(snapshot)
    assert meter.value(name, group="kafka", service="zookeeper") == 0


def test_times_of_creation_are_no_series() -> None:
    meter = Meter(a_snapshot(ON, running("kafka")))
    meter.counters.on_pass(0.004, "acting")
    assert "_created" not in meter.metrics.render("application/openmetrics-text; version=1.0.0")[0].decode()


def test_repair_counts_once_when_it_is_done() -> None:
    stopped = replace(running("kafka"), state=State.EXITED)
    drifted = a_snapshot(ON, stopped, running("zookeeper"))
    view = drifted.groups["kafka"]
    services = tuple(replace(s, drift=("stopped",)) if s.name == "kafka" else s for s in view.services)
    drifted = replace(
        drifted, groups={**drifted.groups, "kafka": replace(view, services=services)}, drifts=()
    )
    meter = Meter(drifted)
    labels = {"group": "kafka", "service": "kafka", "kind": "stopped"}
    assert meter.value("service_manager_repairs_total", **labels) == 0
    meter.counters.on_step(step(), None, False)
    meter.counters.on_pass(0.01, "acting")
    meter.counters.on_step(step(), None, True)
    assert meter.value("service_manager_repairs_total", **labels) == 0
    meter.snapshots.publish(a_snapshot(ON, running("kafka"), running("zookeeper")))
    meter.counters.on_pass(0.01, "idle")
    assert meter.value("service_manager_repairs_total", **labels) == 1
    meter.counters.on_pass(0.01, "idle")
    assert meter.value("service_manager_repairs_total", **labels) == 1


# --- over HTTP -----------------------------------------------------------------------------------------


async def test_requests_are_counted_by_route_never_by_address() -> None:
    async with a_world(ON, metrics=True) as world:
        for path in ("/services/status/kafka", "/services/status/storage", "/services/status/nope", "/x/y"):
            await world.client.get(path)
        await world.client.get("/services/groups", headers={"host": "evil.example"})
        found = values((await world.client.get("/metrics")).text)
    counted = {
        labels: value for (name, labels), value in found.items() if name.endswith("http_requests_total")
    }
    by_route = {(dict(k)["route"], dict(k)["status"]): v for k, v in counted.items()}
    assert by_route == {
        ("/services/status/{group}", "200"): 2,
        ("/services/status/{group}", "404"): 1,
        ("none", "404"): 1,
        ("none", "421"): 1,
    }


async def test_both_formats_of_prometheus_are_served() -> None:
    async with a_world(ON, running("kafka"), metrics=True) as world:
        plain = await world.client.get("/metrics")
        modern = await world.client.get(
            "/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"}
        )
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert modern.headers["content-type"].startswith("application/openmetrics-text")
    assert modern.text.endswith("# EOF\n")
    names = {family.name for family in parse_openmetrics(modern.text)}
    assert {"service_manager_repairs", "service_manager_converged"} <= names


async def test_with_keys_set_metrics_need_one_but_not_on_their_own_address(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path, environment="environment-key")
    async with a_world(ON, metrics=True, keys=ring) as world:
        assert (await world.client.get("/metrics")).status_code == 401
        good = await world.client.get("/metrics", headers={"authorization": "Bearer environment-key"})
        assert good.status_code == 200


async def test_the_second_address_serves_metrics_and_nothing_else() -> None:
    meter = Meter(a_snapshot(ON))
    transport = httpx.ASGITransport(app=metrics_app(meter.metrics))
    async with httpx.AsyncClient(transport=transport, base_url="http://172.17.0.1:8001") as client:
        found = await client.get("/metrics")
        assert (found.status_code, "service_manager_converged" in found.text) == (200, True)
        assert found.headers["x-content-type-options"] == "nosniff"
        for path in ("/", "/services/status", "/healthz", "/metrics/", "/docs", "/openapi.json"):
            assert (await client.get(path)).status_code == 404
        assert (await client.post("/services/stop/kafka")).status_code == 404
        assert (await client.post("/metrics")).status_code == 405


def test_text_is_rendered_at_most_once_a_second() -> None:
    meter = Meter(a_snapshot(ON))
    first, _ = meter.metrics.render("")
    meter.counters.on_pass(0.1, "idle")
    assert meter.metrics.render("")[0] is first
    meter.timer.now += 1.0
    assert meter.metrics.render("")[0] != first
