"""The check of ``doctor`` that concerns Docker Compose."""

from __future__ import annotations

from reconciler.engine import Machine
from reconciler.engine.compose.discovery import Compose, find_compose, programs_on
from reconciler.engine.compose.remedy import remedy, this_host
from reconciler.engine.compose.versions import Fitness
from reconciler.errors import ServiceManagerError
from reconciler.model.diagnosis import OK, PROBLEM, WARN, Check


def check_compose(machine: Machine) -> Check:
    """Check that there is a Docker Compose without a known defect."""
    name = "compose"
    try:
        compose: Compose = find_compose(machine.environ)
    except ServiceManagerError as error:
        message, _, how = str(error).partition(": ")
        return Check(name, PROBLEM, message, how)
    message = f"{compose.version}, the {compose.source} {compose.path}"
    fitness, reason = compose.verdict
    in_use = next(iter(programs_on(machine.environ)), None)
    ways = remedy(this_host(machine.root), in_use)
    if fitness < Fitness.GOOD:
        state = WARN if fitness is Fitness.FLAWED else PROBLEM
        return Check(name, state, f"{message}: {reason}", f"use another version: {ways}")
    if compose.passed_over:
        # A person's `docker compose` still runs the other one.
        message = f"{message}; not used: {'; '.join(compose.passed_over)}"
        return Check(name, WARN, message, f"replace what is not used, so that both use one version: {ways}")
    return Check(name, OK, message)
