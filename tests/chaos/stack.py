"""The sandbox's small stack with memory limits and one published port."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tests.support.harness.sandbox import COMPOSE, FILES

DATA = ("db-data", "cache-data")
"""Volumes that must outlive everything."""
_DB, _API = 0.3, 0.2
NEEDS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "migrate": {"db": _DB},
        "api": {"db": _DB, "migrate": 0.0},
        "worker": {"api": 0.0},
        # Their group waits for the whole group of the API.
        "web": {"api": _API, "worker": 0.0},
        "edge": {"web": 0.0, "api": _API, "worker": 0.0},
    }
)
"""What must have been running for how many seconds, at the least, before a service starts."""
_LIMIT = "  image: service-manager/standin:1\n  pull_policy: never\n"
_EDGE = "    container_name: small-edge\n"


def files(port: int) -> dict[str, str]:
    """Desired state; the service ``edge`` publishes this port on loopback."""
    assert COMPOSE.count(_LIMIT) == COMPOSE.count(_EDGE) == 1
    limited = COMPOSE.replace(_LIMIT, f"{_LIMIT}  mem_limit: 64m\n")
    published = limited.replace(_EDGE, f'{_EDGE}    ports: ["127.0.0.1:{port}:80"]\n')
    return {**FILES, "compose.yaml": published}
