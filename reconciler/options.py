"""What the daemon is told when it is started. Parsed by the command line, read by ``daemon.run``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

INSTALLED_STATE = Path("/var/lib/service-manager")
INSTALLED_DESIRED = Path("/etc/service-manager/desired-state")


class Address(NamedTuple):
    """Where to listen."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The options of ``run`` (CONTRACT section 1). Paths are absolute, ``resync`` is in seconds.

    ``compose_file`` are added after those of ``stack.yaml``, in order. ``metrics_listen`` None: no
    second listener. ``insecure`` allows an address other than loopback without any API key.
    """

    desired_state: Path
    state_dir: Path
    host: str = "127.0.0.1"
    port: int = 8000
    metrics_listen: Address | None = None
    compose_file: tuple[Path, ...] = ()
    engine: str = "docker"
    resync: float = 60.0
    insecure: bool = False
