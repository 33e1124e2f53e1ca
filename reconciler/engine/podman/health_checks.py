"""Runs health checks at their interval where Podman does not.

Podman lets transient systemd timers run them. Without systemd a container's health stays ``starting`` for
ever. The checks run through Podman's own command for it, which also counts retries, honours the start period
and records the result, so that ``podman ps`` and ``docker compose up --wait`` see it too.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from reconciler.engine.docker.http import DockerHttp, Refused
from reconciler.engine.docker.parse import parse_timestamp
from reconciler.errors import EngineError
from reconciler.host.untrusted import MALFORMED
from reconciler.model.observed import Container, State

_log = logging.getLogger(__name__)
_SYSTEMD = Path("/run/systemd/system")
_USUAL_INTERVAL = 30.0
_SHORTEST_INTERVAL = 1.0
_LONGEST_CHECK = 86_400.0
"""Seconds. Podman ends no check that exceeds its time-out, it only counts it as failed at its end; waiting
for that keeps hanging checks from piling up in the container.
"""


def engine_has_timers(socket: str, systemd: Path = _SYSTEMD) -> bool:
    """Whether timers of systemd may run the health checks; for an engine elsewhere that is not known."""
    return not socket or systemd.is_dir()


def due_at(seen: Mapping[str, Any], *, timers: bool) -> float:
    """Return when to run the check of an inspected container, in seconds since the epoch.

    With ``timers`` only if two intervals pass without a result, because then there is no timer after all.
    """
    config, state = seen["Config"]["Healthcheck"], seen["State"]
    log = (state.get("Health") or {}).get("Log") or ()
    ended = parse_timestamp(log[-1]["End"]) if log else 0.0
    nanoseconds = config.get("Interval") or 0
    interval = max(_SHORTEST_INTERVAL, nanoseconds / 1e9) if nanoseconds > 0 else _USUAL_INTERVAL
    return max(parse_timestamp(state["StartedAt"]), ended) + interval * (2 if timers else 1)


class HealthChecks:
    """One task for each running container with a health check."""

    def __init__(self, http: DockerHttp, *, timers: bool) -> None:
        self._http = http
        self._timers = timers
        self._tasks: dict[tuple[str, float], asyncio.Task[None]] = {}

    def follow(self, containers: Iterable[Container]) -> None:
        """Run the checks of these containers from now on, and no others."""
        wanted = {
            (container.id, container.started_at)
            for container in containers
            if container.state is State.RUNNING and container.check
        }
        for key in self._tasks.keys() - wanted:
            self._tasks.pop(key).cancel()
        for key in wanted:
            if key not in self._tasks or self._tasks[key].done():
                self._tasks[key] = asyncio.create_task(self._run(key[0]))

    async def close(self) -> None:
        """End all tasks."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, container: str) -> None:
        timers = self._timers
        while True:
            try:
                seen = await self._http.get(f"/containers/{container}/json")
                wait = due_at(seen, timers=timers) - time.time()
                if wait <= 0:
                    # From now on the results are our own.
                    timers = False
                    await self._check(container)
                    continue
            except Refused:
                # It is gone; the next observation says so.
                return
            except (EngineError, *MALFORMED) as error:
                _log.debug("a health check is not run", extra={"container": container, "error": str(error)})
                wait = _USUAL_INTERVAL
            await asyncio.sleep(wait)

    async def _check(self, container: str) -> None:
        path = f"/libpod/containers/{container}/healthcheck"
        try:
            await self._http.get(path, within=_LONGEST_CHECK)
        except Refused as error:
            # A check that exceeded its time-out is a result too (500); anything else is not one.
            if error.status != 500:
                raise
            await asyncio.sleep(_SHORTEST_INTERVAL)
