"""The small stack under fire: the yard's, with memory limits, and a port that one service publishes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tests.e2e.yard import COMPOSE, FILES

DATA = ("db-data", "cache-data")
"""Volumes that must outlive everything."""
NEEDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "migrate": ("db",),
        "api": ("db", "migrate"),
        "worker": ("api",),
        # Its group waits for all of the group of the API.
        "web": ("api", "worker"),
        "edge": ("web", "api", "worker"),
    }
)
"""What must be ready before a service starts."""
READY_AFTER: Mapping[str, float] = MappingProxyType({"db": 0.3, "api": 0.2})
"""Seconds from the start of a service until it is ready at the earliest; 0 for the others."""
_LIMIT = "  image: service-manager/standin:1\n  pull_policy: never\n"
_EDGE = "    container_name: small-edge\n"


def files(port: int) -> dict[str, str]:
    """Desired state; the service ``edge`` publishes this port on loopback."""
    assert COMPOSE.count(_LIMIT) == COMPOSE.count(_EDGE) == 1
    limited = COMPOSE.replace(_LIMIT, f"{_LIMIT}  mem_limit: 64m\n")
    published = limited.replace(_EDGE, f'{_EDGE}    ports: ["127.0.0.1:{port}:80"]\n')
    return {**FILES, "compose.yaml": published}
