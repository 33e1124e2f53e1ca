"""Writing endpoints: stored states, responses, and refusals with their remedies."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reconciler.controller.progress import Progress
from reconciler.errors import EngineUnavailable, InvalidDesiredState, Mistake, WriteRefused
from reconciler.model.desired import GroupState, Suspension
from tests.support.fixtures.api import WALL, a_snapshot, a_world, desired


async def test_start_is_accepted_at_once() -> None:
    async with a_world(desired(41)) as world:
        answer = await world.client.post("/services/start/kafka")
    found = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == "/services/progress/42"
    assert (found["action"], found["target"], found["success"]) == ("start", "kafka", True)
    assert found["message"] == "kafka is switched on (generation 42)"
    assert found["timestamp"] == "2026-11-24T06:00:00Z"
    assert found["services_affected"] == ["zookeeper", "kafka"]
    assert found["generation"] == found["progress"]["generation"] == 42
    assert world.writer.desired.groups["kafka"] == GroupState(on=True)
    assert world.writer.written == [("anonymous", "start kafka")]


async def test_reads_after_the_reply_show_the_new_generation() -> None:
    async with a_world() as world:
        generation = (await world.client.post("/services/start/kafka")).json()["generation"]
        found = (await world.client.get("/services/status")).json()
    assert found["generation"] == generation
    assert found["groups"]["kafka"]["desired"] == "on"


async def test_a_start_without_change_returns_the_current_generation() -> None:
    async with a_world(desired(7, kafka=True)) as world:
        answer = await world.client.post("/services/start/kafka")
    assert (answer.status_code, answer.json()["generation"]) == (200, 7)
    assert answer.json()["services_affected"] == []
    assert answer.json()["message"] == "kafka is already in that state (generation 7)"
    assert world.writer.written == []


async def test_start_with_dependencies() -> None:
    async with a_world() as world:
        answer = await world.client.post("/services/start/analytics?with_dependencies=true")
    assert answer.json()["services_affected"] == ["zookeeper", "kafka", "timescaledb", "metabase"]
    assert "together with kafka, storage" in answer.json()["message"]


async def test_a_refusal_names_the_dependency_and_the_remedy() -> None:
    async with a_world() as world:
        answer = await world.client.post("/services/start/storage")
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "about:blank",
        "title": "Conflict",
        "status": 409,
        "detail": "storage needs kafka, which is off",
        "reason": "dependency_off",
        "remedy": "add with_dependencies=true to start kafka as well, or force=true to start storage without",
    }
    assert world.writer.written == []


async def test_force_is_stored_and_removed() -> None:
    async with a_world() as world:
        await world.client.post("/services/start/storage?force=true")
        assert world.writer.desired.groups["storage"] == GroupState(on=True, force=True)
        await world.client.post("/services/stop/storage")
        assert world.writer.desired.groups["storage"] == GroupState(on=False)


async def test_stop_with_dependents_and_with_force() -> None:
    async with a_world(desired(kafka=True, storage=True)) as world:
        refused = await world.client.post("/services/stop/kafka")
        forced = await world.client.post("/services/stop/kafka?force=true")
        assert world.writer.desired.groups["storage"].on
        rest = await world.client.post("/services/stop/kafka?with_dependents=true")
    assert (refused.status_code, refused.json()["reason"]) == (409, "dependents_on")
    assert (forced.status_code, rest.status_code) == (202, 202)
    assert not any(state.on for state in world.writer.desired.groups.values())


async def test_accept_stores_the_time_of_the_request() -> None:
    async with a_world(desired(kafka=True)) as world:
        answer = await world.client.post("/services/accept/kafka")
        assert answer.status_code == 202
        assert answer.json()["message"].startswith("held changes of kafka are accepted")
        assert world.writer.desired.groups["kafka"].accepted_at == WALL
        assert (await world.client.post("/services/accept/storage")).status_code == 409


async def test_restart_stores_the_time_of_the_request() -> None:
    async with a_world(desired(kafka=True)) as world:
        assert (await world.client.post("/services/restart/kafka")).status_code == 202
        assert world.writer.desired.groups["kafka"].restarted_at == WALL
        off = await world.client.post("/services/restart/storage")
    assert (off.status_code, off.json()["reason"]) == (409, "group_off")


async def test_an_unknown_group_is_not_found() -> None:
    async with a_world() as world:
        for answer in (
            await world.client.post("/services/start/kafak"),
            await world.client.post("/services/stop/kafak"),
            await world.client.post("/services/restart/kafak"),
            await world.client.put("/services/groups/kafak", json={"state": "on"}),
            await world.client.get("/services/status/kafak"),
        ):
            assert (answer.status_code, answer.json()["reason"]) == (404, "unknown_group")
            assert "kafka, storage" in answer.json()["remedy"]


BROKEN = InvalidDesiredState((Mistake("groups.yaml", 2, 1, "unknown key"),))
REFUSED = WriteRefused("desired_state_invalid", "groups.yaml is broken", "correct it")
REFUSED_FOR = WriteRefused("desired_state_invalid", "groups.yaml is broken", "correct it")
REFUSED_FOR.__cause__ = BROKEN


@pytest.mark.parametrize(
    ("error", "mistakes"), [(REFUSED, None), (REFUSED_FOR, ["unknown key"]), (BROKEN, ["unknown key"])]
)
async def test_invalid_files_are_not_overwritten(error: Exception, mistakes: list[str] | None) -> None:
    async with a_world() as world:
        world.writer.refuse = error
        answer = await world.client.post("/services/start/kafka")
    assert (answer.status_code, answer.json()["reason"]) == (409, "desired_state_invalid")
    assert answer.json()["remedy"]
    found = answer.json().get("errors")
    assert (found and [one["message"] for one in found]) == mistakes


@pytest.mark.parametrize(
    "error",
    [
        WriteRefused("not_writable", "groups.yaml can't be written: no space left on device", "make room"),
        EngineUnavailable("docker compose is not there"),
    ],
)
async def test_temporary_errors_are_a_503(error: Exception) -> None:
    async with a_world() as world:
        world.writer.refuse = error
        answer = await world.client.post("/services/start/kafka")
    assert answer.status_code == 503
    assert answer.json()["detail"] == str(error)
    assert answer.json()["remedy"]


async def test_an_unexpected_error_shows_no_internals() -> None:
    async with a_world() as world:
        world.writer.refuse = RuntimeError("secret-of-the-inside")
        answer = await world.client.post("/services/start/kafka")
    assert (answer.status_code, answer.json()["reason"]) == (500, "internal_error")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("state", "success"), [("converged", True), ("degraded", False), ("progressing", True)]
)
async def test_wait_returns_at_the_end_of_the_generation_with_its_state(state: str, success: bool) -> None:
    async with a_world() as world:
        seconds = 0.01 if state == "progressing" else 60
        request = asyncio.create_task(world.client.post(f"/services/start/kafka?wait={seconds}"))
        while world.snapshots.current.generation < 2:
            await asyncio.sleep(0)
        ended = Progress(generation=2, state=state, total=1, reason="exited", message="kafka: exited")
        world.snapshots.publish(a_snapshot(world.writer.desired, progress=ended))
        answer = await request
    assert answer.status_code == 200
    assert answer.json()["progress"]["state"] == state
    assert answer.json()["success"] is success


async def test_wait_returns_when_the_generation_is_superseded() -> None:
    async with a_world() as world:
        request = asyncio.create_task(world.client.post("/services/start/kafka?wait=60"))
        while world.snapshots.current.generation < 2:
            await asyncio.sleep(0)
        await world.client.post("/services/stop/kafka")
        assert (await request).json()["progress"]["state"] == "superseded"


# --- PUT ------------------------------------------------------------------------------------------

UNTIL = 1_795_506_400.0


@pytest.mark.parametrize(
    ("body", "state"),
    [
        ({"state": "on"}, GroupState(on=True)),
        ({"state": True}, GroupState(on=True)),
        ({"state": "on", "force": True}, GroupState(on=True, force=True)),
        ({"state": "off", "suspend": True}, GroupState(on=False, suspend=Suspension())),
        ({"state": False, "suspend": {}}, GroupState(on=False, suspend=Suspension())),
        (
            {"state": "off", "suspend": {"until": "2026-11-24T08:46:40+01:00", "reason": "camera work"}},
            GroupState(on=False, suspend=Suspension(UNTIL, "camera work")),
        ),
    ],
)
async def test_put_sets_the_state_of_the_body(body: dict[str, Any], state: GroupState) -> None:
    async with a_world() as world:
        first = await world.client.put("/services/groups/kafka", json=body)
        assert world.writer.desired.groups["kafka"] == state
        second = await world.client.put("/services/groups/kafka", json=body)
    assert (first.status_code, second.status_code) == (202, 200)
    assert first.json()["generation"] == second.json()["generation"] == 2


async def test_put_names_the_suspension_that_delays_it() -> None:
    async with a_world(desired(kafka=GroupState(on=False, suspend=Suspension()))) as world:
        held = await world.client.put("/services/groups/kafka", json={"state": "on"})
        again = await world.client.put("/services/groups/kafka", json={"state": "on"})
        other = await world.client.put("/services/groups/monitoring", json={"state": "on"})
        freed = await world.client.put("/services/groups/kafka", json={"state": "on", "suspend": False})
    assert "It takes effect when the suspension of kafka ends" in held.json()["message"]
    assert "suspension of kafka" in again.json()["message"]
    assert "suspension" not in other.json()["message"]
    assert world.writer.desired.groups["kafka"] == GroupState(on=True)
    assert "suspension" not in freed.json()["message"]


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({}, "state"),
        ({"state": "onn"}, "state"),
        ({"state": 1}, "state"),
        ({"state": "on", "force": "true"}, "force"),
        ({"state": "on", "colour": "red"}, "colour"),
        ({"state": "on", "suspend": "yes"}, "suspend"),
        ({"state": "on", "suspend": {"until": "2026-11-24T06:00:00"}}, "suspend.until"),
        ({"state": "on", "suspend": {"until": "2026-06-31T06:00:00Z"}}, "suspend.until"),
        ({"state": "on", "suspend": {"until": "0001-01-01T00:00:00Z"}}, "suspend.until"),
        ({"state": "on", "suspend": {"until": 5}}, "suspend.until"),
        ({"state": "on", "suspend": {"reason": "two\nlines"}}, "suspend.reason"),
        ({"state": "on", "suspend": {"colour": "red"}}, "suspend.colour"),
    ],
)
async def test_a_body_of_wrong_types_is_refused_with_the_field_name(body: dict[str, Any], name: str) -> None:
    async with a_world() as world:
        answer = await world.client.put("/services/groups/kafka", json=body)
    assert (answer.status_code, answer.json()["reason"]) == (422, "bad_input")
    assert [(error["in"], error["name"]) for error in answer.json()["errors"]] == [("body", name)]
    assert world.writer.written == []


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b"9" * 10_000, b'{"state": "\\ud800"}'],
    ids=["empty", "cut", "list", "null", "bytes", "deep", "number", "surrogate"],
)
async def test_a_body_that_is_no_object_is_refused(content: bytes) -> None:
    async with a_world() as world:
        headers = {"content-type": "application/json"}
        answer = await world.client.put("/services/groups/kafka", content=content, headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (422, "bad_input")


async def test_a_body_without_a_json_content_type_is_refused() -> None:
    async with a_world() as world:
        headers = {"content-type": "application/x-www-form-urlencoded"}
        answer = await world.client.put("/services/groups/kafka", content=b'{"state": "on"}', headers=headers)
    assert answer.status_code == 422
    assert "Content-Type: application/json" in answer.json()["remedy"]


@pytest.mark.parametrize(
    "query", ["forse=true", "force=perhaps", "force=true&force=false", "wait=1000", "with_dependents=true"]
)
async def test_unknown_and_invalid_parameters_are_refused(query: str) -> None:
    async with a_world() as world:
        answer = await world.client.post(f"/services/start/kafka?{query}")
    assert (answer.status_code, answer.json()["reason"]) == (422, "bad_input")
    assert answer.json()["errors"][0]["in"] == "query"
    assert world.writer.written == []
