"""What a look makes of the engine's answers, where those alone would mislead."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.engine.docker_look import Look
from reconciler.observed import Container
from reconciler.stack import Stack

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
    look = Look(wire)
    if starved_at is not None:
        look.mark_starved("1", starved_at)
    (found,) = (await look.take(STACK, full=True)).containers
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
