"""The checks of ``doctor``: each returns a finding with a remedy. Changes nothing.

Values that several checks need (engine, desired state) are read once. All checks run, even if one raises.
``host_checks`` has the checks of the host.
"""

from __future__ import annotations

import getpass
import grp
import importlib.util
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

from reconciler.cli.doctor import host_checks as host
from reconciler.cli.doctor.context import OK, PROBLEM, WARN, Check, CheckContext
from reconciler.engine.compose import remedy as compose_remedy
from reconciler.engine.compose.discovery import Compose, find_compose, programs_on
from reconciler.engine.compose.versions import Fitness
from reconciler.errors import InvalidDesiredState, ServiceManagerError


def check_socket(machine: CheckContext) -> Check:
    """The engine's socket is there and we may use it."""
    name = "engine socket"
    socket = machine.address.socket
    if not socket:
        return Check(name, OK, f"the engine is reached at {machine.address.url}")
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
    """What makes a user one who may use the engine: become a member, or log in again as one."""
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


def check_engine(machine: CheckContext) -> Check:
    """The engine answers, and is not too old."""
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


def check_compose(machine: CheckContext) -> Check:
    """There is a Docker Compose, and not one known to do harm."""
    name = "compose"
    try:
        compose: Compose = find_compose(machine.environ)
    except ServiceManagerError as error:
        message, _, remedy = str(error).partition(": ")
        return Check(name, PROBLEM, message, remedy)
    message = f"{compose.version}, the {compose.source} {compose.path}"
    fitness, reason = compose.verdict
    in_use = next(iter(programs_on(machine.environ)), None)
    ways = compose_remedy.remedy(compose_remedy.this_host(machine.root), in_use)
    if fitness < Fitness.GOOD:
        state = WARN if fitness is Fitness.FLAWED else PROBLEM
        return Check(name, state, f"{message}: {reason}", f"use another version: {ways}")
    if compose.passed_over:
        # A person's `docker compose` is still the other one.
        message = f"{message}; not used: {'; '.join(compose.passed_over)}"
        return Check(name, WARN, message, f"replace what is not used, so that both use one version: {ways}")
    return Check(name, OK, message)


def check_http_parser(_: CheckContext) -> Check:
    """The fast parser of HTTP is there, on architectures that have it."""
    name = "http parser"
    if importlib.util.find_spec("httptools"):
        return Check(name, OK, "httptools")
    architecture = platform.machine()
    if architecture.startswith("armv"):
        return Check(name, OK, f"h11; there is no httptools for {architecture}")
    return Check(
        name, WARN, "h11, which is slower: httptools is missing", "install Service Manager again, as before"
    )


def check_files(machine: CheckContext) -> Check:
    """The desired state is valid."""
    name = "files"
    loaded = machine.loaded
    if isinstance(loaded, InvalidDesiredState):
        first, *others = loaded.mistakes
        more = f" (and {len(others)} more)" if others else ""
        remedy = f"`service-manager validate {machine.desired_state}` shows every mistake with its line"
        return Check(name, PROBLEM, f"{machine.desired_state}: {first}{more}", remedy)
    if isinstance(loaded, ServiceManagerError):
        return Check(name, PROBLEM, str(loaded), getattr(loaded, "remedy", ""))
    groups = loaded.stack.groups
    message = f"{machine.desired_state}: {len(groups)} groups, {len(loaded.stack.group_of)} services"
    if loaded.stack.warnings:
        return Check(
            name, WARN, f"{message}; {'; '.join(loaded.stack.warnings)}", "check whether this is intended"
        )
    return Check(name, OK, message)


def run_checks(
    machine: CheckContext, checks: Sequence[Callable[[CheckContext], Check]] | None = None
) -> list[Check]:
    """Run the checks. A check that raises becomes a warning; the others still run."""
    found = []
    for check in all_checks() if checks is None else checks:
        try:
            found.append(check(machine))
        except Exception as error:  # noqa: BLE001 - whatever it is, the other checks are still worth having
            name = check.__name__.removeprefix("check_").replace("_", " ")
            found.append(
                Check(
                    name, WARN, f"could not be checked: {type(error).__name__}: {error}", "please report it"
                )
            )
    return found


def all_checks() -> tuple[Callable[[CheckContext], Check], ...]:
    """Every check, in the order in which they are shown."""
    return (
        check_socket,
        check_engine,
        check_compose,
        check_http_parser,
        check_files,
        host.check_port,
        host.check_memory,
        host.check_cgroup,
        host.check_git,
        host.check_inotify,
        host.check_state,
        host.check_disk,
    )
