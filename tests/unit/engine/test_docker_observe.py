"""Observations in cases where the engine's responses alone would mislead."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.engine.docker.http import Refused
from reconciler.engine.docker.observe import Observer
from reconciler.errors import EngineUnavailable
from reconciler.model.observed import Container
from reconciler.model.stack import Stack
from tests.support.fixtures.builders import a_stack, service

STACK = Stack(name="p", groups={}, services={})
LABELS = {"com.docker.compose.project": "p", "com.docker.compose.service": "a"}


class Wire:
    """An engine with one container in a given state."""

    def __init__(self, **state: Any) -> None:
        self.state = {"Status": "running", "StartedAt": "2026-11-25T01:00:10Z", "OOMKilled": False, **state}

    async def get(self, path: str, **_: object) -> Any:
        if path == "/images/json":
            return []
        if path == "/containers/json":
            return [{"Id": "1", "State": self.state["Status"], "Names": ["/a"], "Labels": LABELS}]
        return {"Id": "1", "Name": "/a", "State": self.state, "Config": {"Labels": LABELS}, "HostConfig": {}}


async def seen(wire: Any, *, starved_at: float | None = None) -> Container:
    look = Observer(wire)
    if starved_at is not None:
        look.note_starved("1", starved_at)
    (found,) = (await look.refresh(STACK, full=True)).containers
    return found


@pytest.mark.pitfall(37)
@pytest.mark.parametrize(
    ("state", "starved_at", "killed"),
    [
        ({"Status": "exited", "OOMKilled": True}, None, True),
        ({"Status": "exited"}, None, False),
        ({"Status": "exited"}, 1e10, True),  # the flag is not reliable
        ({}, 1e10, True),  # a child process; the container continues
        ({}, 1.0, False),  # that was in an earlier run
        ({"OOMKilled": True}, None, False),  # so was this: 20.10 keeps the flag in the next run
        ({"Status": "restarting", "OOMKilled": True}, None, True),
    ],
)
async def test_an_oom_kill_is_reported_for_the_run_in_which_it_happened(
    state: dict[str, Any], starved_at: float | None, killed: bool
) -> None:
    found = await seen(Wire(**state), starved_at=starved_at)
    assert found.oom_killed == killed


class Images(Wire):
    """An engine that lists no images, and has scripted responses for single ones."""

    def __init__(self, answers: dict[str, Any]) -> None:
        super().__init__()
        self.answers, self.asked = answers, list[str]()

    async def get(self, path: str, **_: object) -> Any:
        if not path.startswith("/images/") or path == "/images/json":
            return await super().get(path)
        self.asked.append(path)
        answer = self.answers[path.removeprefix("/images/").removesuffix("/json")]
        if isinstance(answer, Exception):
            raise answer
        return answer


HIDDEN = {"Id": "sha256:1", "RepoTags": ["hidden:1"], "RepoDigests": None}
ABSENT = Refused(404, "no such image")


@pytest.mark.parametrize(
    ("image", "answers", "found"),
    [
        ("hidden:1", {"hidden:1": HIDDEN}, "sha256:1"),
        ("gone:1", {"gone:1": ABSENT}, ""),
        # Not references, though Compose accepts them: the engine redirects, or returns nothing.
        ("/app:1", {"/app:1": None}, ""),
        ("reg//app:1", {"reg//app:1": ValueError("this is no JSON")}, ""),
        ("büro:1", {"b%C3%BCro:1": ABSENT}, ""),
        # An engine takes this for the beginning of an id.
        ("cafe", {"cafe": HIDDEN | {"Id": "sha256:cafe01"}}, ""),
    ],
)
async def test_an_unlisted_image_is_inspected_once(image: str, answers: dict[str, Any], found: str) -> None:
    stack = a_stack({"main": [service("app", image=image)]})
    wire = Images(answers)
    look = Observer(wire)  # type: ignore[arg-type]
    look.subscribed = True
    for _ in range(2):
        assert (await look.refresh(stack, full=False)).images.get(image, "") == found
    assert len(wire.asked) == 1
    look.invalidate_images()
    await look.refresh(stack, full=False)
    assert len(wire.asked) == 2


@pytest.mark.parametrize("error", [Refused(500, "no"), EngineUnavailable("silent", "engine_silent")])
async def test_an_unknown_image_is_inspected_again_without_delaying_others(error: Exception) -> None:
    stack = a_stack({"main": [service("app", image="odd:1")]})
    wire = Images({"odd:1": error})
    look = Observer(wire)  # type: ignore[arg-type]
    look.subscribed = True
    for count in (1, 2):
        assert (await look.refresh(stack, full=False)).complete
        assert len(wire.asked) == count
    wire.answers["odd:1"] = HIDDEN | {"RepoTags": ["odd:1"]}
    assert (await look.refresh(stack, full=False)).images == {"odd:1": "sha256:1"}
