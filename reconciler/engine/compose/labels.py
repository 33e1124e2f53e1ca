"""Computes the config-hash label for definitions that Compose changes before it hashes them.

Compose replaces ``service:x`` with container ids (``network_mode``, ``ipc``, ``pid``, ``volumes_from``) and
``use_api_socket`` with mounts, and then hashes the definition (docker/compose 2.30 to 5.5:
``pkg/compose/convergence.go``, ``apiSocket.go``). ``config --hash`` hashes the definition as written, so the
two never match. Here Compose hashes the definition with the ids that the container really uses; equal labels
then mean an unchanged definition.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from reconciler.engine.compose.discovery import Compose, environment
from reconciler.engine.compose.subprocess import ChildTimedOut, run
from reconciler.errors import StepFailed
from reconciler.host.compose_paths import working_directory
from reconciler.model.json_text import load_json
from reconciler.model.observed import LABEL_UNKNOWN, Container, ObservedState
from reconciler.model.stack import Stack

_DEADLINE = 30.0
_NAMESPACES = ("network_mode", "ipc", "pid")
_VOLUMES_FROM = "volumes_from"
_HASHES_DEPENDENCIES = (2, 30)
"""The first version that leaves ``depends_on`` out of its hash; ``volumes_from`` adds to it."""
_SOCKET = "/var/run/docker.sock"
_SOCKET_CONFIG = {"source": "#apisocket", "target": "/run/secrets/docker/config.json"}

_log = logging.getLogger(__name__)

Definition = Mapping[str, Any]


class _Key(NamedTuple):
    model: str
    compose: str
    service: str
    borrowed: tuple[tuple[str, str], ...]


class Labels:
    """Computes labels and caches those of the last observation: one Compose call per change, about 80 ms.

    ``compose`` finds Docker Compose; ``environ`` is the environment of the daemon.
    """

    def __init__(self, compose: Callable[[], Awaitable[Compose]], environ: Mapping[str, str]) -> None:
        self._compose = compose
        self._environ = environ
        self._known: dict[_Key, str] = {}

    async def add_to(self, observed: ObservedState, stack: Stack) -> ObservedState:
        """Return the observation with ``ObservedState.labels``; a failure of Compose never raises."""
        keys_by_id = {c.id: key for c in observed.containers if (key := _key(stack, c)) is not None}
        if not observed.complete or not stack.model or not keys_by_id:
            return observed
        missing = set(keys_by_id.values()) - self._known.keys()
        if missing:
            try:
                found = await self._computed(stack, observed, missing)
            except Exception:  # noqa: BLE001 - logged, and the loop goes on
                # An unforeseen model must not end the observation, and with it the work on every service.
                _log.exception("labels can't be computed")
                found = dict.fromkeys(missing, LABEL_UNKNOWN)
            self._known = {
                key: label for key, label in self._known.items() if key in keys_by_id.values()
            } | found
        labels = {
            id_: label for id_, key in keys_by_id.items() if (label := self._known[key]) is not _NOT_REWRITTEN
        }
        return replace(observed, labels=labels) if labels else observed

    async def _computed(self, stack: Stack, observed: ObservedState, keys: set[_Key]) -> dict[_Key, str]:
        model = await asyncio.to_thread(_read, stack.model)
        services = model.get("services") or {}
        owners = {name: c.service for c in observed.containers for name in (c.id, c.name)}
        found: dict[_Key, str] = {}
        waiting: dict[_Key, Definition] = {}
        for key in sorted(keys):
            definition = services.get(key.service) or {}
            if not rewritten(definition, services):
                found[key] = _NOT_REWRITTEN
            elif not reproducible(definition, services, _numbers(stack.compose)):
                found[key] = LABEL_UNKNOWN
            elif (made := as_created(definition, key.borrowed, owners)) is None:
                found[key] = _NOT_REWRITTEN
            else:
                waiting[key] = made
        while waiting:
            # Containers of one service may use different ones: each call hashes a service once.
            batch = {key.service: key for key in waiting}
            changed = {key.service: waiting.pop(key) for key in batch.values()}
            hashes = await self._hashed(
                stack, {**model, "services": {**services, **changed}}, sorted(changed)
            )
            found |= {key: hashes.get(name, LABEL_UNKNOWN) for name, key in batch.items()}
        return found

    async def _hashed(
        self, stack: Stack, model: Mapping[str, Any], services: Sequence[str]
    ) -> dict[str, str]:
        # With its consistency check, Compose would take the ids for names of services.
        arguments = ["--ansi", "never", "-f", "-", "--project-directory", stack.directory, "-p", stack.name]
        arguments += ["--profile", "*", "config", "--no-consistency", "--hash", ",".join(services)]
        try:
            compose = await self._compose()
            done = await run(
                [compose.path, *arguments],
                environ=environment(self._environ),
                directory=working_directory(stack.directory),
                quiet=_DEADLINE,
                limit=_DEADLINE,
                given=json.dumps(model).encode(),
                keep_output=True,
            )
        except (StepFailed, ChildTimedOut, OSError) as error:
            _log.warning("labels can't be computed", extra={"error": str(error)})
            return {}
        if done.code:
            # Compose's output may quote values of the model.
            _log.warning("labels can't be computed", extra={"services": list(services), "code": done.code})
            return {}
        lines = done.output.decode(errors="replace").split("\n")
        return {name: label for name, _, label in (line.partition(" ") for line in lines if line)}


_NOT_REWRITTEN = "as written"


def rewritten(definition: Definition, services: Mapping[str, Any]) -> bool:
    """Whether Compose changes this definition before it hashes it."""
    return (
        any(str(definition.get(key) or "").startswith("service:") for key in _NAMESPACES)
        or bool(definition.get(_VOLUMES_FROM))
        or bool(definition.get("use_api_socket"))
        or _depends_on_outcomes(definition, services)
    )


def reproducible(definition: Definition, services: Mapping[str, Any], version: Sequence[int]) -> bool:
    """Whether Compose's hash depends on the model and the containers only; () means a new version."""
    if definition.get(_VOLUMES_FROM) and version and tuple(version) < _HASHES_DEPENDENCIES:
        return False
    return not _depends_on_outcomes(definition, services)


