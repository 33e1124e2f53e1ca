"""Interprets refusals of the engine for commands."""

from __future__ import annotations

import contextlib

from reconciler.engine.docker.http import DockerHttp, Refused
from reconciler.engine.docker.parse import id_of, name_of
from reconciler.engine.error_reasons import failure, lost_engine, wanted_port
from reconciler.errors import EngineError, StepFailed
from reconciler.model.observed import Action


async def refusal_error(http: DockerHttp, text: str) -> EngineError:
    """Return the error for a refusal; for a conflict, it names the holder of the port."""
    refused: EngineError = lost_engine(text) or failure(text)
    port = wanted_port(text) if refused.reason == "port_conflict" else 0
    if port and isinstance(refused, StepFailed):
        return StepFailed(f"port {port} is taken by {await _holder(http, port)}", refused.reason)
    return refused


async def _holder(http: DockerHttp, port: int) -> str:
    with contextlib.suppress(EngineError, Refused):
        for entry in await http.get("/containers/json"):
            if any(binding.get("PublicPort") == port for binding in entry.get("Ports") or ()):
                return f"container {name_of(entry) or id_of(entry)[:12]}"
    return "a program outside of Docker, or another engine"


def is_missing(error: Refused) -> bool:
    """Whether the engine has no such container."""
    return error.status == 404 and "no such container" in str(error).lower()


def is_done(action: Action, error: Refused) -> bool:
    """Whether a refusal only means that the command was already carried out."""
    text = str(error).lower()
    match action:
        case Action.STOP | Action.REMOVE:
            return is_missing(error)
        case Action.KILL:
            # Docker: "… is not running", Podman: "can only kill running containers".
            return is_missing(error) or error.status == 409
        case Action.UNPAUSE:
            return "is not paused" in text
        case Action.RENAME:
            return "same name as its current name" in text
        case _:
            return False
