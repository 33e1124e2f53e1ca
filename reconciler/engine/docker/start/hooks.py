"""Runs the lifecycle hooks of a service around the start and stop of its container, as Compose does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from reconciler.engine.docker.http import DockerHttp, Refused
from reconciler.engine.docker.start.definition import Definition
from reconciler.engine.docker.start.exec import execute
from reconciler.engine.error_reasons import redact, truncate
from reconciler.errors import ContainerGone, EngineError, StepFailed
from reconciler.model.start_work import Hook

log = logging.getLogger(__name__)

FAILED = "hook_failed"
LONGEST = 900.0
"""Seconds for all hooks after a start; Compose has no limit."""
_SHORTEST = 1.0
"""Minimum number of seconds for hooks before a stop, even if the container itself has none."""


async def post_start(
    http: DockerHttp, container: str, definition: Definition, *, within: float = LONGEST
) -> None:
    """Run all hooks after a start, one after the other, until one fails.

    Raises:
        StepFailed: a hook failed, or all together took longer than ``within`` seconds.
        ContainerGone: the container is gone, or does not run any more.
    """
    hooks = definition.work.post_start
    for number, hook in enumerate(hooks, 1):
        name = hook_name("post_start", number, hooks)
        try:
            async with asyncio.timeout(within):
                await _run(http, container, hook, name, definition)
        except TimeoutError as error:
            raise StepFailed(f"{name} did not end within {within:.0f} s", FAILED) from error


async def pre_stop(http: DockerHttp, container: str, definition: Definition, *, grace: float) -> str:
    """Run all hooks before a stop, in the ``grace`` seconds that the stop itself may take after them.

    The stop follows in any case: returns the problem, or an empty string.
    """
    hooks = definition.work.pre_stop
    within, name = max(grace, _SHORTEST), ""
    try:
        async with asyncio.timeout(within):
            for number, hook in enumerate(hooks, 1):
                name = hook_name("pre_stop", number, hooks)
                await _run(http, container, hook, name, definition)
    except TimeoutError:
        return f"{name} did not end within {within:.0f} s, and the container was stopped all the same"
    except ContainerGone:
        return ""
    except EngineError as error:
        return f"{error}; the container was stopped all the same"
    return ""


async def _run(http: DockerHttp, container: str, hook: Hook, name: str, definition: Definition) -> None:
    try:
        ended = await execute(http, container, hook)
    except Refused as error:
        if error.status in {404, 409, 500} and _has_ended(str(error)):
            raise ContainerGone(f"container {container[:12]} does not run any more") from error
        raise StepFailed(f"{name} can't be run: {_safe(str(error), definition)}", FAILED) from error
    if ended.code:
        raise StepFailed(failure_text(name, ended.code, ended.output, definition), FAILED)


def hook_name(stage: str, number: int, hooks: Sequence[Hook]) -> str:
    """Return a hook's name for messages; its command may hold secrets, so it is numbered instead."""
    return f"the {stage} hook" if len(hooks) == 1 else f"{stage} hook {number} of {len(hooks)}"


def failure_text(name: str, code: int, output: str, definition: Definition) -> str:
    """Return why a hook failed, with its last lines, without secrets."""
    how = "ended with its container" if code < 0 else f"ended with exit code {code}"
    shown = _safe(output, definition)
    return f"{name} {how}" + (f": {shown}" if shown else "")


def _safe(text: str, definition: Definition) -> str:
    return truncate(redact(text, definition.secrets))


_NOT_RUNNING = (
    "no such container",
    "is not running",
    "is paused",
    # Podman 5.4, with the status 500.
    "can only create exec sessions on running containers",
)


def _has_ended(text: str) -> bool:
    shown = text.lower()
    return any(words in shown for words in _NOT_RUNNING)
