"""Finds Podman's socket as ``podman --remote`` does."""

from __future__ import annotations

import os
from collections.abc import Mapping

_ROOTFUL = "unix:///run/podman/podman.sock"


def podman_url(environ: Mapping[str, str]) -> str:
    """Return Podman's address: CONTAINER_HOST, else DOCKER_HOST, else the socket of this user."""
    return environ.get("CONTAINER_HOST") or environ.get("DOCKER_HOST") or _own_socket(environ, os.getuid())


def _own_socket(environ: Mapping[str, str], uid: int) -> str:
    if uid == 0:
        return _ROOTFUL
    runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}"
    return f"unix://{runtime}/podman/podman.sock"


def as_docker_host(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment in which the docker CLI and Compose use this Podman."""
    return {**environ, "DOCKER_HOST": podman_url(environ)}
