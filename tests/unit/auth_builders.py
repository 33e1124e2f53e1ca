"""An application behind keys, and a daemon of its own to knock at."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx

from api.audit import AuditLog
from reconciler.keys import OPERATOR, VIEWER, KeyFile, KeyRing
from tests.e2e.daemon import free_port
from tests.unit.api_builders import World, a_world, desired
from tests.unit.test_keys import AT, Clock

READS = [
    "/services/status",
    "/services/groups",
    "/services/plan",
    "/services/drift",
    "/services/status/kafka",
    "/nope",
]
ORIGIN = {"origin": "http://localhost:8000"}


class Locked:
    """A world with two keys, ``ann`` an operator and ``eye`` a viewer."""

    def __init__(self, world: World, file: KeyFile, clock: Clock, ann: str, eye: str) -> None:
        self.client, self.writer, self.app = world.client, world.writer, world.app
        self.file, self.clock, self.ann, self.eye = file, clock, ann, eye

    def later(self) -> None:
        """Half a second on: the file is looked at again."""
        self.clock.now += 0.5


@contextlib.asynccontextmanager
async def locked(tmp_path: Path, audit: AuditLog | None = None, **options: Any) -> AsyncIterator[Locked]:
    file, clock = KeyFile(tmp_path), Clock()
    ann, eye = file.add("ann", OPERATOR, at=AT), file.add("eye", VIEWER, at=AT)
    ring = KeyRing(tmp_path, clock=clock)
    async with a_world(desired(kafka=True), keys=ring, audit=audit, **options) as world:
        yield Locked(world, file, clock, ann, eye)


def x(key: str) -> dict[str, str]:
    return {"x-api-key": key}


STACK = "name: probe\ncompose: [compose.yaml]\ngroups:\n  web: {services: [web]}\n"
GROUPS = "groups:\n  web: on\n"
COMPOSE = "services:\n  web: {image: 'probe:1'}\n"


@contextlib.contextmanager
def a_daemon(tmp_path: Path, *words: str, **environ: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    directory = tmp_path / "desired-state"
    directory.mkdir()
    for name, text in (("stack.yaml", STACK), ("groups.yaml", GROUPS), ("compose.yaml", COMPOSE)):
        (directory / name).write_text(text)
    port = free_port()
    with (tmp_path / "log").open("w") as log:
        daemon = subprocess.Popen(
            [
                *(sys.executable, "-m", "reconciler", "run", "--engine", "simulated"),
                *("--desired-state", str(directory), "--state-dir", str(tmp_path / "state")),
                *("--port", str(port), *words),
            ],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "SERVICE_MANAGER_LOG_LEVEL": "debug", **environ},
            stdout=log,
            stderr=log,
            text=True,
        )
    try:
        yield daemon, f"http://127.0.0.1:{port}"
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(30)


@contextlib.contextmanager
def reached(url: str, daemon: subprocess.Popen[str]) -> Iterator[httpx.Client]:
    deadline = time.monotonic() + 30
    with httpx.Client(base_url=url, timeout=10) as client:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if client.get("/readyz").status_code == 200:
                    break
            assert daemon.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield client