def _depends_on_outcomes(definition: Definition, services: Mapping[str, Any]) -> bool:
    """Whether Compose inserts a model's address, a provider's variables or an image's id."""
    return (
        bool(definition.get("models"))
        or any((services.get(name) or {}).get("provider") for name in definition.get("depends_on") or ())
        or any(volume.get("type") == "image" for volume in definition.get("volumes") or ())
    )


def as_created(
    definition: Definition, borrowed: Sequence[tuple[str, str]], owners: Mapping[str, str]
) -> dict[str, Any] | None:
    """Return the definition that Compose hashed for a container which uses the containers in ``borrowed``.

    ``borrowed`` is ``Container.borrowed``; ``owners`` maps ids and names of containers to their services.
    None if the container can't have been created from this definition: it uses no container, or one of
    another service.
    """
    made = dict(definition)
    for key in _NAMESPACES:
        kind, _, name = str(definition.get(key) or "").partition(":")
        if kind == "service":
            id_ = next((of for what, of in borrowed if what == key), "")
            if not id_ or owners.get(id_, name) != name:
                return None
            made[key] = f"container:{id_}"
    wanted = definition.get(_VOLUMES_FROM) or ()
    given = [of for what, of in borrowed if what == _VOLUMES_FROM]
    if len(wanted) != len(given):
        return None
    for entry, of in zip(wanted, given, strict=True):
        first, *rest = str(entry).split(":")
        is_named = first == "container"
        if (is_named and [of] != rest[:1]) or (not is_named and owners.get(of, first) != first):
            return None
    if wanted:
        made[_VOLUMES_FROM] = given
    return _with_socket(made) if definition.get("use_api_socket") else made


def _with_socket(definition: dict[str, Any]) -> dict[str, Any]:
    socket = {"type": "bind", "source": _SOCKET, "target": _SOCKET}
    return {
        **definition,
        "volumes": [*(definition.get("volumes") or ()), socket],
        "environment": {"DOCKER_CONFIG": "/run/secrets/docker", **(definition.get("environment") or {})},
        "configs": [*(definition.get("configs") or ()), _SOCKET_CONFIG],
    }


def _key(stack: Stack, container: Container) -> _Key | None:
    """Return None if no label must be computed: it is the definition's hash, or of another version."""
    service = stack.services.get(container.service)
    if service is None or not container.config_hash or container.config_hash == service.config_hash:
        return None
    if container.compose and stack.compose and container.compose != stack.compose:
        return None
    return _Key(stack.model, stack.compose, container.service, container.borrowed)


def _read(path: str) -> dict[str, Any]:
    try:
        content = load_json(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        _log.warning("the resolved Compose model can't be read", extra={"path": path, "error": str(error)})
        return {}
    return content if isinstance(content, dict) else {}


def _numbers(version: str) -> tuple[int, ...]:
    return Compose("", version, "").numbers
