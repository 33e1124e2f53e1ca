"""Daemons on the simulated engine: of the shipped stack, and of one with a hundred groups."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.daemon import ROOT, Daemon

GROUPS = 100
SERVICES = 10
ON = 4


@contextmanager
def imagined(
    folder: Path, environ: Mapping[str, str] | None = None, desired: Path | None = None
) -> Iterator[Daemon]:
    """A daemon, not started yet, on a copy of the shipped stack (or on ``desired``); ended afterwards."""
    files: tuple[Path, ...] = ()
    if desired is None:
        desired = folder / "desired-state"
        shutil.copytree(ROOT / "desired-state", desired)
        files = (desired / "compose.standin.yaml",)
    surroundings = {"PATH": os.environ["PATH"], "HOME": str(folder), "SERVICE_MANAGER_ENGINE": "simulated"}
    daemon = Daemon(desired, folder / "state", surroundings | dict(environ or {}), files)
    try:
        yield daemon
    finally:
        daemon.kill()


def write_many(desired: Path) -> None:
    """A hundred groups of ten services, each needing the group ten before it; the first few are on."""
    desired.mkdir(parents=True)
    stack, groups, services = ["name: many", "compose: [compose.yaml]", "groups:"], ["groups:"], ["services:"]
    for index in range(GROUPS):
        name = f"group-{index:03d}"
        own = [f"svc-{index:03d}-{number}" for number in range(SERVICES)]
        needs = f", depends_on: {{group-{index - 10:03d}: on}}" if index >= 10 else ""
        stack.append(f"  {name}: {{services: [{', '.join(own)}], memory: 60MB{needs}}}")
        groups.append(f"  {name}: {'on' if index < ON else 'off'}")
        services += [f"  {service}: {{image: many/none:1}}" for service in own]
    texts = {"stack.yaml": stack, "groups.yaml": groups, "compose.yaml": ["name: many", *services]}
    for file, lines in texts.items():
        (desired / file).write_text("\n".join([*lines, ""]))
