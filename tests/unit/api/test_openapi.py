"""The endpoints match ``/docs``; and the pages for browsers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from api.context import Settings
from api.middleware.auth import is_open
from api.wire import schemas
from api.wire.request_bodies import GroupBody, SuspendBody
from reconciler.controller.progress import Progress
from reconciler.errors import Mistake
from reconciler.generations.preview import PreviewResult
from reconciler.model.observed import Usage
from tests.support.fixtures.api import WALL, a_snapshot, a_step, a_world, desired, running

WAYS: list[Any] = [{"ApiKey": []}, {"Bearer": []}, {"Session": []}]


async def _plan(_state: object) -> PreviewResult:
    return PreviewResult()


async def _lines(_container: str, _tail: int, _follow: bool) -> AsyncIterator[str]:
    yield "a line"


async def _document() -> Any:
    async with a_world(preview=_plan, logs=_lines, metrics=True) as world:
        return (await world.client.get("/openapi.json")).json()


async def test_every_endpoint_is_documented_under_the_tag() -> None:
    document = await _document()
    assert sorted(document["paths"]) == [
        "/",
        "/healthz",
        "/metrics",
        "/readyz",
        "/services/accept/{group}",
        "/services/dashboard",
        "/services/drift",
        "/services/events",
        "/services/groups",
        "/services/groups/{group}",
        "/services/logs/{service}",
        "/services/plan",
        "/services/progress/{generation}",
        "/services/restart/{group}",
        "/services/session",
        "/services/start/{group}",
        "/services/status",
        "/services/status/{group}",
        "/services/stop/{group}",
    ]
    for operations in document["paths"].values():
        for operation in operations.values():
            assert operation["tags"] == ["Service Manager"]
            assert operation["description"].replace("\n", " ").startswith(operation["summary"])
            assert len(operation["summary"]) > 12


OF_GROUPS = {
    ("get", "/services/groups"),
    ("get", "/services/groups/{group}"),
    ("get", "/services/status/{group}"),
    ("get", "/services/logs/{service}"),
    ("post", "/services/plan"),
}
"""Paths without a response before there is a desired state."""


async def test_every_status_that_can_occur_is_documented() -> None:
    document = await _document()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            found = operation["responses"]
            assert {"307" if path == "/" else "200", "413", "421", "422", "500"} <= set(found)
            session = path == "/services/session"
            assert ("403" in found) == (not is_open(path) or (session and method != "get"))
            assert (
                ("401" in found) == ("429" in found) == (not is_open(path) or (session and method == "post"))
            )
            assert operation["security"] == ([] if is_open(path) else [*WAYS, {}])
            assert ("404" in found) == ("{" in path or path == "/services/dashboard")
            assert ("409" in found) == ((method != "get" and "{" in path) or (method, path) in OF_GROUPS)
            assert "503" in found or "409" not in found
            for status, answer in found.items():
                if int(status) >= 400:
                    assert list(answer["content"]) == ["application/problem+json"]
                    example = answer["content"]["application/problem+json"]["example"]
                    assert schemas.Problem.model_validate(example).status == int(status)
    for action in ("start", "stop", "restart", "accept"):
        assert (
            "Location"
            in document["paths"][f"/services/{action}/{{group}}"]["post"]["responses"]["202"]["headers"]
        )
    assert "HTTPValidationError" not in document["components"]["schemas"]


MODELS: dict[str, type[BaseModel]] = {
    "/services/status": schemas.Status,
    "/services/status/kafka": schemas.GroupAnswer,
    "/services/groups": schemas.Groups,
    "/services/groups/kafka": schemas.DesiredState,
    "/services/progress/1": schemas.Progress,
    "/services/plan": schemas.Plan,
    "/services/drift": schemas.Drift,
    "/healthz": schemas.Alive,
}


@pytest.mark.parametrize("path", MODELS)
async def test_responses_match_the_document(path: str) -> None:
    """Each field is described, and each described field exists."""
    progress = Progress(generation=1, done=1, total=2, expected_at=WALL, steps=(a_step("kafka"),))
    snapshot = a_snapshot(
        desired(kafka=True, analytics=True),
        running("kafka"),
        running("loki"),
        progress=progress,
        errors=(Mistake("groups.yaml", 1, 1, "?"),),
        usage={"id-kafka": Usage(1, 1.0)},
    )
    async with a_world(snapshot=snapshot) as world:
        answer = await world.client.get(path)
    model = MODELS[path]
    assert model.model_validate(answer.json()).model_fields_set == set(model.model_fields)


async def test_refusals_and_write_responses_match_the_document() -> None:
    async with a_world(preview=_plan) as world:
        schemas.WriteAnswer.model_validate((await world.client.post("/services/start/kafka")).json())
        schemas.Preview.model_validate((await world.client.post("/services/plan", json={})).json())
        schemas.Problem.model_validate((await world.client.post("/services/start/analytics")).json())
        schemas.Problem.model_validate((await world.client.get("/services/status?x=1")).json())


@pytest.mark.parametrize("model", [*MODELS.values(), schemas.Problem, GroupBody, SuspendBody])
def test_models_forbid_extra_fields(model: type[BaseModel]) -> None:
    assert model.model_config.get("extra") == "forbid"


async def test_the_documentation_loads_nothing_from_other_hosts() -> None:
    async with a_world() as world:
        page = await world.client.get("/docs")
        assert page.headers["content-type"].startswith("text/html")
        assert "//" not in page.text
        for name in ("swagger-ui-bundle.js", "swagger-ui.css", "start.js"):
            assert f'"docs/{name}"' in page.text
            assert (await world.client.get(f"/docs/{name}")).status_code == 200
        assert (await world.client.get("/docs/../app.py")).status_code == 404
        assert (await world.client.get("/docs/%2e%2e/%2e%2e/app.py")).status_code == 404


async def test_a_missing_dashboard_is_a_404() -> None:
    async with a_world() as world:
        answer = await world.client.get("/services/dashboard")
    assert (answer.status_code, answer.json()["reason"]) == (404, "no_dashboard")
    assert "no dashboard is installed" in answer.json()["detail"]


async def test_dashboard_files_are_served_unchanged(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<p>here</p>")
    (tmp_path / "js").mkdir()
    (tmp_path / "js" / "main.js").write_text("export {}")
    async with a_world(settings=Settings(dashboard=tmp_path)) as world:
        page = await world.client.get("/services/dashboard")
        index = await world.client.get("/services/dashboard/index.html")
        slash = await world.client.get("/services/dashboard/")
        script = await world.client.get("/services/dashboard/js/main.js")
        outside = await world.client.get("/services/dashboard/%2e%2e/secret")
        missing = await world.client.get("/services/dashboard/nope.js")
    assert page.text == "<p>here</p>"
    assert index.headers["location"] == slash.headers["location"] == "../dashboard"
    assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    assert script.headers["content-type"].startswith("text/javascript")
    assert (outside.status_code, missing.status_code) == (404, 404)
    assert missing.headers["content-type"] == "application/problem+json"
