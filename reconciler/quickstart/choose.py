"""The decisions of `make run`, as pure functions of facts about the machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

ENGINES = ("docker", "private", "simulated")


class EngineChoice(Enum):
    """Which engine `make run` uses."""

    FOUND = "found"
    PRIVATE = "private"
    SIMULATED = "simulated"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The facts about a machine. `address` is the engine that `docker` uses, `problem` why it is silent.

    `explicit`: DOCKER_HOST or a docker context names that address. `private_url` is the address of this
    checkout's private engine while it runs; `private_data`: that engine has been started before.
    `requested` is the value of ENGINE.
    """

    requested: str = ""
    address: str = "unix:///var/run/docker.sock"
    explicit: bool = False
    answers: bool = False
    problem: str = ""
    private_url: str = ""
    private_data: bool = False
    root: bool = False
    debian: bool = False
    dockerd: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine to use, and the reason in one or more lines of text."""

    engine: EngineChoice
    reason: str


def choose_engine(machine: Machine) -> Choice:
    """Choose the engine for this stack.

    An explicit address is used or is an error: on another engine the user would not find the containers.
    Otherwise the private engine of this checkout comes first if it has been started, since it has the stack.
    """
    if machine.requested == "simulated":
        return Choice(EngineChoice.SIMULATED, "simulated in memory, as requested: no container will run")
    if machine.requested == "private":
        return _private(machine, "of this checkout, as requested")
    own = machine.private_data and machine.address == machine.private_url
    if own:
        return _private(machine, "of this checkout, set in DOCKER_HOST")
    if machine.explicit or machine.requested == "docker":
        if machine.answers:
            return Choice(EngineChoice.FOUND, "the one that docker uses here")
        return Choice(EngineChoice.NONE, _no_engine_message(machine))
    if machine.private_data and machine.root:
        return _private(machine, "of this checkout, from an earlier run")
    if machine.answers:
        return Choice(EngineChoice.FOUND, "the one that docker uses here")
    return _private(machine, "of this checkout, since no other answers")


def _private(machine: Machine, reason: str) -> Choice:
    if machine.root and (machine.dockerd or machine.debian):
        return Choice(EngineChoice.PRIVATE, f"a private one {reason}")
    return Choice(EngineChoice.NONE, _no_engine_message(machine))


def _no_engine_message(machine: Machine) -> str:
    lines = [f"No container engine answers at {machine.address} ({machine.problem or 'not tried'})."]
    lines.append("Do one of these:")
    if machine.explicit:
        lines.append("  start that engine, or choose another: unset DOCKER_HOST; docker context use default")
    elif "ermission" in machine.problem:
        lines.append("  sudo usermod -aG docker $USER     and log in again, to get the permission")
    else:
        lines.append("  sudo systemctl start docker       if Docker is installed")
    if not machine.root:
        lines.append("  sudo make run                     if it is not: root can start a private engine")
    elif not (machine.dockerd or machine.debian):
        lines.append("  install Docker's engine           https://docs.docker.com/engine/install/")
    else:
        lines.append("  make run ENGINE=private           a private engine in this checkout")
    lines.append("  make run ENGINE=simulated         try it without any engine")
    return "\n".join(lines)


def packages_for_engine(*, dockerd: bool, iptables: bool, docker: bool, cli_apart: bool) -> list[str]:
    """Return the packages to install for a private engine. `cli_apart`: this Debian has `docker-cli`."""
    wanted = []
    if not dockerd:
        # busybox-static is for the stand-in images, ca-certificates for registries.
        wanted += ["docker.io", "busybox-static", "ca-certificates"]
    if not iptables:
        wanted.append("iptables")
    if not docker and cli_apart:
        wanted.append("docker-cli")
    return wanted


@dataclass(frozen=True, slots=True)
class Images:
    """Whether the stand-in images are used, and the reason."""

    standin: bool
    reason: str


def images_without_registry(forced: str, remembered: bool | None, missing: Sequence[str]) -> Images | None:
    """Decide without a registry lookup; None: the lookup decides.

    An earlier decision for this engine stays: changing between stand-ins and real images recreates every
    container, which the loss of a network must not cause.
    """
    if forced:
        standin = forced == "1"
        return Images(standin, f"{_description(standin)}, set by STANDIN={forced}")
    if remembered is not None:
        other = 0 if remembered else 1
        return Images(
            remembered, f"{_description(remembered)}, as in the last run (STANDIN={other} changes that)"
        )
    if not missing:
        return Images(False, f"{_description(False)}: the engine has them all")
    return None


def images_after_lookup(missing: Sequence[str], image: str, problem: str) -> Images:
    """Decide after the engine has looked up `image` in its registry. `problem`: why that failed."""
    count = f"{len(missing)} image{'s' * (len(missing) != 1)}"
    if problem:
        reason = f"{count} missing, and the engine can't get {image} ({problem})"
        return Images(True, f"{_description(True)}: {reason}. STANDIN=0 for the real ones")
    return Images(False, f"{_description(False)}: {count} will be pulled. STANDIN=1 for stand-ins")


def _description(standin: bool) -> str:
    return "stand-ins, small scripts that behave as the services do" if standin else "the real ones"


# Not "unknown" alone: a certificate may be "signed by unknown authority".
_REGISTRY_ANSWERED = (
    *("manifest unknown", "name unknown", "not found"),
    *("access to the resource is denied", "unauthorized", "no basic auth"),
)


def registry_problem(message: str) -> str:
    """Return why an image can't be pulled, from the engine's message; empty if the registry answered.

    "Not found" is an answer: the mistake is in the Compose file, and the daemon reports it.
    """
    lowered = message.lower()
    if any(sign in lowered for sign in ("toomanyrequests", "rate limit", "too many requests")):
        return "the registry's limit of pulls is reached"
    if any(sign in lowered for sign in _REGISTRY_ANSWERED):
        return ""
    lines = message.strip().splitlines()
    # The part before it repeats the requested URL.
    return lines[-1].rpartition("dial tcp: ")[2][-160:] if lines else "no answer"
