"""Suggests how to install a good Docker Compose on this machine."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from reconciler.engine.compose.release import DIGESTS, VERSION, architecture, url

PLUGIN = Path("/usr/local/lib/docker/cli-plugins/docker-compose")
"""The plugin folder for all users that comes before those of packages."""
_PACKAGES = {
    "alpine": "apk add docker-cli-compose",
    "arch": "pacman -S docker-compose",
}
"""Distributions whose own package follows Compose's releases within weeks. Debian 13 has 2.26.1, Ubuntu 22.04
and 24.04 began with 2.2x: their packages are no remedy.
"""


class Host(NamedTuple):
    """The facts that the remedy depends on. ``docker_packages`` is the command that installs from Docker's
    own package repository; empty if that is not set up.
    """

    machine: str
    distribution: frozenset[str] = frozenset()
    docker_packages: str = ""


def this_host(root: Path = Path("/")) -> Host:
    """Return the facts of this machine; ``root`` is another root directory to read."""
    return Host(platform.machine(), _distribution(root), _docker_packages(root))


def remedy(host: Host, in_use: Path | None = None) -> str:
    """Return a sentence that says how to get a good Docker Compose onto this machine.

    ``in_use`` is the program that comes first now: a plugin outside the packages' folders hides all others,
    so it has to be replaced itself.
    """
    hides = in_use is not None and in_use.parent.name == "cli-plugins" and not in_use.is_relative_to("/usr")
    ways = [download(architecture(host.machine), host.machine, in_use if in_use and hides else PLUGIN)]
    if hides:
        return ways[0]
    own = next((_PACKAGES[name] for name in sorted(host.distribution) if name in _PACKAGES), "")
    if host.docker_packages or own:
        ways.insert(0, f"`{host.docker_packages or own}`")
    return ", or ".join(ways)


def download(known: str, machine: str, place: Path = PLUGIN) -> str:
    """Return how to get the pinned program; ``known`` is Docker's name of the architecture, or empty."""
    if not known:
        return (
            f"put a Docker Compose {VERSION} or newer for {machine} at {place} (mode 0755): "
            "Service Manager brings none for this architecture"
        )
    return (
        f"download {url(known)} (on another machine if this one is offline), see that its SHA-256 is "
        f"{DIGESTS[known]}, and install it: `sudo install -D -m 0755 docker-compose-linux-{known} {place}`"
    )


def _distribution(root: Path) -> frozenset[str]:
    release = _release(root)
    return frozenset({release.get("ID", "linux"), *release.get("ID_LIKE", "").split()})


def _release(root: Path) -> Mapping[str, str]:
    for name in ("etc/os-release", "usr/lib/os-release"):
        try:
            lines = (root / name).read_text(errors="replace").splitlines()
        except OSError:
            continue
        pairs = (line.partition("=") for line in lines)
        return {key: value.strip().strip("\"'") for key, _, value in pairs}
    return {}


def _docker_packages(root: Path) -> str:
    for folder, command in (
        ("etc/apt/sources.list.d", "sudo apt-get install docker-compose-plugin"),
        ("etc/yum.repos.d", "sudo dnf install docker-compose-plugin"),
    ):
        try:
            # Docker's instructions call the file docker.list, docker.sources or docker-ce.repo.
            if any(file.name.startswith("docker") for file in (root / folder).iterdir()):
                return command
        except OSError:
            continue
    return ""
