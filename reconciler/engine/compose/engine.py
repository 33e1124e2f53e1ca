"""Creates containers and builds images from the resolved model with Docker Compose.

Compose is the reference for what a Compose file means, so it creates networks, volumes, secrets, builds and
devices. This module does not start, stop or remove single containers; ``resolve`` reads the files.

Every call gets the same environment and project directory, which is also its working directory and PWD, as
in a person's shell. Calls that change something run one at a time per project, under a lock that the child
inherits.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from reconciler.engine.compose.alternatives import with_unique_names
from reconciler.engine.compose.build_messages import NEEDS_BUILDKIT, build_messages
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
"""Seconds without output; a compiler may be silent for long during a build."""
_CREATE_LIMIT = 900.0
_BUILD_LIMIT = 7200.0
_LOCK_PATIENCE = 900.0

_SECRET_NAME = re.compile(r"pass|secret|token|key|credential|pwd|auth", re.IGNORECASE)
_SHORTEST_SECRET = 4
"""Shorter values are not worth redacting: that would remove half of a message."""
_PROGRESS = re.compile(
    r"^\s*(?:Container|Network|Volume|Service|Image)?\s*\S+\s+"
    r"(?:Creating|Created|Recreate|Recreated|Running|Building|Built|Pulling|Pulled|Stopping|Stopped|Error)\s*$"
)
_NO_BUILDX = re.compile(r"buildx", re.IGNORECASE)


class ComposeRunner:
    """Creates images and containers from a stack's stored model.

    ``locks`` is a directory that outlives the daemon: its lock files make a new daemon wait for a Compose
    process of a killed one.
    """

    def __init__(self, locks: Path, environ: Mapping[str, str]) -> None:
        self._locks = locks
        self._environ = environ
        self._turns: dict[str, asyncio.Lock] = {}
        self._found: tuple[Compose, tuple[int, int]] | None = None

    async def compose(self) -> Compose:
        """Return the Compose in use; searches again if its binary was replaced.

        Raises:
            StepFailed: no Compose was found; has the remedy.
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
        recreate: bool,
        scale: Mapping[str, int],
        more: Mapping[str, str] | None = None,
    ) -> None:
        """Create containers without starting them, and the networks and volumes that they need.

        ``scale`` is the number of containers of each service afterwards. Compose removes containers beyond
        it, so it must never be below the current number.

        With ``recreate``, existing containers are replaced: Compose stops and removes the old one, and the
        new one takes over its volumes, including anonymous ones. ``more`` are environment variables for this
        call.
        """
        model = await asyncio.to_thread(_model, stack.model)
        grace = max((stack.services[name].stop_grace for name in services), default=0.0) if recreate else 0.0
        await self._change(
            stack,
            services,
            [
                "up",
                "--no-start",
                "--no-deps",
                "--force-recreate" if recreate else "--no-recreate",
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
            await self._change(stack, services, arguments, quiet=_BUILD_QUIET, limit=_BUILD_LIMIT)
        except StepFailed as error:
            if str(error) == NEEDS_BUILDKIT or not _NO_BUILDX.search(str(error)):
                raise
            # Newer versions build only through the buildx plugin, which many machines lack; the engine's own
            # builder still exists.
            await self._change(
                stack,
                services,
                arguments,
                quiet=_BUILD_QUIET,
                limit=_BUILD_LIMIT,
                more={"DOCKER_BUILDKIT": "0"},
            )

    async def _change(
        self,
        stack: Stack,
        services: Sequence[str],
        arguments: Sequence[str],
        *,
        quiet: float,
        limit: float,
        more: Mapping[str, str] | None = None,
    ) -> None:
        compose = await self.compose()
        # A build touches no container, network or volume and may take long: it must not delay creation.
        lane = f"{stack.name}-build" if arguments[0] == "build" else stack.name
        turn = self._turns.setdefault(lane, asyncio.Lock())
        lock = hold_lock(self._locks / f"compose-{lane}.lock", _LOCK_PATIENCE)
        async with turn, lock as descriptor, _model_for(stack.model, services) as model:
            try:
                done = await run(
                    [compose.path, *_project(stack, model), *arguments],
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
            messages = build_messages(done.messages) if arguments[0] == "build" else done.messages
            raise _refusal(messages, secrets)


def _project(stack: Stack, model: str) -> list[str]:
    return [
        "--ansi",
        "never",
        "-f",
        model,
        "--project-directory",
        stack.directory,
        "-p",
        stack.name,
        "--profile",
        "*",
    ]


@asynccontextmanager
async def _model_for(path: str, services: Sequence[str]) -> AsyncIterator[str]:
    """Yield the file to give to Compose: the stored model, or a copy in which each container name is unique.

    The copy has the same file name, by which containers of a daemon are known.
    """
    stored = await asyncio.to_thread(_text, path)
    distinct = await asyncio.to_thread(with_unique_names, stored, services)
    if distinct is stored:
        yield path
        return
    with TemporaryDirectory(prefix="service-manager-") as folder:
        copy = Path(folder) / Path(path).name
        await asyncio.to_thread(copy.write_bytes, distinct)
        yield str(copy)


def _text(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        message = f"the resolved Compose model {path} can't be read: {error}"
        raise StepFailed(message, "model_missing") from error


def _refusal(messages: Sequence[str], secrets: Sequence[str]) -> EngineError:
    """Return the error for a failed Compose call, from its last lines that are not mere progress."""
    relevant = [line for line in messages if not _PROGRESS.match(line) and " level=warning " not in line]
    text = redact("\n".join(relevant[-3:]), secrets) or "Docker Compose failed and gave no reason"
    last = redact(relevant[-1], secrets) if relevant else text
    return lost_engine(text) or failure(last if failure(last).reason != "step_failed" else text)


@lru_cache(maxsize=2)
def _model(path: str) -> Mapping[str, Any]:
    """Return the services of the stored model; each generation has its own path, so the result is cached."""
    try:
        content = load_json(_text(path))
    except ValueError as error:
        message = f"the resolved Compose model {path} can't be read: {error}"
        raise StepFailed(message, "model_missing") from error
    services: Mapping[str, Any] = content.get("services") or {}
    return services


def _scales(model: Mapping[str, Any], scale: Mapping[str, int]) -> list[str]:
    """Return options for the services whose number differs from their definition."""
    options: list[str] = []
    for name, number in scale.items():
        definition = model.get(name) or {}
        replicas = (definition.get("deploy") or {}).get("replicas", definition.get("scale", 1))
        if replicas != number:
            options += ["--scale", f"{name}={number}"]
    return options


def secrets_in(model: Mapping[str, Any]) -> list[str]:
    """Return the values in the model whose names mark them as secret."""
    found: set[str] = set()
    for definition in model.values():
        for source in (definition.get("environment"), (definition.get("build") or {}).get("args")):
            for name, value in (source or {}).items():
                if _SECRET_NAME.search(name) and len(str(value or "")) >= _SHORTEST_SECRET:
                    found.add(str(value))
    return sorted(found)


def platform_of(stack: Stack, service: str) -> str:
    """Return the platform that the definition requires; empty: the engine's own."""
    definition = _model(stack.model).get(service) if stack.model else None
    return str((definition or {}).get("platform") or "")


def _stamp(path: str) -> tuple[int, int]:
    try:
        status = Path(path).stat()
    except OSError:
        return (0, 0)
    return (status.st_ino, status.st_mtime_ns)
