"""Runs a container's own health check early, through exec."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from reconciler.engine.docker.http import DockerHttp, Refused
from reconciler.model.observed import Container

_AT_ONCE = 8
"""Each costs a tenth of a CPU second in the engine; a hanging check holds its slot until it times out."""


class HealthExec:
    """Runs health checks: one at a time in each container, few at once in all."""

    def __init__(self, http: DockerHttp) -> None:
        self._http = http
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._running: set[str] = set()
        self._hanging: dict[str, str] = {}

    async def probe(self, container: Container, timeout: float) -> bool:
        """Whether the check succeeded within ``timeout`` seconds; see ``Engine.probe``."""
        if not container.check or container.id in self._running:
            return False
        self._running.add(container.id)
        try:
            async with asyncio.timeout(timeout), self._slots:
                return not await self._still_hanging(container.id) and await self._run(container)
        except (TimeoutError, Refused):
            return False
        finally:
            self._running.discard(container.id)

    async def _still_hanging(self, container: str) -> bool:
        """Whether an abandoned check still runs: the engine can't kill it, so do not add another one."""
        check = self._hanging.get(container)
        if check is None:
            return False
        try:
            if (await self._http.get(f"/exec/{check}/json"))["Running"]:
                return True
        except Refused:
            # Unknown to the engine: its container was restarted or removed.
            pass
        del self._hanging[container]
        return False

    async def _run(self, container: Container) -> bool:
        # With attached output the response ends with the check; otherwise it ends at once.
        body = {"Cmd": container.check, "AttachStdout": True, "AttachStderr": True}
        check = (await self._http.post(f"/containers/{container.id}/exec", body))["Id"]
        self._hanging[container.id] = check
        start = {"Detach": False, "Tty": False}
        async with (
            self._http.stream("POST", f"/exec/{check}/start", start) as reply,
            aclosing(reply.chunks()) as output,
        ):
            async for _ in output:
                pass
        ended = await self._http.get(f"/exec/{check}/json")
        if ended["Running"]:
            return False
        del self._hanging[container.id]
        return bool(ended["ExitCode"] == 0)
