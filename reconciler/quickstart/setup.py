"""The engine and the images of `make run`: asks the machine, lets `quickstart_decide` decide, does it."""

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
    images_by_registry,
    packages_for_engine,
    settled_images,
)
from reconciler.quickstart.engine import PrivateEngine, locate, start
from reconciler.quickstart.host import (
    Unprepared,
    exists_in_apt,
    has_systemd,
    install,
    is_debian,
    is_root,
    say,
    which,
)

ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / ".run"
DESIRED_STATE = ROOT / "desired-state"
PATIENCE = 5
_SERVICE_UP_WITHIN = 15.0
_SIGNS = ("permission denied", "No such file or directory", "connection refused", "timed out")


def short(path: Path) -> str:
    """A path as the person in the checkout would write it."""
    return os.path.relpath(path, ROOT)


def private_engine() -> PrivateEngine:
    """Where this checkout's own engine is, or would be."""
    return locate(RUN / "engine")


@dataclass(frozen=True, slots=True)
class Engine:
    """The engine that was settled on; no address: simulated."""

    address: Address | None
    why: str
    private: bool = False


def why_silent(address: Address) -> str:
    """Why this engine does not answer; empty where it does."""
    if address.problem:
        return address.problem
    client = None
    try:
        client = images.connect(address, PATIENCE)
        client.ping()
    except (DockerException, RequestException, OSError) as error:
        text = str(error)
        return next((sign for sign in _SIGNS if sign.lower() in text.lower()), "no answer")
    finally:
        if client:
            client.close()
    return ""


def survey(wanted: str) -> Machine:
    """The facts that the engine is chosen by."""
    address = find_address(os.environ)
    context = os.environ.get("DOCKER_CONTEXT") or config_file(os.environ).get("currentContext")
    silent = "" if wanted in {"private", "simulated"} else why_silent(address)
    private = private_engine()
    return Machine(
        wanted=wanted,
        address=address.url,
        chosen=bool(os.environ.get("DOCKER_HOST")) or context not in {None, "", "default"},
        answers=not silent,
        why_not=silent,
        private_url=private.url,
        private_data=private.data.is_dir(),
        root=is_root(),
        debian=is_debian(),
        dockerd=which("dockerd") is not None,
    )


def settle_engine(wanted: str) -> Engine:
    """Choose an engine, and have it running.

    Raises:
        Unprepared: there is none to be had.
    """
    machine = survey(wanted)
    choice = choose_engine(machine)
    if choice.use is EngineChoice.NONE:
        raise Unprepared(choice.why)
    if choice.use is EngineChoice.SIMULATED:
        return Engine(None, choice.why)
    if choice.use is EngineChoice.FOUND:
        return Engine(find_address(os.environ), choice.why)
    return _private(machine, choice)


def _private(machine: Machine, choice: Choice) -> Engine:
    install_engine()
    # Where systemd runs, the package has started the machine's own engine: two would be one too many.
    if has_systemd() and not machine.dockerd and not machine.wanted:
        address, deadline = find_address(os.environ), time.monotonic() + _SERVICE_UP_WITHIN
        while time.monotonic() < deadline:
            if not why_silent(address):
                return Engine(address, "the machine's own, installed just now")
            time.sleep(0.5)
    engine = private_engine()
    fresh = start(engine)
    why = f"{choice.why}; {'started now' if fresh else 'still running'}, log in {short(engine.log)}"
    return Engine(Address(engine.url), why, private=True)


def install_engine() -> None:
    """Docker's engine and what it needs, on Debian and its family."""
    packages = packages_for_engine(
        dockerd=which("dockerd") is not None,
        iptables=which("iptables") is not None,
        docker=which("docker") is not None,
        cli_apart=False,
    )
    if packages and not (is_root() and is_debian()):
        raise Unprepared(f"This needs root and a Debian or Ubuntu, or else installed: {', '.join(packages)}")
    if packages:
        install(packages)
    # Newer releases have the command in a package of its own, which the lists fetched just now tell.
    if is_root() and is_debian() and which("docker") is None and exists_in_apt("docker-cli"):
        install(["docker-cli"])


def check_compose() -> None:
    """Refuse to go on where there is no Docker Compose, which resolves the files for any engine.

    Raises:
        Unprepared: there is none, with what to do.
    """
    try:
        find_compose()
    except StepFailed as problem:
        raise Unprepared(str(problem)) from None


def settle_images(engine: Engine, forced: str, remembered: bool | None) -> Images:
    """Stand-in images or real ones; stand-ins are made."""
    if engine.address is None:
        return Images(False, "none needed")
    client = images.connect(engine.address)
    try:
        absent = images.missing(client, images.needed(DESIRED_STATE))
        decision = settled_images(forced, remembered, absent)
        if decision is None:
            say(f"Asking the engine whether it can get {absent[0]} …")
            problem = images.why_not_pulled(engine.address, absent[0])
            decision = images_by_registry(absent, absent[0], problem)
        if decision.standin:
            images.make_standin(client, DESIRED_STATE)
    finally:
        client.close()
    return decision
