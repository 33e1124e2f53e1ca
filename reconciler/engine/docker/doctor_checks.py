"""The checks of ``doctor`` that concern the Docker Engine."""

from __future__ import annotations

import getpass
import grp
import os
from pathlib import Path

from reconciler.engine import Machine
from reconciler.engine.docker.address import find_address
from reconciler.errors import ServiceManagerError
from reconciler.model.diagnosis import OK, PROBLEM, WARN, Check


def check_socket(machine: Machine) -> Check:
    """Check that the engine's socket exists and may be used."""
    name = "engine socket"
    address = find_address(machine.environ)
    socket = address.socket
    if not socket:
        return Check(name, OK, f"the engine is reached at {address.url}")
    path = Path(socket)
    try:
        path.stat()
    except FileNotFoundError:
        remedy = "`systemctl start docker`, or install it: `apt install docker.io`, or set DOCKER_HOST"
        return Check(name, PROBLEM, f"there is no {socket}: the engine does not run", remedy)
    except PermissionError:
        return Check(
            name, PROBLEM, f"{socket} can't be reached: a folder above it is closed to {_me()}", _join()
        )
    if not os.access(path, os.R_OK | os.W_OK):
        return Check(name, PROBLEM, f"{_me()} may not use {socket}", _join())
    return Check(name, OK, f"{socket} is there and may be used")


def _me() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def _join() -> str:
    """Return how this user gets access to the engine: join the group, or log in again as a member."""
    try:
        members = grp.getgrnam("docker").gr_mem
    except KeyError:
        return "run as root, or make a group docker: `sudo groupadd docker`, restart docker, join the group"
    if _me() in members:
        return (
            "you are in the group docker, but not yet in this session: log out and in, or run `newgrp docker`"
        )
    return (
        f"`sudo usermod -aG docker {_me()}`, then log out and in (membership amounts to root on this machine)"
    )


def check_engine(machine: Machine) -> Check:
    """Check that the engine answers and is not too old."""
    name = "engine"
    info = machine.engine
    if isinstance(info, ServiceManagerError):
        remedy = "run `docker version`; if it fails, check `systemctl status docker` and its log"
        return Check(name, PROBLEM, f"does not answer: {info}", remedy)
    message = f"{info.kind} {info.version}, API {info.api}, {info.cpus} CPUs"
    major = info.version.split(".")[0]
    if major.isdigit() and int(major) < 20:
        return Check(
            name, WARN, f"{message}: older than what this is tried with", "update to Docker 20.10 or later"
        )
    return Check(name, OK, message)
