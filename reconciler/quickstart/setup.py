"""Prepares the engine and the images of `make run`: collects facts, applies the decisions of `choose`."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from docker.errors import DockerException
from requests.exceptions import RequestException

from reconciler.engine.compose.discovery import config_file, find_compose
from reconciler.engine.docker.address import Address, find_address
from reconciler.errors import StepFailed
from reconciler.quickstart import images
from reconciler.quickstart.choose import (
    Choice,
    EngineChoice,
    Images,
    Machine,
    choose_engine,
    images_after_lookup,
    images_without_registry,
    packages_for_engine,
)
from reconciler.quickstart.engine import PrivateEngine, locate, start
from reconciler.quickstart.host import (
    SetupError,
    exists_in_apt,
    find_program,
    has_systemd,
    install,
    is_debian,
    is_root,
    report,
)

ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / ".run"
DESIRED_STATE = ROOT / "desired-state"
ENGINE_TIMEOUT = 5
_SERVICE_START_TIMEOUT = 15.0
_KNOWN_PROBLEMS = ("permission denied", "No such file or directory", "connection refused", "timed out")


def relative_path(path: Path) -> str:
    """Return a path relative to the checkout."""
    return os.path.relpath(path, ROOT)


def private_engine() -> PrivateEngine:
    """Return the private engine of this checkout, running or not."""
    return locate(RUN / "engine")


@dataclass(frozen=True, slots=True)
class Engine:
    """The chosen engine; no address: simulated."""

    address: Address | None
    reason: str
    private: bool = False


def engine_problem(address: Address) -> str:
    """Return why this engine does not answer; empty if it does."""
    if address.problem:
        return address.problem
    client = None
    try:
        client = images.connect(address, ENGINE_TIMEOUT)
        client.ping()
    except (DockerException, RequestException, OSError) as error:
        text = str(error)
        return next((sign for sign in _KNOWN_PROBLEMS if sign.lower() in text.lower()), "no answer")
    finally:
        if client:
            client.close()
    return ""


def inspect_machine(requested: str) -> Machine:
    """Collect the facts that the choice of an engine depends on."""
    address = find_address(os.environ)
    context = os.environ.get("DOCKER_CONTEXT") or config_file(os.environ).get("currentContext")
    problem = "" if requested in {"private", "simulated"} else engine_problem(address)
    private = private_engine()
    return Machine(
        requested=requested,
        address=address.url,
        explicit=bool(os.environ.get("DOCKER_HOST")) or context not in {None, "", "default"},
        answers=not problem,
        problem=problem,
        private_url=private.url,
        private_data=private.data.is_dir(),
        root=is_root(),
        debian=is_debian(),
        dockerd=find_program("dockerd") is not None,
    )


def prepare_engine(requested: str) -> Engine:
    """Choose an engine and start it if necessary.

    Raises:
        SetupError: no engine is available; says what to do.
    """
    machine = inspect_machine(requested)
    choice = choose_engine(machine)
    if choice.engine is EngineChoice.NONE:
        raise SetupError(choice.reason)
    if choice.engine is EngineChoice.SIMULATED:
        return Engine(None, choice.reason)
    if choice.engine is EngineChoice.FOUND:
        return Engine(find_address(os.environ), choice.reason)
    return _private(machine, choice)


def _private(machine: Machine, choice: Choice) -> Engine:
    install_engine()
    # With systemd the package has started the machine's own engine; a second one is not needed.
    if has_systemd() and not machine.dockerd and not machine.requested:
        address, deadline = find_address(os.environ), time.monotonic() + _SERVICE_START_TIMEOUT
        while time.monotonic() < deadline:
            if not engine_problem(address):
                return Engine(address, "the machine's own, just installed")
            time.sleep(0.5)
    engine = private_engine()
    since = "started now" if start(engine) else "still running"
    reason = f"{choice.reason}; {since}, log in {relative_path(engine.log)}"
    return Engine(Address(engine.url), reason, private=True)


def install_engine() -> None:
    """Install Docker's engine and its dependencies, on Debian and its family.

    Raises:
        SetupError: packages are missing and can't be installed here.
    """
    packages = packages_for_engine(
        dockerd=find_program("dockerd") is not None,
        iptables=find_program("iptables") is not None,
        docker=find_program("docker") is not None,
        cli_apart=False,
    )
    if packages and not (is_root() and is_debian()):
        raise SetupError(
            f"This needs root on Debian or Ubuntu, or these packages installed: {', '.join(packages)}"
        )
    if packages:
        install(packages)
    # Newer releases have the command in a separate package; the package lists were just refreshed.
    if is_root() and is_debian() and find_program("docker") is None and exists_in_apt("docker-cli"):
        install(["docker-cli"])


def check_compose() -> None:
    """Check for Docker Compose, which resolves the files for every engine.

    Raises:
        SetupError: it is missing; says what to do.
    """
    try:
        find_compose()
    except StepFailed as problem:
        raise SetupError(str(problem)) from None


def prepare_images(engine: Engine, forced: str, remembered: bool | None) -> Images:
    """Decide between stand-in and real images; build the stand-ins."""
    if engine.address is None:
        return Images(False, "none needed")
    client = images.connect(engine.address)
    try:
        absent = images.missing(client, images.needed(DESIRED_STATE))
        decision = images_without_registry(forced, remembered, absent)
        if decision is None:
            report(f"Checking whether the engine can get {absent[0]} …")
            problem = images.pull_problem(engine.address, absent[0])
            decision = images_after_lookup(absent, absent[0], problem)
        if decision.standin:
            images.make_standin(client, DESIRED_STATE)
    finally:
        client.close()
    return decision
