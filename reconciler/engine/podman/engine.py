"""Implements the engine port for Podman 5, through its Docker-compatible API."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from reconciler.engine.docker.engine import DockerEngine
from reconciler.engine.podman.address import as_docker_host
from reconciler.engine.podman.health_checks import HealthChecks, engine_has_timers
from reconciler.engine.podman.stops import Stops
from reconciler.model.observed import ObservedState
from reconciler.model.stack import Stack


class PodmanEngine(DockerEngine):
    """Podman at the address that ``podman --remote`` would use; parameters as of ``DockerEngine``."""

    def __init__(
        self, state_directory: Path, *, environ: Mapping[str, str] | None = None, patience: float = 10.0
    ) -> None:
        surroundings = as_docker_host(os.environ if environ is None else environ)
        super().__init__(state_directory, environ=surroundings, patience=patience)
        self._stops = Stops(self._http)
        self._health_checks = HealthChecks(self._http, timers=engine_has_timers(self._address.socket))

    async def observe(self, stack: Stack, *, full: bool = False) -> ObservedState:
        """See ``Engine.observe``."""
        # Podman's list does not tell a container that was restarted from one that was not: without events
        # only an inspection does.
        observed = await super().observe(stack, full=full or not self._observer.subscribed)
        observed = await self._stops.add_to(observed)
        self._health_checks.follow(observed.containers)
        return observed

    async def close(self) -> None:
        """See ``Engine.close``."""
        await self._health_checks.close()
        await super().close()
