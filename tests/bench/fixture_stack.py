"""The shipped stack with stand-in images on the private engine, and Compose's side of every comparison.

A copy of ``desired-state``, so that switching groups touches no file of the checkout. An override file sets
the intervals of health checks: containers are created once per interval, and both sides start the same ones.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from docker import APIClient

from reconciler.engine.compose.discovery import find_compose
from tests.support.harness.private_engine import PrivateEngine

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "alpr"
_SWITCH = re.compile(r"^(  \w[\w-]*:\s+)(?:on|off)\b", re.MULTILINE)
_LONGEST = 300.0
"""Seconds for one command of Compose; at intervals of 30 s it needs more than 60."""


class FixtureStack:
    """The 18 services of the shipped groups on one engine."""

    def __init__(self, engine: PrivateEngine, folder: Path) -> None:
        self.engine = engine
        self.folder = folder
        self.desired = folder / "desired-state"
        shutil.copytree(ROOT / "desired-state", self.desired)
        self._override = folder / "intervals.yaml"
        self._override.write_text("services: {}\n")
        self._clients: dict[int, APIClient] = {}
        self._compose = find_compose(engine.environ).path
        self.docker = engine.client
        self.switch(())
        self.model: dict[str, Any] = {}
        self._resolve()

    # --- what there is ---

    @property
    def files(self) -> tuple[Path, ...]:
        """The Compose files after that of ``stack.yaml``."""
        return (self.desired / "compose.standin.yaml", self._override)

    @property
    def groups(self) -> dict[str, list[str]]:
        """Services by group, as ``stack.yaml`` has them."""
        from ruamel.yaml import YAML

        stack = YAML(typ="safe").load((self.desired / "stack.yaml").read_text())
        return {name: list(group["services"]) for name, group in stack["groups"].items()}

    @property
    def services(self) -> tuple[str, ...]:
        """The managed services, 18 as shipped."""
        return tuple(name for names in self.groups.values() for name in names)

    def container(self, service: str) -> str:
        """The name of its container."""
        return str(self.model[service]["container_name"])

    def ids(self) -> dict[str, str]:
        """Container ids by service, to prove that none was recreated."""
        found = self.docker.containers(all=True, filters={"label": f"com.docker.compose.project={PROJECT}"})
        return {entry["Labels"]["com.docker.compose.service"]: entry["Id"] for entry in found}

    def not_up(self) -> list[str]:
        """Services that do not run, or whose own health check fails now."""
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(self._is_up, self.services))
        return [service for service, up in zip(self.services, answers, strict=True) if not up]

    def running(self) -> int:
        """How many of the services run."""
        found = self.docker.containers(filters={"label": f"com.docker.compose.project={PROJECT}"})
        return sum(entry["Labels"]["com.docker.compose.service"] in self.services for entry in found)

    def _is_up(self, service: str) -> bool:
        name = self.container(service)
        if not self.docker.inspect_container(name)["State"]["Running"]:
            return False
        check = self.model[service].get("healthcheck")
        return check is None or self.check(service)

    def check(self, service: str) -> bool:
        """Run the service's own health check once."""
        kind, *words = self.model[service]["healthcheck"]["test"]
        command = words if kind == "CMD" else ["/bin/sh", "-c", *words]
        made = self.docker.exec_create(self.container(service), command)["Id"]
        self.docker.exec_start(made)
        return bool(self.docker.exec_inspect(made)["ExitCode"] == 0)

    # --- set-up ---

    def make_images(self) -> None:
        """Build the stand-in image and the images based on it."""
        script = self.desired / "standin" / "build_image.py"
        self._run([sys.executable, str(script)])
        self.compose("build", environ={"DOCKER_BUILDKIT": "0"})

    def use_interval(self, seconds: int | None) -> None:
        """Set the interval of every health check (None: as shipped), and create the containers, stopped."""
        self.remove()
        override = {
            name: {"healthcheck": {"interval": f"{seconds}s"}}
            for name, service in self.model.items()
            if seconds is not None and "healthcheck" in service
        }
        self._override.write_text(json.dumps({"services": override}))
        self._resolve()
        self.create()

    def create(self) -> None:
        """Create network, volumes and containers, and start none."""
        self.compose("up", "--no-start", *self.services)

    def remove(self) -> None:
        """Remove containers, network and volumes. Images stay."""
        self.compose("down", "-v", "-t", "1")

    def switch(self, on: tuple[str, ...] | None = None) -> float:
        """Save ``groups.yaml`` with these groups on (None: all), as editors do; returns monotonic time."""
        path = self.desired / "groups.yaml"
        wanted = set(self.groups if on is None else on)
        text = _SWITCH.sub(
            lambda m: m[1] + ("on" if m[1].split(":")[0].strip() in wanted else "off"), path.read_text()
        )
        new = self.folder / "groups.yaml.new"
        new.write_text(text)
        at = time.monotonic()
        new.replace(path)
        return at

    # --- Compose's side ---

    def compose(self, *arguments: str, environ: dict[str, str] | None = None) -> float:
        """Run Compose on the same files; returns the seconds it took."""
        files = (self.desired / "compose.yaml", *self.files)
        named = [word for file in files for word in ("-f", str(file))]
        common = ["--ansi", "never", "--progress", "quiet", "-p", PROJECT, "--profile", "*"]
        return self._run([self._compose, *named, *common, *arguments], environ)

    def compose_up(self) -> float:
        """``docker-compose up -d --wait`` of exactly the managed services."""
        return self.compose("up", "-d", "--wait", *self.services)

    def compose_stop(self) -> float:
        """``docker-compose stop`` of exactly the managed services."""
        return self.compose("stop", *self.services)

    def _resolve(self) -> None:
        files = (self.desired / "compose.yaml", *self.files)
        named = [word for file in files for word in ("-f", str(file))]
        command = [self._compose, *named, "-p", PROJECT, "--profile", "*", "config", "--format", "json"]
        done = subprocess.run(
            command, env=self.engine.environ, cwd=self.desired, check=True, capture_output=True, timeout=60
        )
        self.model = json.loads(done.stdout)["services"]

    def _run(self, command: list[str], environ: dict[str, str] | None = None) -> float:
        began = time.monotonic()
        done = subprocess.run(
            command,
            env=self.engine.environ | (environ or {}),
            cwd=self.desired,
            check=False,
            capture_output=True,
            text=True,
            timeout=_LONGEST,
        )
        took = time.monotonic() - began
        if done.returncode:
            raise RuntimeError(f"{' '.join(command[-4:])} failed:\n{done.stderr[-2000:]}")
        return took
