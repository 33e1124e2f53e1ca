"""Runs pre_start hooks: each in a container of its own, before the service's container starts.

Such a container has the volumes and networks of the service's, gates the start by its exit code, and is
removed afterwards (Compose 5.3 and later; older versions refuse the key).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from reconciler.engine.docker.http import DockerHttp, Refused
from reconciler.engine.docker.parse import HOOK, PROJECT, SERVICE, claims
from reconciler.engine.docker.start.definition import Definition
from reconciler.engine.docker.start.exec import Tail, environment_of
from reconciler.engine.docker.start.hooks import FAILED, LONGEST, failure_text, hook_name
from reconciler.engine.error_reasons import failure, truncate
from reconciler.errors import ContainerGone, EngineError, EngineUnavailable, PermanentStepFailure, StepFailed
from reconciler.model.start_work import Hook

log = logging.getLogger(__name__)

_STAGE = "pre_start"


class PreStart:
    """``pull`` fetches a missing image."""

    def __init__(self, http: DockerHttp, pull: Callable[[str], Awaitable[None]]) -> None:
        self._http = http
        self._pull = pull

    async def run(self, container: str, project: str, service: str, definition: Definition) -> None:
        """Run all hooks, one after the other; a failing one keeps the service from starting.

        Raises:
            StepFailed: a hook failed, or took longer than ``LONGEST`` seconds.
            PermanentStepFailure: a hook needs something that Compose does not support either.
            ContainerGone: the service's container is gone.
        """
        hooks = definition.work.pre_start
        if any(hook.per_replica for hook in hooks):
            raise PermanentStepFailure(
                f"{_STAGE} of {service}: per_replica is not supported", "definition_invalid"
            )
        labels = {PROJECT: project, SERVICE: service, HOOK: _STAGE}
        try:
            await self._clear(labels)
            if await self._runs(labels):
                # Once for all replicas, before the first of them, as Compose does.
                return
            own = await self._http.get(f"/containers/{container}/json")
            for number, hook in enumerate(hooks, 1):
                await self._one(own, hook, hook_name(_STAGE, number, hooks), labels, definition)
        except Refused as error:
            if error.status == 404 and "no such container" in str(error).lower():
                raise ContainerGone(f"container {container[:12]} is gone") from error
            raise failure(f"{_STAGE} of {service}: {error}") from error

    async def _runs(self, labels: dict[str, str]) -> bool:
        filters = json.dumps(
            {"label": [f"{name}={labels[name]}" for name in (PROJECT, SERVICE)], "status": ["running"]}
        )
        found = await self._http.get("/containers/json", filters=filters)
        return any(claims(entry, labels[PROJECT]) for entry in found)

    async def _clear(self, labels: dict[str, str]) -> None:
        """Remove the containers that an earlier run left: of a daemon killed during a hook, or of Compose."""
        filters = json.dumps({"label": [f"{name}={value}" for name, value in labels.items()]})
        for entry in await self._http.get("/containers/json", all=True, filters=filters):
            await self._remove(entry["Id"])

    async def _one(
        self, own: dict[str, Any], hook: Hook, name: str, labels: dict[str, str], definition: Definition
    ) -> None:
        made = await self._create(own, hook, labels, definition)
        try:
            code, output = await self._wait(made, name)
        finally:
            # Also when the step is cancelled: the hook must not outlive it.
            await asyncio.shield(self._remove(made))
        if code:
            raise StepFailed(failure_text(name, code, output, definition), FAILED)

    async def _create(
        self, own: dict[str, Any], hook: Hook, labels: dict[str, str], definition: Definition
    ) -> str:
        mode = str(own["HostConfig"].get("NetworkMode") or "default")
        image = hook.image or str(own["Config"]["Image"])
        body = {
            "Image": image,
            "Cmd": list(hook.command) or None,
            "User": hook.user,
            "WorkingDir": hook.working_dir,
            "Env": environment_of({**definition.work.environment, **hook.environment}),
            "Labels": labels,
            "HostConfig": {
                "Privileged": hook.privileged,
                "VolumesFrom": [own["Id"]],
                "NetworkMode": mode,
            },
        }
        try:
            made = await self._http.post("/containers/create", body)
        except Refused as error:
            if error.status != 404 or "no such image" not in str(error).lower():
                raise
            await self._pull(image)
            made = await self._http.post("/containers/create", body)
        networks = own.get("NetworkSettings", {}).get("Networks") or {}
        for network in networks if mode in networks else ():
            if network != mode:
                target = f"/networks/{quote(network, safe='')}/connect"
                await self._http.post(target, {"Container": made["Id"]})
        return str(made["Id"])

    async def _wait(self, made: str, name: str) -> tuple[int, str]:
        tail = Tail()
        attach = f"/containers/{made}/attach"
        try:
            async with asyncio.timeout(LONGEST):
                # Attached before its start, so that no output is lost.
                async with self._http.stream(
                    "POST", attach, {}, stream=True, stdout=True, stderr=True
                ) as output:
                    await self._http.post(f"/containers/{made}/start", {})
                    with contextlib.suppress(EngineUnavailable, ConnectionError, EOFError):
                        async for chunk in output.chunks():
                            tail.feed(chunk)
                ended = await self._http.post(f"/containers/{made}/wait", {}, within=LONGEST)
        except TimeoutError as error:
            raise StepFailed(f"{name} did not end within {LONGEST:.0f} s", FAILED) from error
        return int(ended["StatusCode"]), tail.text()

    async def _remove(self, container: str) -> None:
        try:
            await self._http.delete(f"/containers/{container}", force=True, v=True)
        except (EngineError, Refused) as error:
            log.warning("the container of a hook stays", extra={"error": truncate(str(error))})
