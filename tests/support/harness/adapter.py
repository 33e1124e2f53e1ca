"""One project on a private engine, with the Docker adapter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reconciler.engine.docker.engine import DockerEngine
from reconciler.engine.podman.engine import PodmanEngine
from reconciler.model.observed import Action, Command, Container, ObservedState
from reconciler.model.stack import Stack
from tests.support.harness.private_engine import PrivateEngine, Project, by_service
from tests.support.harness.private_podman import PrivatePodman

Make = Callable[..., Any]
"""Makes a ``AdapterHarness`` over a Compose file."""

PLAIN = """
services:
  plain: {image: "bed/standin:1", init: true, container_name: o-plain}
"""


def adapter_for(bed: PrivateEngine, state: Path, patience: float = 10.0) -> DockerEngine:
    """The adapter of the product for a private engine."""
    kind = PodmanEngine if isinstance(bed, PrivatePodman) else DockerEngine
    return kind(state, environ=bed.environ, patience=patience)


class AdapterHarness:
    """One project on the private engine, with the adapter."""

    def __init__(self, bed: PrivateEngine, project: Project, patience: float) -> None:
        self.bed = bed
        self.project = project
        self.state = project.folder.parent / "state"
        self.engine = adapter_for(bed, self.state, patience)
        self.client = bed.client
        self.stack: Stack

    async def resolve(self) -> Stack:
        self.stack = await self.project.stack()
        return self.stack

    async def act(self, action: Action, *services: str, **more: Any) -> None:
        await self.engine.act(Command(action, services, **more), self.stack)

    async def look(self, *, full: bool = False) -> ObservedState:
        return await self.engine.observe(self.stack, full=full)

    async def seen(self, service: str) -> Container:
        return by_service(await self.look())[service]

    async def created(self, service: str) -> Container:
        await self.act(Action.CREATE, service)
        return await self.seen(service)

    async def running(self, service: str) -> Container:
        container = await self.created(service)
        await self.act(Action.START, service, container=container.id)
        return await self.seen(service)

    def count_requests(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        targets: list[str] = []
        original = self.engine._http._ask

        async def counting(method: str, target: str, body: bytes | None, within: float) -> Any:
            targets.append(target)
            return await original(method, target, body, within)

        monkeypatch.setattr(self.engine._http, "_ask", counting)
        return targets
