"""The engines that can be chosen with ``--engine``. The only module that knows their adapters.

An adapter is imported when it is used, so that no command loads the libraries of an engine that it does not
use. CONTRIBUTING.md ("Add an engine") describes what a new entry needs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from reconciler.engine import ComposeResolver, Engine, EngineCheck
from reconciler.options import ENGINES


class Create(Protocol):
    """Creates an engine; makes no call to it, so that a daemon starts while the engine is down."""

    def __call__(
        self, state_directory: Path, environ: Mapping[str, str] = os.environ, *, patience: float = 10.0
    ) -> Engine:
        """Create the engine.

        ``state_directory`` holds its locks and outlives the daemon, ``environ`` says where the engine is, and
        ``patience`` is how many seconds a read may take.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKind:
    """One kind of engine.

    ``address`` returns where an environment says the engine is, for people. ``checks`` returns its checks of
    ``doctor``, in the order to show. ``in_memory``: its containers exist only within the process that created
    the engine, so another process can't observe them.
    """

    name: str
    create: Create
    resolver: Callable[[Mapping[str, str]], ComposeResolver]
    address: Callable[[Mapping[str, str]], str]
    checks: Callable[[], tuple[EngineCheck, ...]]
    in_memory: bool = False


def kind(name: str) -> EngineKind:
    """Return the kind of engine of that name, one of ``options.ENGINES``."""
    return _KINDS[name]


def _create_docker(
    state_directory: Path, environ: Mapping[str, str] = os.environ, *, patience: float = 10.0
) -> Engine:
    from reconciler.engine.docker.engine import DockerEngine

    return DockerEngine(state_directory, environ=environ, patience=patience)


def _docker_address(environ: Mapping[str, str]) -> str:
    from reconciler.engine.docker.address import find_address

    return find_address(environ).url


def _docker_checks() -> tuple[EngineCheck, ...]:
    from reconciler.engine.compose.doctor_checks import check_compose
    from reconciler.engine.docker.doctor_checks import check_engine, check_socket

    return (check_socket, check_engine, check_compose)


def _create_podman(
    state_directory: Path, environ: Mapping[str, str] = os.environ, *, patience: float = 10.0
) -> Engine:
    from reconciler.engine.podman.engine import PodmanEngine

    return PodmanEngine(state_directory, environ=environ, patience=patience)


def _podman_address(environ: Mapping[str, str]) -> str:
    from reconciler.engine.podman.address import podman_url

    return podman_url(environ)


def _podman_checks() -> tuple[EngineCheck, ...]:
    from reconciler.engine.compose.doctor_checks import check_compose
    from reconciler.engine.podman.doctor_checks import check_engine, check_health_checks, check_socket

    return (check_socket, check_engine, check_health_checks, check_compose)


def _create_simulated(
    state_directory: Path, environ: Mapping[str, str] = os.environ, *, patience: float = 10.0
) -> Engine:
    from reconciler.engine.simulated.engine import SimulatedEngine

    return SimulatedEngine(wall=time.time)


def _simulated_checks() -> tuple[EngineCheck, ...]:
    from reconciler.engine.compose.doctor_checks import check_compose

    return (check_compose,)


def _docker_compose(environ: Mapping[str, str]) -> ComposeResolver:
    # Docker Compose defines the meaning of a Compose file, also for the simulated engine.
    from reconciler.engine.compose.resolve import DockerComposeResolver

    return DockerComposeResolver(environ)


_KINDS: Mapping[str, EngineKind] = {
    kind.name: kind
    for kind in (
        EngineKind(
            name="docker",
            create=_create_docker,
            resolver=_docker_compose,
            address=_docker_address,
            checks=_docker_checks,
        ),
        EngineKind(
            name="podman",
            create=_create_podman,
            resolver=_docker_compose,
            address=_podman_address,
            checks=_podman_checks,
        ),
        EngineKind(
            name="simulated",
            create=_create_simulated,
            resolver=_docker_compose,
            address=lambda _: "in memory",
            checks=_simulated_checks,
            in_memory=True,
        ),
    )
}
assert tuple(_KINDS) == ENGINES
