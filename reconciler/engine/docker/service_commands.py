"""Commands for services: creation through Compose, and pulls."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from reconciler.engine.compose.engine import ComposeRunner, platform_of
from reconciler.engine.docker.container_commands import ContainerCommands
from reconciler.engine.docker.creation import Creation, creation
from reconciler.engine.docker.filter import without
from reconciler.engine.docker.http import DockerHttp
from reconciler.engine.docker.observe import Observer
from reconciler.engine.docker.parse import SERVICE, labels_of, number_of
from reconciler.engine.docker.refusals import refusal_error
from reconciler.engine.docker.streams import pull_image
from reconciler.engine.error_reasons import failure
from reconciler.errors import BatchFailed, ContainerGone, StepFailed
from reconciler.model.observed import Command
from reconciler.model.stack import Stack

_PULL_QUIET = 300.0
"""Seconds that a pull may make no progress; registries throttle."""
_NOT_THE_BATCH = frozenset({"compose_missing", "compose_busy", "model_missing"})
"""Reasons of failed Compose calls that splitting the batch can't fix."""


class ServiceCommands:
    """Creates containers and pulls images. ``config`` is the docker CLI's config.json, for credentials."""

    def __init__(
        self,
        http: DockerHttp,
        observer: Observer,
        compose: ComposeRunner,
        commands: ContainerCommands,
        config: Path,
    ) -> None:
        self._http = http
        self._observer = observer
        self._compose = compose
        self._commands = commands
        self._config = config

    async def create(self, stack: Stack, command: Command) -> None:
        """Carry out CREATE or RECREATE; errors as for ``Engine.act``."""
        call = creation(command, stack, await self._containers_of(stack))
        if not call.services:
            raise ContainerGone(f"container {command.container[:12]} is gone")
        async with without(self._http, call.hidden | await self._observer.strangers(stack.name)) as more:
            try:
                await self._compose.create(
                    stack, call.services, recreate=call.recreate, scale=call.scale, more=more
                )
            except StepFailed as error:
                if len(call.services) == 1 or error.reason in _NOT_THE_BATCH:
                    raise await self._named(error) from error
                await self._create_each(stack, call, more)

    async def _create_each(self, stack: Stack, call: Creation, more: Mapping[str, str]) -> None:
        """Create the rest of a failed batch one by one, so that only the services with a problem fail."""
        now = await self._containers_of(stack)
        failed: dict[str, StepFailed] = {}
        for service in call.services:
            if call.is_done(service, now.get(service, {})):
                continue
            scale = {service: call.scale[service]}
            try:
                await self._compose.create(stack, (service,), recreate=call.recreate, scale=scale, more=more)
            except StepFailed as error:
                failed[service] = await self._named(error)
        if failed:
            raise BatchFailed(failed)

    async def _named(self, error: StepFailed) -> StepFailed:
        if error.reason != "port_conflict":
            return error
        named = await refusal_error(self._http, str(error))
        return named if isinstance(named, StepFailed) else error

    async def _containers_of(self, stack: Stack) -> dict[str, dict[str, int]]:
        """Return the ids of all containers by service, each with the number of its replica."""
        found: dict[str, dict[str, int]] = {}
        for id, entry in (await self._observer.of_project(stack.name)).items():
            labels = labels_of(entry)
            found.setdefault(labels[SERVICE], {})[id] = number_of(labels)
        return found

    async def pull(self, stack: Stack, services: tuple[str, ...]) -> None:
        """Pull the images of services; errors as for ``Engine.act``."""
        failed: dict[str, StepFailed] = {}
        for service in services:
            try:
                await self.pull_one(stack.services[service].image, platform_of(stack, service))
            except StepFailed as error:
                failed[service] = error
        if failed:
            raise next(iter(failed.values())) if len(services) == 1 else BatchFailed(failed)

    async def pull_one(self, image: str, platform: str) -> None:
        """Pull one image for a platform; empty: the engine's own. Errors as for ``Engine.act``."""
        credentials = await self._commands.credentials(image, self._config)
        problem = await pull_image(self._http, image, platform, credentials, _PULL_QUIET)
        if problem:
            refused = failure(problem, fallback="image_unavailable")
            raise type(refused)(f"image {image} can't be pulled: {refused}", refused.reason)
