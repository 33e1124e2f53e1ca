"""What `make run` decides, from facts that others looked up. Pure, so that a test can be any machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

ENGINES = ("docker", "private", "simulated")


class EngineChoice(Enum):
    """Which engine it is going to be."""

    FOUND = "found"
    PRIVATE = "private"
    SIMULATED = "simulated"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What there is. `address` is the engine that `docker` would talk to, `why_not` why it does not answer.

    `chosen`: that address comes from DOCKER_HOST or a docker context, so somebody meant it.
    `private_url` is where this checkout's private engine listens, if it runs; `private_data`: it has been
    started before.
    """

    wanted: str = ""
    address: str = "unix:///var/run/docker.sock"
    chosen: bool = False
    answers: bool = False
    why_not: str = ""
    private_url: str = ""
    private_data: bool = False
    root: bool = False
    debian: bool = False
    dockerd: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine to use, and why, or why there is none, as one or more lines for a person."""

    use: EngineChoice
    why: str


def choose_engine(machine: Machine) -> Choice:
    """The engine for this stack.

    An address that somebody chose is never passed over for another: containers would come up in a place
    where nobody looks. Else a private engine of this checkout goes first, since the stack is in it.
    """
    if machine.wanted == "simulated":
        return Choice(EngineChoice.SIMULATED, "simulated in memory, as asked: no container will run")
    if machine.wanted == "private":
        return _private(machine, "of this checkout, as asked")
    own = machine.private_data and machine.address == machine.private_url
    if own:
        return _private(machine, "of this checkout, as DOCKER_HOST says")
    if machine.chosen or machine.wanted == "docker":
        if machine.answers:
            return Choice(EngineChoice.FOUND, "the one that docker uses here")
        return Choice(EngineChoice.NONE, _remedies(machine))
    if machine.private_data and machine.root:
        return _private(machine, "of this checkout, from an earlier run")
    if machine.answers:
        return Choice(EngineChoice.FOUND, "the one that docker uses here")
    return _private(machine, "of this checkout, as no other answers")


def _private(machine: Machine, why: str) -> Choice:
    if machine.root and (machine.dockerd or machine.debian):
        return Choice(EngineChoice.PRIVATE, f"a private one {why}")
    return Choice(EngineChoice.NONE, _remedies(machine))


def _remedies(machine: Machine) -> str:
    lines = [f"No container engine answers at {machine.address} ({machine.why_not or 'not tried'})."]
    lines.append("Any of these helps:")
    if machine.chosen:
        lines.append("  start that engine, or choose another: unset DOCKER_HOST; docker context use default")
    elif "ermission" in machine.why_not:
        lines.append("  sudo usermod -aG docker $USER     and log in again, so that you may use it")
    else:
        lines.append("  sudo systemctl start docker       where Docker is installed")
    if not machine.root:
        lines.append("  sudo make run                     where it is not: root can start a private engine")
    elif not (machine.dockerd or machine.debian):
        lines.append("  install Docker's engine           https://docs.docker.com/engine/install/")
    else:
        lines.append("  make run ENGINE=private           a private engine in this checkout")
    lines.append("  make run ENGINE=simulated         a look around with no engine at all")
    return "\n".join(lines)


def packages_for_engine(*, dockerd: bool, iptables: bool, docker: bool, cli_apart: bool) -> list[str]:
    """The Debian packages to install for a private engine; `cli_apart`: this release has `docker-cli`."""
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
    """Whether the stand-in images are used, and why."""

    standin: bool
    why: str


def settled_images(forced: str, remembered: bool | None, missing: Sequence[str]) -> Images | None:
    """The decision where no registry need be asked; None: the registry decides.

    What was decided for an engine stays: going from stand-ins to real images, or back, remakes every
    container, which should not happen because a network came or went.
    """
    if forced:
        standin = forced == "1"
        return Images(standin, f"{_named(standin)}, as STANDIN={forced} says")
    if remembered is not None:
        other = 0 if remembered else 1
        return Images(remembered, f"{_named(remembered)}, as last time (STANDIN={other} changes that)")
    if not missing:
        return Images(False, f"{_named(False)}: the engine has them all")
    return None


def images_by_registry(missing: Sequence[str], asked: str, problem: str) -> Images:
    """The decision after the engine was asked to look up the image `asked`; `problem`: what went wrong."""
    count = f"{len(missing)} image{'s' * (len(missing) != 1)}"
    if problem:
        why = f"{count} missing, and the engine can't get {asked} ({problem})"
        return Images(True, f"{_named(True)}: {why}. STANDIN=0 for the real ones")
    return Images(False, f"{_named(False)}: {count} will be pulled. STANDIN=1 for stand-ins")


def _named(standin: bool) -> str:
    return "stand-ins, small scripts that behave as the services do" if standin else "the real ones"


# Not "unknown" alone: a certificate may be "signed by unknown authority".
_ANSWERS = (
    *("manifest unknown", "name unknown", "not found"),
    *("access to the resource is denied", "unauthorized", "no basic auth"),
)


def registry_problem(message: str) -> str:
    """Why an image can't be had, from what the engine said; empty where the registry answered.

    A registry that knows nothing of the image does answer: that is a mistake in the Compose file, for the
    daemon to tell.
    """
    lowered = message.lower()
    if any(sign in lowered for sign in ("toomanyrequests", "rate limit", "too many requests")):
        return "the registry's limit of pulls is reached"
    if any(sign in lowered for sign in _ANSWERS):
        return ""
    said = message.strip().splitlines()
    # In front of that stands the URL asked for, once or twice.
    return said[-1].rpartition("dial tcp: ")[2][-160:] if said else "no answer"
