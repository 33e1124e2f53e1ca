"""Reading endpoints: field names, units and times, also without an engine."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from api.app import close_streams
from api.context import Settings
from reconciler.controller.progress import Progress
from reconciler.controller.snapshot import EngineView
from reconciler.errors import InvalidDesiredState, Mistake
from reconciler.generations.preview import PreviewResult
from reconciler.model.observed import Health, State, Usage
from tests.support.fixtures.api import WALL, a_snapshot, a_step, a_world, desired, run_other_tasks, running

UP = (running("zookeeper"), running("kafka"))


async def test_status_has_the_fields_of_the_contract() -> None:
    async with a_world(desired(3, kafka=True), *UP) as world:
        answer = await world.client.get("/services/status")
    found = answer.json()
    assert answer.status_code == 200
    assert found["timestamp"] == "2026-11-24T06:00:00Z"
    assert (found["total_services"], found["running_services"]) == (5, 2)
    assert found["pilot_ready"] is True
    assert (found["generation"], found["observed_generation"], found["converged"]) == (3, 2, True)
    assert found["engine"] == {
        "kind": "docker",
        "version": "26.1",
        "compose": "2.40.3",
        "memory_mb": None,
        "reachable": True,
        "since": "2026-11-24T05:45:00.400Z",
        "error": None,
    }
    assert found["progress"]["generation"] == 3
    assert found["errors"] == found["warnings"] == []
    assert list(found["groups"]) == ["kafka", "storage", "analytics", "monitoring"]
    assert [service["name"] for service in found["unmanaged"]] == ["tempo"]


async def test_memory_is_in_millions_of_bytes_and_uptime_in_seconds() -> None:
    usage = {"id-kafka": Usage(612_340_000, 12.34), "id-zookeeper": Usage(84_000_000, 0.5)}
    snapshot = a_snapshot(desired(kafka=True), *UP, usage=usage)
    async with a_world(snapshot=snapshot) as world:
        found = (await world.client.get("/services/status/kafka")).json()
        whole = (await world.client.get("/services/status")).json()
    assert found["group"] == "kafka"
    assert (found["status"], found["desired"], found["phase"]) == ("running", "on", "converged")
    assert (found["running_count"], found["total_count"]) == (2, 2)
    assert (found["total_memory_mb"], found["estimated_memory_mb"]) == (696.3, 700.0)
    assert whole["total_memory_mb"] == 696.3
    kafka = found["services"][1]
    assert (kafka["memory_mb"], kafka["cpu_percent"], kafka["uptime"]) == (612.3, 12.3, 100)
    assert (kafka["container"], kafka["status"], kafka["health"]) == ("alpr-kafka", "running", "healthy")
    assert (kafka["ports"], kafka["restart_count"], kafka["drift"]) == (["9092:9092"], 0, [])
    assert kafka["last_error"] is None


async def test_an_absent_container_has_no_uptime_and_no_memory() -> None:
    async with a_world(desired(kafka=True), UP[0]) as world:
        found = (await world.client.get("/services/status/kafka")).json()
    assert found["status"] == "partial"
    kafka = found["services"][1]
    assert (kafka["status"], kafka["uptime"], kafka["memory_mb"], kafka["started_at"]) == (
        "absent",
        None,
        None,
        None,
    )


async def test_uptime_and_timestamp_change_without_a_new_snapshot() -> None:
    now = WALL
    async with a_world(desired(kafka=True), *UP, settings=Settings(clock=lambda: now)) as world:
        first = (await world.client.get("/services/status")).json()
        now += 60
        second = (await world.client.get("/services/status")).json()
    ages = [found["groups"]["kafka"]["services"][0]["uptime"] for found in (first, second)]
    assert ages == [99, 159]  # as of whole seconds, so that all readers within one get the same bytes
    assert second["timestamp"] == "2026-11-24T06:01:00Z"


async def test_a_clock_set_back_shows_no_negative_uptime() -> None:
    async with a_world(desired(kafka=True), *UP, settings=Settings(clock=lambda: WALL - 1e6)) as world:
        found = (await world.client.get("/services/status/kafka")).json()
    assert found["services"][0]["uptime"] == 0


async def test_reads_answer_without_an_engine() -> None:
    gone = EngineView(kind="docker", reachable=False, since=WALL, error="connection refused")
    async with a_world(snapshot=a_snapshot(desired(kafka=True), engine=gone)) as world:
        for path in ("status", "status/kafka", "groups", "plan", "drift", "progress/1"):
            assert (await world.client.get(f"/services/{path}")).status_code == 200
        found = (await world.client.get("/services/status")).json()
    assert found["engine"]["reachable"] is False
    assert found["engine"]["error"] == "connection refused"
    assert found["converged"] is False


async def test_mistakes_in_the_files_are_shown() -> None:
    mistake = Mistake("groups.yaml", 3, 10, "'onn' is neither on nor off")
    async with a_world(snapshot=a_snapshot(desired(), errors=(mistake,))) as world:
        found = (await world.client.get("/services/status")).json()
        ready = await world.client.get("/readyz")
    expected = {"path": "groups.yaml", "line": 3, "column": 10, "message": "'onn' is neither on nor off"}
    assert found["errors"] == [expected]
    assert ready.status_code == 503
    assert ready.json()["reason"] == "desired_state_invalid"
    assert ready.json()["errors"] == [expected]


async def test_text_from_a_container_can_not_break_the_response() -> None:
    broken = replace(running("kafka"), name='al"pr\udcff\n\u2028kafka')
    async with a_world(desired(kafka=True), broken) as world:
        found = (await world.client.get("/services/status/kafka")).json()
    assert found["services"][1]["container"] == 'al"pr?\n\u2028kafka'


async def test_groups_lists_the_groups_of_the_files() -> None:
    async with a_world() as world:
        found = (await world.client.get("/services/groups")).json()["groups"]
    assert found["kafka"] == {
        "services": ["zookeeper", "kafka"],
        "estimated_ram_mb": 700.0,
        "dependencies": [],
        "dependency_strengths": {},
        "dependents": ["storage"],
        "description": "Events",
    }
    assert found["analytics"]["dependency_strengths"] == {"storage": "ready"}


async def test_plan_lists_steps_and_waiting_services() -> None:
    async with a_world(desired(kafka=True, analytics=True)) as world:
        found = (await world.client.get("/services/plan")).json()
    assert [(s["service"], s["action"], s["reason"]) for s in found["steps"]] == [
        ("zookeeper", "create", "missing"),
        ("kafka", "create", "missing"),
    ]
    assert [(w["service"], w["phase"], w["reason"]) for w in found["waiting"]] == [
        ("metabase", "blocked", "dependency_off")
    ]
    assert "zookeeper: create" in found["text"]


async def test_drift_marks_pending_changes() -> None:
    paused = replace(running("kafka"), state=State.PAUSED)
    async with a_world(desired(kafka=True), running("zookeeper"), paused, running("loki")) as world:
        found = (await world.client.get("/services/drift")).json()
    assert found["by_kind"] == {"paused": 1, "unwanted": 1}
    assert {(d["service"], d["group"], d["kind"], d["pending"]) for d in found["drift"]} == {
        ("loki", "monitoring", "unwanted", True),
        ("kafka", "kafka", "paused", True),
    }


async def test_without_a_previewer_there_is_no_endpoint() -> None:
    async with a_world() as world:
        assert (await world.client.post("/services/plan", json={})).status_code == 405

    async def preview(state: object) -> PreviewResult:
        if state != {"groups": {"kafka": "on"}}:
            raise InvalidDesiredState((Mistake("groups.yaml", 0, 0, "no such group"),))
        return PreviewResult()

    async with a_world(preview=preview) as world:
        good = await world.client.post("/services/plan", json={"groups": {"kafka": "on"}})
        bad = await world.client.post("/services/plan", json={"groups": {"kafak": "on"}})
        worse = await world.client.post("/services/plan", json=[1])
    assert good.json()["text"] == "nothing to do"
    assert (bad.status_code, bad.json()["errors"][0]["message"]) == (422, "no such group")
    assert worse.status_code == 422


async def test_progress_lists_each_step() -> None:
    progress = Progress(
        generation=1, done=1, total=2, expected_at=WALL + 6, steps=(a_step("kafka", "failed", "no image"),)
    )
    async with a_world(snapshot=a_snapshot(desired(kafka=True), progress=progress)) as world:
        found = (await world.client.get("/services/progress/1")).json()
    assert (found["state"], found["done"], found["total"], found["percent"]) == ("progressing", 1, 2, 50)
    assert found["expected_at"] == "2026-11-24T06:00:06.400Z"
    assert found["steps"] == [
        {
            "service": "kafka",
            "action": "start",
            "state": "failed",
            "attempts": 1,
            "error": "no image",
            "reason": "stopped",
            "started_at": "2026-11-24T06:00:00.400Z",
            "finished_at": None,
        }
    ]


async def test_an_older_generation_in_progress_is_superseded() -> None:
    async with a_world(desired(1, kafka=True)) as world:
        world.snapshots.publish(a_snapshot(desired(2)))
        found = (await world.client.get("/services/progress/1")).json()
    assert (found["state"], found["percent"]) == ("superseded", 100)


async def test_an_unknown_generation_is_not_found() -> None:
    async with a_world() as world:
        for generation, status in (("99", 404), ("99999999999999999999999", 404), ("-1", 422), ("x", 422)):
            assert (await world.client.get(f"/services/progress/{generation}")).status_code == status


async def test_waiting_ends_with_the_generation() -> None:
    async with a_world(desired(kafka=True)) as world:
        request = asyncio.create_task(world.client.get("/services/progress/1?wait=60"))
        await run_other_tasks()
        half = Progress(generation=1, state="progressing", done=1, total=2)
        world.snapshots.publish(a_snapshot(desired(kafka=True), progress=half))
        done = Progress(generation=1, state="converged", done=2, total=2, ended_at=WALL)
        world.snapshots.publish(a_snapshot(desired(kafka=True), progress=done))
        found = (await request).json()
    assert (found["state"], found["percent"]) == ("converged", 100)


async def test_waiting_ends_at_the_timeout_or_at_shutdown() -> None:
    async with a_world(desired(kafka=True)) as world:
        short = await world.client.get("/services/progress/1?wait=0.01")
        request = asyncio.create_task(world.client.get("/services/progress/1?wait=600"))
        await run_other_tasks()
        close_streams(world.app)
        long = await request
        ready = await world.client.get("/readyz")
    assert short.json()["state"] == long.json()["state"] == "progressing"
    assert ready.json()["reason"] == "going_down"


@pytest.mark.parametrize("wait", ["601", "-1", "nan", "inf", "soon", ""])
async def test_an_invalid_wait_is_refused(wait: str) -> None:
    async with a_world() as world:
        assert (await world.client.get(f"/services/progress/1?wait={wait}")).status_code == 422


async def test_liveness_depends_on_no_state() -> None:
    gone = EngineView(kind="docker", reachable=False, since=WALL, error="connection refused")
    async with a_world(snapshot=a_snapshot(desired(), engine=gone)) as world:
        alive = await world.client.get("/healthz")
        ready = await world.client.get("/readyz")
    assert (alive.status_code, alive.json()["status"]) == (200, "ok")
    assert (ready.status_code, ready.json()["reason"]) == (503, "engine_unreachable")


async def test_ready_when_fresh_and_valid() -> None:
    async with a_world(settings=Settings(clock=lambda: WALL, age=lambda: 10.0)) as world:
        assert (await world.client.get("/readyz")).status_code == 200
    async with a_world(settings=Settings(clock=lambda: WALL, age=lambda: 300.0)) as world:
        assert (await world.client.get("/readyz")).json()["reason"] == "stale"


async def test_an_unhealthy_service_is_shown_as_unhealthy() -> None:
    ill = replace(running("kafka"), health=Health.UNHEALTHY)
    async with a_world(desired(kafka=True), running("zookeeper"), ill) as world:
        found = (await world.client.get("/services/status/kafka")).json()
    assert (found["phase"], found["reason"]) == ("degraded", "unhealthy")
    assert found["services"][1]["ready"] is False
