"""Creates containers and builds images from the resolved model with Docker Compose.

Compose is the reference for what a Compose file means, so networks, volumes, secrets, builds and devices are
left to it. Starting, stopping and removing single containers is not done here; ``resolve`` reads the files.

Every call gets the same environment and project directory, which is also its working directory and PWD, as
in a person's shell. Calls that change something run one at a time per project, under a lock that the child
inherits.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from reconciler.engine.compose.discovery import Compose, environment, find_compose
from reconciler.engine.compose.resolve import not_runnable
from reconciler.engine.compose.subprocess import ChildTimedOut, hold_lock, run
from reconciler.engine.error_reasons import failure, lost_engine, redact
from reconciler.errors import EngineError, OutcomeUnknown, StepFailed
from reconciler.host.compose_paths import working_directory
from reconciler.model.json_text import load_json
from reconciler.model.stack import Stack

__all__ = ["Compose", "ComposeRunner", "find_compose"]

_log = logging.getLogger(__name__)
_CREATE_QUIET = 120.0
_BUILD_QUIET = 900.0
"""Seconds without a word; a compiler in a build may be silent for long."""
_CREATE_LIMIT = 900.0
_BUILD_LIMIT = 7200.0
_LOCK_PATIENCE = 900.0

_SECRET_NAME = re.compile(r"pass|secret|token|key|credential|pwd|auth", re.IGNORECASE)
_SHORTEST_SECRET = 4
"""Shorter values are not worth hiding, and would blot out half of a message."""
_PROGRESS = re.compile(
    r"^\s*(?:Container|Network|Volume|Service|Image)?\s*\S+\s+"
    r"(?:Creating|Created|Recreate|Recreated|Running|Building|Built|Pulling|Pulled|Stopping|Stopped|Error)\s*$"
)
_NO_BUILDX = re.compile(r"buildx", re.IGNORECASE)


class ComposeRunner:
    """Makes images and containers of a stack's frozen model.

    ``locks`` is a directory that outlives the daemon: a child of a killed daemon is waited for
    through the lock in it.
    """

    def __init__(self, locks: Path, environ: Mapping[str, str]) -> None:
        self._locks = locks
        self._environ = environ
        self._turns: dict[str, asyncio.Lock] = {}
        self._found: tuple[Compose, tuple[int, int]] | None = None

    async def compose(self) -> Compose:
        """The Compose in use; looked for again when its binary was replaced.

        Raises:
            StepFailed: there is none, with the remedy.
        """
        if self._found is None or _stamp(self._found[0].path) != self._found[1]:
            found = await asyncio.to_thread(find_compose, self._environ)
            for other in found.passed_over:
                _log.warning("a Docker Compose is not used", extra={"reason": other, "used": str(found)})
            if reason := found.verdict.reason:
                _log.warning(
                    "Docker Compose is of a bad version", extra={"used": str(found), "reason": reason}
                )
            self._found = (found, _stamp(found.path))
        return self._found[0]

    async def create(
        self,
        stack: Stack,
        services: Sequence[str],
        *,
        anew: bool,
        scale: Mapping[str, int],
        more: Mapping[str, str] | None = None,
    ) -> None:
        """Make containers, not started, and the networks and volumes that they need.

        ``scale`` is how many containers of each service are to be there afterwards. Compose removes what is
        more than that, so it must never be below the number that is there.

        With ``anew``, existing ones are replaced: the old container is stopped and removed by
        Compose, its volumes, anonymous ones too, go over to the new one. ``more`` are environment
        variables for this call.
        """
        model = await asyncio.to_thread(_model, stack.model)
        grace = max((stack.services[name].stop_grace for name in services), default=0.0) if anew else 0.0
        await self._change(
            stack,
            [
                "up",
                "--no-start",
                "--no-deps",
                "--force-recreate" if anew else "--no-recreate",
                "--pull",
                "never",
                "--no-build",
                *_scales(model, scale),
                *services,
            ],
            quiet=_CREATE_QUIET + grace,
            limit=_CREATE_LIMIT + grace,
            more=more,
        )

    async def build(self, stack: Stack, services: Sequence[str]) -> None:
        """Build the images of these services."""
        arguments = ["build", *services]
        try:
            await self._change(stack, arguments, quiet=_BUILD_QUIET, limit=_BUILD_LIMIT)
        except StepFailed as error:
            if not _NO_BUILDX.search(str(error)):
                raise
            # Newer versions build through the buildx plugin alone, which many boxes lack; the engine's
            # own builder is still there.
            await self._change(
                stack, arguments, quiet=_BUILD_QUIET, limit=_BUILD_LIMIT, more={"DOCKER_BUILDKIT": "0"}
            )

    async def _change(
        self,
        stack: Stack,
        arguments: Sequence[str],
        *,
        quiet: float,
        limit: float,
        more: Mapping[str, str] | None = None,
    ) -> None:
        compose = await self.compose()
        # A build touches no container, network or volume and may take long: it must hold up no creating.
        lane = f"{stack.name}-build" if arguments[0] == "build" else stack.name
        turn = self._turns.setdefault(lane, asyncio.Lock())
        async with turn, hold_lock(self._locks / f"compose-{lane}.lock", _LOCK_PATIENCE) as descriptor:
            try:
                done = await run(
                    [compose.path, *_project(stack), *arguments],
                    environ=environment(self._environ) | dict(more or {}),
                    directory=working_directory(stack.directory),
                    quiet=quiet,
                    limit=limit,
                    pass_fds=(descriptor,),
                )
            except ChildTimedOut as error:
                message = f"Docker Compose did not end in time (`{arguments[0]}`) and was killed"
                raise OutcomeUnknown(message) from error
            except OSError as error:
                raise not_runnable(compose, error) from error
        if done.code:
            secrets = secrets_in(await asyncio.to_thread(_model, stack.model))
            raise _refusal(done.said, secrets)


def _project(stack: Stack) -> list[str]:
    return [
        "--ansi",
        "never",
        "-f",
        stack.model,
        "--project-directory",
        stack.directory,
        "-p",
        stack.name,
        "--profile",
        "*",
    ]


def _refusal(said: Sequence[str], secrets: Sequence[str]) -> EngineError:
    """The error for a Compose call that failed; what it said last that is not mere progress."""
    telling = [line for line in said if not _PROGRESS.match(line) and " level=warning " not in line]
    text = redact("\n".join(telling[-3:]), secrets) or "Docker Compose failed and gave no reason"
    last = redact(telling[-1], secrets) if telling else text
    return lost_engine(text) or failure(last if failure(last).reason != "step_failed" else text)


@lru_cache(maxsize=2)
def _model(path: str) -> Mapping[str, Any]:
    """The frozen model; each generation has a path of its own, so it can be kept."""
    try:
        content = load_json(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        message = f"the resolved Compose model {path} can't be read: {error}"
        raise StepFailed(message, "model_missing") from error
    services: Mapping[str, Any] = content.get("services") or {}
    return services


def _scales(model: Mapping[str, Any], scale: Mapping[str, int]) -> list[str]:
    """Options for the services of which another number is wanted than their definition asks for."""
    options: list[str] = []
    for name, number in scale.items():
        definition = model.get(name) or {}
        replicas = (definition.get("deploy") or {}).get("replicas", definition.get("scale", 1))
        if replicas != number:
            options += ["--scale", f"{name}={number}"]
    return options


def secrets_in(model: Mapping[str, Any]) -> list[str]:
    """Values in the model whose names say that they are not for everybody's eyes."""
    found: set[str] = set()
    for definition in model.values():
        for source in (definition.get("environment"), (definition.get("build") or {}).get("args")):
            for name, value in (source or {}).items():
                if _SECRET_NAME.search(name) and len(str(value or "")) >= _SHORTEST_SECRET:
                    found.add(str(value))
    return sorted(found)


def platform_of(stack: Stack, service: str) -> str:
    """The platform that the definition asks for; empty: the engine's own."""
    definition = _model(stack.model).get(service) if stack.model else None
    return str((definition or {}).get("platform") or "")


def _stamp(path: str) -> tuple[int, int]:
    try:
        status = Path(path).stat()
    except OSError:
        return (0, 0)
    return (status.st_ino, status.st_mtime_ns)
