"""Responses of the API before there is a desired state, and at the root."""

from __future__ import annotations

import pytest

from reconciler.controller.snapshot import Snapshot
from reconciler.errors import Mistake
from tests.support.fixtures.api import a_world, desired

QUESTIONS = [
    ("GET", "/services/groups"),
    ("GET", "/services/status/kafka"),
    ("GET", "/services/logs/kafka"),
    ("POST", "/services/plan"),
]


def body(method: str, path: str) -> dict[str, object] | None:
    return {"groups": {}} if path == "/services/plan" else None


async def logs(_container: str, _tail: int, _follow: bool) -> None:
    raise AssertionError


async def preview(_state: object) -> None:
    raise AssertionError


@pytest.mark.parametrize(("method", "path"), QUESTIONS)
@pytest.mark.parametrize(
    ("snapshot", "status", "reason", "retry_after"),
    [
        (Snapshot(), 503, "starting", "1"),
        (Snapshot(errors=(Mistake("stack.yaml", 3, 1, "no such key"),)), 409, "desired_state_invalid", None),
        (Snapshot(warnings=("the state directory can't be written",)), 503, "not_accepted", "5"),
    ],
)
async def test_groups_are_unknown_before_the_files_are_read(
    method: str, path: str, snapshot: Snapshot, status: int, reason: str, retry_after: str | None
) -> None:
    async with a_world(logs=logs, preview=preview, snapshot=snapshot) as world:  # type: ignore[arg-type]
        answer = await world.client.request(method, path, json=body(method, path))
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert answer.headers.get("retry-after") == retry_after
    if status == 409:
        assert answer.json()["errors"][0]["line"] == 3
        assert "stack.yaml:3" in answer.json()["detail"]


async def test_a_write_needs_no_earlier_read_of_the_files() -> None:
    async with a_world(snapshot=Snapshot()) as world:
        answer = await world.client.post("/services/start/kafka")
    assert answer.status_code == 202


async def test_status_is_available_before_the_files_are_read() -> None:
    async with a_world(snapshot=Snapshot()) as world:
        answer = await world.client.get("/services/status")
    assert (answer.status_code, answer.json()["generation"], answer.json()["groups"]) == (200, 0, {})


async def test_the_root_redirects_to_the_dashboard() -> None:
    async with a_world(desired()) as world:
        answer = await world.client.get("/")
    assert answer.status_code == 307
    assert str(answer.headers["location"]) == "services/dashboard"
    assert answer.content == b""
