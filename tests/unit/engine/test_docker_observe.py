"""What a look makes of the engine's answers, where those alone would mislead."""

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
    """An engine with one container, in the state that it is given."""

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
        ({"Status": "exited"}, 1e10, True),  # the flag is not to be relied upon
        ({}, 1e10, True),  # a child, and the container runs on
        ({}, 1.0, False),  # that was in a run before this one
        ({"OOMKilled": True}, None, False),  # and so was this: 20.10 carries it over into the next run
        ({"Status": "restarting", "OOMKilled": True}, None, True),
    ],
)
async def test_memory_ran_out_in_this_run_or_not(
    state: dict[str, Any], starved_at: float | None, killed: bool
) -> None:
    found = await seen(Wire(**state), starved_at=starved_at)
    assert found.oom_killed == killed


class Images(Wire):
    """An engine that lists no image, and answers for single ones as it is told."""

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
        # No references, though Compose lets them pass: the engine sends one elsewhere, or says nothing.
        ("/app:1", {"/app:1": None}, ""),
        ("reg//app:1", {"reg//app:1": ValueError("this is no JSON")}, ""),
        ("büro:1", {"b%C3%BCro:1": ABSENT}, ""),
        # An engine takes this for the beginning of an id.
        ("cafe", {"cafe": HIDDEN | {"Id": "sha256:cafe01"}}, ""),
    ],
)
async def test_an_image_that_is_not_listed_is_asked_for_once(
    image: str, answers: dict[str, Any], found: str
) -> None:
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
async def test_what_is_not_known_of_an_image_is_asked_again_and_holds_up_nothing(error: Exception) -> None:
    stack = a_stack({"main": [service("app", image="odd:1")]})
    wire = Images({"odd:1": error})
    look = Observer(wire)  # type: ignore[arg-type]
    look.subscribed = True
    for count in (1, 2):
        assert (await look.refresh(stack, full=False)).complete
        assert len(wire.asked) == count
    wire.answers["odd:1"] = HIDDEN | {"RepoTags": ["odd:1"]}
    assert (await look.refresh(stack, full=False)).images == {"odd:1": "sha256:1"}
