"""Finds out which containers a client stopped.

Podman sends no event for a stop, and names no signal in its event for a kill, but it remembers for each
container whether a client ended its last run.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping

from reconciler.engine.docker.http import DockerHttp, Refused
from reconciler.model.observed import Container, ObservedState, State

_Run = tuple[str, float, float]


class Stops:
    """Requests the answer once per run of a container."""

    def __init__(self, http: DockerHttp) -> None:
        self._http = http
        self._known: dict[_Run, bool] = {}

    async def add_to(self, observed: ObservedState) -> ObservedState:
        """Return the observation with ``stop_requested_at`` of the containers that a client stopped.

        Raises:
            EngineUnavailable: Podman does not answer.
        """
        over = {_run(one): one for one in observed.containers if one.state is State.EXITED}
        unknown = [run for run in over if run not in self._known]
        answers = await asyncio.gather(*(self._was_stopped(run[0]) for run in unknown))
        self._known = {run: stopped for run, stopped in self._known.items() if run in over}
        self._known |= dict(zip(unknown, answers, strict=True))
        return dataclasses.replace(
            observed, containers=tuple(self._with_stop(one) for one in observed.containers)
        )

    def _with_stop(self, container: Container) -> Container:
        if container.state is not State.EXITED or not self._known[_run(container)]:
            return container
        at = max(container.stop_requested_at, container.started_at, container.finished_at)
        return dataclasses.replace(container, stop_requested_at=at)

    async def _was_stopped(self, container: str) -> bool:
        try:
            seen = await self._http.get(f"/libpod/containers/{container}/json")
        except Refused:
            return False
        state = seen.get("State") if isinstance(seen, Mapping) else None
        return isinstance(state, Mapping) and state.get("StoppedByUser") is True


def _run(container: Container) -> _Run:
    return (container.id, container.started_at, container.finished_at)
