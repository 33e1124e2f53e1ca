"""The daemon's options: parsed by the command line, read by ``daemon.run``."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import NamedTuple

INSTALLED_STATE = Path("/var/lib/service-manager")
INSTALLED_DESIRED = Path("/etc/service-manager/desired-state")

ENGINES = ("docker", "podman", "simulated")
"""The values of ``--engine``, the default first; ``engine.registry`` has an entry for each."""


class Address(NamedTuple):
    """A host and port to listen on."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The options of ``run`` (CONTRACT section 1). Paths are absolute, ``resync`` is in seconds.

    ``compose_file`` are added after those of ``stack.yaml``, in order. ``metrics_listen`` None: no
    second listener. ``allowed_host`` are accepted Host names besides the address and the machine's own name,
    ``trusted_proxy`` the addresses of proxies whose ``X-Forwarded-*`` headers count, ``root_path`` is the
    path below which a proxy serves the daemon.
    ``insecure`` allows an address other than loopback without an API key.

    Git: with ``git_url`` the desired state is fetched from there every ``git_interval`` seconds into
    ``desired_state``; ``git_path`` is the folder in the repository that holds the files. ``git_verify`` is a
    file of public keys that commits must be signed with, ``git_webhook_secret`` a file with the webhook's
    secret. ``git_writes`` (push or refuse) controls writes, ``git_rewritten`` (follow or stop) the reaction
    to a rewritten upstream branch. ``git_commit_edits`` commits edits of the files.
    """

    desired_state: Path
    state_dir: Path
    host: str = "127.0.0.1"
    port: int = 8000
    metrics_listen: Address | None = None
    allowed_host: tuple[str, ...] = ()
    trusted_proxy: tuple[IPv4Network | IPv6Network, ...] = ()
    root_path: str = ""
    compose_file: tuple[Path, ...] = ()
    engine: str = ENGINES[0]
    resync: float = 60.0
    insecure: bool = False
    git_url: str = ""
    git_branch: str = "main"
    git_path: str = ""
    git_interval: float = 60.0
    git_verify: Path | None = None
    git_writes: str = "push"
    git_rewritten: str = "follow"
    git_webhook_secret: Path | None = None
    git_commit_edits: bool = False

    @property
    def directory(self) -> Path:
        """The folder that holds stack.yaml and groups.yaml."""
        return self.desired_state / self.git_path if self.git_path else self.desired_state
