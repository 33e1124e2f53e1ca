"""The checks of ``doctor`` that concern Podman."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from reconciler.engine import Machine
from reconciler.engine.podman.address import podman_url
from reconciler.errors import ServiceManagerError
from reconciler.model.diagnosis import OK, PROBLEM, WARN, Check

_OLDEST = 5


def check_socket(machine: Machine) -> Check:
    """Check that Podman's socket exists and may be used."""
    name = "engine socket"
    url = podman_url(machine.environ)
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return Check(name, OK, f"the engine is reached at {url}")
    path = Path(parts.path)
    user = " --user" if path.is_relative_to("/run/user") else ""
    start = f"`systemctl{user} enable --now podman.socket`"
    remedy = f"{start}, or without systemd `podman system service --time=0 {url}`, or set CONTAINER_HOST"
    try:
        path.stat()
    except FileNotFoundError:
        return Check(name, PROBLEM, f"there is no {path}: Podman's service does not run", remedy)
    except PermissionError:
        return Check(name, PROBLEM, f"{path} can't be reached: a folder above it is closed", _same_user())
    if not os.access(path, os.R_OK | os.W_OK):
        return Check(name, PROBLEM, f"user {os.getuid()} may not use {path}", _same_user())
    return Check(name, OK, f"{path} is there and may be used")


def _same_user() -> str:
    return "run the daemon as the user whose containers it manages (root for /run/podman/podman.sock)"


def check_engine(machine: Machine) -> Check:
    """Check that Podman answers and is not too old."""
    name = "engine"
    info = machine.engine
    if isinstance(info, ServiceManagerError):
        remedy = "run `podman version`; if it fails, check `systemctl status podman.socket` and its log"
        return Check(name, PROBLEM, f"does not answer: {info}", remedy)
    message = f"{info.kind} {info.version}, API {info.api}, {info.cpus} CPUs"
    if info.kind != "podman":
        return Check(name, PROBLEM, f"{message}: this is not Podman", "use `--engine docker`")
    major = info.version.split(".")[0]
    if major.isdigit() and int(major) < _OLDEST:
        # 4.3 has no restart policy to update, sends no event for the end of a container, and finds no
        # imported image by its name.
        return Check(name, PROBLEM, f"{message}: too old", "update to Podman 5 or later")
    return Check(name, OK, message)


def check_health_checks(machine: Machine) -> Check:
    """Check who runs the health checks of containers."""
    name = "health checks"
    if (machine.root / "run/systemd/system").is_dir():
        return Check(name, OK, "timers of systemd run them")
    return Check(
        name,
        WARN,
        "there is no systemd, without which Podman runs none: the daemon does, while it runs",
        "nothing to do, unless other programs rely on the health while the daemon is down",
    )
