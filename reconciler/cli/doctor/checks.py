"""The checks of ``doctor``: each returns a finding with a remedy. Changes nothing.

Values that several checks need (engine, desired state) are read once. All checks run, even if one raises.
``host_checks`` has the checks of the host; those of the engine come from the engine registry.
"""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Callable, Sequence

from reconciler.cli.doctor import host_checks as host
from reconciler.cli.doctor.context import CheckContext
from reconciler.engine import registry
from reconciler.errors import InvalidDesiredState, ServiceManagerError
from reconciler.model.diagnosis import OK, PROBLEM, WARN, Check
from reconciler.options import ENGINES


def check_http_parser(_: CheckContext) -> Check:
    """Check that the fast HTTP parser is installed, on architectures that have it."""
    name = "http parser"
    if importlib.util.find_spec("httptools"):
        return Check(name, OK, "httptools")
    architecture = platform.machine()
    if architecture.startswith("armv"):
        return Check(name, OK, f"h11; httptools does not exist for {architecture}")
    return Check(
        name,
        WARN,
        "h11, which is slower: httptools is missing",
        "install Service Manager again, in the same way",
    )


def check_files(machine: CheckContext) -> Check:
    """Check that the desired state is valid."""
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
    results = []
    for check in all_checks(machine.kind) if checks is None else checks:
        try:
            results.append(check(machine))
        except Exception as error:  # noqa: BLE001 - the other checks must still run
            name = check.__name__.removeprefix("check_").replace("_", " ")
            results.append(
                Check(
                    name, WARN, f"could not be checked: {type(error).__name__}: {error}", "please report it"
                )
            )
    return results


def all_checks(kind: str = ENGINES[0]) -> tuple[Callable[[CheckContext], Check], ...]:
    """Return every check for a kind of engine, in the order in which they are shown."""
    return (
        *registry.kind(kind).checks(),
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
