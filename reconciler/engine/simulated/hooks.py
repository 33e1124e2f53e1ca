"""Simulates Compose's work around a start and stop: records files and hooks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

from reconciler.errors import PermanentStepFailure, StepFailed
from reconciler.model.start_work import API_SOCKET_FILE, Hook, StartWork

FAILED = "hook_failed"


class HookRun(NamedTuple):
    """One hook that ran for a container; ``stage`` is pre_start, post_start or pre_stop."""

    container: str
    stage: str
    command: tuple[str, ...]


class HookScript(NamedTuple):
    """How hooks of a service behave: exit code by stage, and seconds that each takes."""

    codes: Mapping[str, int] = {}
    takes: float = 0.0


NO_HOOKS = HookScript()


class StartWorker:
    """``files`` are those copied into each container, by its id and their path; ``runs`` are all hooks so
    far.
    """

    def __init__(self) -> None:
        self.files: dict[str, dict[str, str]] = {}
        self.runs: list[HookRun] = []

    async def before_start(self, container: str, work: StartWork, behaviour: HookScript) -> None:
        """Run pre_start hooks and copy the files, as the real adapter does."""
        await self._run(container, "pre_start", work.pre_start, behaviour)
        if work.read_only and (work.files or work.api_socket):
            raise PermanentStepFailure("nothing can be copied into a read-only container", "files_not_copied")
        held = self.files.setdefault(container, {})
        # Variables have no values here, because there is no Compose.
        held |= {file.target: file.content or f"${file.variable}" for file in work.files}
        if work.api_socket:
            held[API_SOCKET_FILE] = "{}"

    async def post_start(self, container: str, work: StartWork, behaviour: HookScript) -> None:
        """Run the hooks after a start; errors as for ``Engine.act``."""
        await self._run(container, "post_start", work.post_start, behaviour)

    async def pre_stop(self, container: str, work: StartWork, behaviour: HookScript, grace: float) -> str:
        """Run the hooks before a stop, for at most ``grace`` seconds; return the problem."""
        try:
            async with asyncio.timeout(max(grace, 1.0)):
                await self._run(container, "pre_stop", work.pre_stop, behaviour)
        except TimeoutError:
            return "the pre_stop hook did not end in time"
        except StepFailed as error:
            return str(error)
        return ""

    async def _run(self, container: str, stage: str, hooks: tuple[Hook, ...], behaviour: HookScript) -> None:
        for hook in hooks:
            self.runs.append(HookRun(container, stage, hook.command))
            if behaviour.takes:
                await asyncio.sleep(behaviour.takes)
            code = behaviour.codes.get(stage, 0)
            if code:
                raise StepFailed(f"the {stage} hook ended with exit code {code}", FAILED)
