"""A small stack on a real engine, with foreign containers, an unmanaged service and a person beside it.

One sandbox serves many tests. ``settle`` restores the start of each: the files below, every group on and
converged, one daemon with default options. Usually the daemon itself does that.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from docker import APIClient
from docker.errors import NotFound

from reconciler.engine.compose.discovery import find_compose
from tests.support.harness.daemon import ROOT, Daemon, Json
from tests.support.harness.engine_proxy import EngineProxy
from tests.support.harness.engine_recorder import SERVICE, EngineRecorder
from tests.support.harness.private_engine import PrivateEngine

STANDIN = "service-manager/standin:1"
PROJECT = "small"

STACK = """\
name: small
compose: [compose.yaml]
pilot: {groups: [base], memory: 1MB}
groups:
  base:
    services: [db, migrate]
    memory: 10MB
  app:
    services: [api, worker]
    memory: 10MB
    depends_on: {base: on}
  front:
    services: [web, edge]
    memory: 10MB
    depends_on: [app]
  extra:
    services: [cache]
    memory: 10MB
"""

GROUPS = """\
groups:
  base: on      # a comment that stays
  app: on
  front: on
  extra: on
"""

COMPOSE = """\
name: small

x-standin: &standin
  image: service-manager/standin:1
  pull_policy: never
  restart: unless-stopped
  networks: [inner]

services:
  db:
    <<: *standin
    container_name: small-db
    environment: {STANDIN_READY_AFTER: "0.3"}
    healthcheck: {test: [CMD, pg_isready], interval: 2s, timeout: 5s, retries: 3, start_period: 5s}
    volumes: ["db-data:/data"]

  migrate:
    <<: *standin
    container_name: small-migrate
    restart: "no"
    environment: {STANDIN_RUN_FOR: "0.1"}
    depends_on:
      db: {condition: service_healthy}

  api:
    <<: *standin
    container_name: small-api
    env_file: [env/api.env]
    environment: {STANDIN_READY_AFTER: "0.2"}
    healthcheck: {test: [CMD, curl, "http://localhost"], interval: 2s, timeout: 5s, retries: 3}
    depends_on:
      db: {condition: service_healthy}
      migrate: {condition: service_completed_successfully}
    networks: [inner, outer]

  worker:
    <<: *standin
    container_name: small-worker
    restart: always
    environment:
      COLOUR: blue
      STANDIN_STOP_AFTER: "0.1"
    depends_on: [api]

  web:
    <<: *standin
    image: small/web:1
    build: {context: build}
    container_name: small-web
    depends_on:
      api: {condition: service_healthy}
    networks: [outer]

  edge:
    <<: *standin
    container_name: small-edge
    depends_on: [web]
    networks: [outer]

  cache:
    <<: *standin
    container_name: small-cache
    volumes: ["cache-data:/data", /scratch]

  stray:                  # in no group
    image: service-manager/standin:1
    container_name: small-stray
    network_mode: none

networks: {inner: {}, outer: {}}
volumes: {db-data: {}, cache-data: {}}
"""

FILES = {
    "stack.yaml": STACK,
    "groups.yaml": GROUPS,
    "compose.yaml": COMPOSE,
    "env/api.env": "API_MODE=one\n",
    "build/Dockerfile": f"FROM {STANDIN}\nCOPY marker /marker\n",
    "build/marker": "one\n",
}
GROUP_OF = {
    "db": "base",
    "migrate": "base",
    "api": "app",
    "worker": "app",
    "web": "front",
    "edge": "front",
    "cache": "extra",
}
GROUP_NAMES = tuple(dict.fromkeys(GROUP_OF.values()))
_NETWORKS = {"api": {"inner", "outer"}, "web": {"outer"}, "edge": {"outer"}}
_POLICIES = {"migrate": "no", "worker": "always"}
ONE_SHOTS = frozenset({"migrate"})


class Sandbox:
    """See the module. ``files`` are the files of its desired state, ``desired`` their folder."""

    def __init__(
        self,
        engine: PrivateEngine,
        proxy: EngineProxy,
        recorder: EngineRecorder,
        folder: Path,
        *,
        resync: float = 60.0,
        daemon: type[Daemon] = Daemon,
        files: Mapping[str, str] = FILES,
        desired: Path | None = None,
    ) -> None:
        self.engine = engine
        self.resync = resync
        self.proxy = proxy
        self.recorder = recorder
        self.docker: APIClient = engine.client
        self.folder = folder
        self.files = files
        self.desired = desired or folder / "desired"
        self.restarts = 0
        self.strangers: dict[str, tuple[str, str]] = {}
        self.compose = find_compose(engine.environ).path
        self.environ = engine.environ | {"DOCKER_HOST": f"unix://{proxy.path}"}
        self.daemon = daemon(self.desired, folder / "state", self.environ)
        self._restore()

    def close(self) -> None:
        """Stop what it started."""
        self.daemon.kill()
        self.docker.close()

    # --- reset ---

    def settle(self, *, files: dict[str, str] | None = None, start: bool = True) -> None:
        """Restore the initial state by the cheapest means that work."""
        try:
            self._settle(start=start)
        except Exception:  # noqa: BLE001 - after any failure the next test starts fresh
            self.reset()
            self._settle(start=start)

    def _settle(self, *, start: bool) -> None:
        self.proxy.hook = None
        self.proxy.show()
        if not self.engine.running:
            self.engine.start()
        self._restore()
        self._tidy()
        if self.daemon.running and (
            self.daemon.resync != self.resync or self.has_failed() or self.lacks_jobs()
        ):
            self.daemon.end()
            self._forgive()
        if not self.daemon.running:
            self.daemon.kill()
            self.daemon.start(self.resync)
        self.daemon.converged(self.on_disk())
        self.is_true()
        if not start:
            self.daemon.end()

    def has_failed(self) -> bool:
        """Whether a service failed repeatedly: its back-off would slow down later tests."""
        return any(count > 1 for count in self._failures().values())

    def lacks_jobs(self) -> bool:
        """Whether the container of a one-shot is missing: the daemon remembers that it has completed."""
        return not self.ids().keys() >= ONE_SHOTS

    def _failures(self) -> dict[str, int]:
        try:
            failures = json.loads((self.folder / "state" / "ledger.json").read_bytes())["failures"]
        except FileNotFoundError:
            return {}
        return {
            name: failure["attempts"] if isinstance(failure, dict) else failure[0]
            for name, failure in failures.items()
        }

    def _forgive(self) -> None:
        ledger = self.folder / "state" / "ledger.json"
        ledger.write_text(json.dumps(json.loads(ledger.read_text()) | {"failures": {}, "completed": {}}))

    def reset(self) -> None:
        """Start fresh: no daemon, no state, no containers."""
        self.daemon.kill()
        shutil.rmtree(self.folder / "state", ignore_errors=True)
        if self.desired.is_symlink():
            self.desired.unlink()
        shutil.rmtree(self.desired, ignore_errors=True)
        self.engine.wipe()

    def _restore(self) -> None:
        shutil.rmtree(self.desired / ".git", ignore_errors=True)
        for name, text in self.files.items():
            path = self.desired / name
            if not path.is_file() or path.read_bytes() != text.encode():
                self.save(name, text)

    def _tidy(self) -> None:
        known = {f"{PROJECT}-{name}" for name in (*GROUP_OF, "stray")} | {"stranger", "stranger-of-other"}
        there = set()
        for entry in self.docker.containers(all=True):
            name = entry["Names"][0].removeprefix("/") if entry["Names"] else ""
            is_ours = (
                entry["Labels"].get(SERVICE) in GROUP_OF
                and entry["Labels"].get("com.docker.compose.project") == PROJECT
            )
            there.add(name)
            if name not in known and not is_ours:
                with contextlib.suppress(NotFound):
                    self.docker.remove_container(entry["Id"], force=True)
            elif entry["State"] == "exited" and not is_ours:
                self.docker.start(entry["Id"])
        for name, labels in (
            ("stranger", {}),
            ("stranger-of-other", {"com.docker.compose.project": "other", SERVICE: "db"}),
        ):
            if name not in there:
                self.stranger(name, labels)
        if "small-stray" not in there:
            self.person("up", "-d", "--no-deps", "stray")

    # --- files ---

    def save(self, name: str, text: str | bytes) -> None:
        """Save as editors do: a new file, renamed over the old one."""
        path = self.desired / name
        path.parent.mkdir(parents=True, exist_ok=True)
        other = path.with_name(f".{path.name}.new")
        other.write_bytes(text if isinstance(text, bytes) else text.encode())
        other.replace(path)

    def edit(self, name: str, old: str, new: str) -> int:
        """Replace a part of a file; returns the generation, accepted by the daemon."""
        text = (self.desired / name).read_text()
        assert text.count(old) == 1, f"{name} has {text.count(old)} of {old!r}"
        before = int(self.daemon.get("/services/status")["generation"])
        self.save(name, text.replace(old, new))
        return self.next_generation(before)

    def next_generation(self, before: int, within: float = 15.0) -> int:
        """Wait for the generation after this one."""
        return int(self.daemon.until(lambda s: s["generation"] > before, within)["generation"])

    def switch(self, **states: object) -> int:
        """Save groups.yaml with these groups as given, all others on; returns the generation."""
        before = int(self.daemon.get("/services/status")["generation"])
        self.save("groups.yaml", groups_yaml(**states))
        return self.next_generation(before)

    def on_disk(self) -> int:
        """The generation of the current files, read before or not."""
        extra = "start" if "extra: on" in (self.desired / "groups.yaml").read_text() else "stop"
        # A write without a change first accepts files that were not read yet.
        return int(self.daemon.post(f"/services/{extra}/extra")["generation"])

    # --- people and faults ---

    def person(self, *arguments: str, **environ: str) -> str:
        """Run Compose on the original files, as a person in a shell; returns its output."""
        done = subprocess.run(
            [self.compose, "--ansi", "never", "--progress", "plain", *arguments],
            cwd=self.desired,
            env=self.engine.environ | {"DOCKER_BUILDKIT": "0"} | environ,
            capture_output=True,
            check=False,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def stranger(self, name: str, labels: dict[str, str] | None = None, *, image: str = STANDIN) -> str:
        """A running foreign container; returns its id."""
        host = self.docker.create_host_config(network_mode="none")
        made = self.docker.create_container(image, name=name, labels=labels or {}, host_config=host)
        self.docker.start(made["Id"])
        return str(made["Id"])

    def restart_engine(self, *, kill: bool = False) -> None:
        """Restart the engine as an upgrade does; ``kill``: as a crash does."""
        self.restarts += 1
        if kill:
            self.engine.kill()
            # Its containerd ended with it. Without a reaper, the next engine considers it alive.
            (self.engine.folder / "exec" / "containerd" / "containerd.pid").unlink(missing_ok=True)
            self.engine.start()
        else:
            self.engine.restart()

    # --- state ---

    def one(self, service: str) -> dict[str, Any]:
        """The inspection of the one container of a service."""
        found: dict[str, Any] = self.docker.inspect_container(f"{PROJECT}-{service}")
        return found

    def ids(self) -> dict[str, str]:
        """Container ids of the managed services."""
        return {
            c["Config"]["Labels"][SERVICE]: c["Id"]
            for c in self.recorder.containers(PROJECT)
            if c["Config"]["Labels"].get(SERVICE) in GROUP_OF
        }

    def others(self) -> dict[str, tuple[str, str]]:
        """Id and start time of all containers that the daemon must never touch."""
        found = {}
        for seen in self.recorder.all_containers():
            labels = seen["Config"]["Labels"] or {}
            if labels.get("com.docker.compose.project") != PROJECT or labels.get(SERVICE) not in GROUP_OF:
                found[seen["Name"]] = (seen["Id"], seen["State"]["StartedAt"])
        return found

    def networks(self) -> list[str]:
        """The project's networks by name: one twice is PITFALLS row 8."""
        return sorted(n["Name"] for n in self.docker.networks() if n["Name"].startswith(f"{PROJECT}_"))

    def is_true(self, on: Iterable[str] = GROUP_NAMES, within: float = 20.0) -> None:
        """Wait until an independent observation shows these groups up, as defined, and the others down."""
        wanted = set(on)
        self.recorder.look_until(lambda: self.complaints(wanted), lambda found: not found, within)

    def complaints(self, on: set[str]) -> list[str]:
        """The differences between desired and actual state, by an independent observation."""
        found: list[str] = []
        by_service: dict[str, list[Json]] = {}
        for seen in self.recorder.containers(PROJECT):
            by_service.setdefault(seen["Config"]["Labels"].get(SERVICE, ""), []).append(seen)
        for service, group in GROUP_OF.items():
            several = by_service.get(service, [])
            if group in on:
                found += _complaints_of(service, several)
            else:
                found += [
                    f"{service} runs" for c in several if c["State"]["Status"] not in {"exited", "created"}
                ]
        return found


def _complaints_of(service: str, several: list[Json]) -> list[str]:
    if not several and service in ONE_SHOTS:
        # It has completed, and does not run again when its container is removed.
        return []
    if len(several) != 1:
        return [f"{service} has {len(several)} containers"]
    seen = several[0]
    state, host = seen["State"], seen["HostConfig"]
    found = []
    if service in ONE_SHOTS:
        if state["Status"] != "exited" or state["ExitCode"] or state["StartedAt"].startswith("0001"):
            found.append(f"{service} is not done: {state}")
    elif state["Status"] != "running":
        found.append(f"{service} is {state['Status']}")
    if seen["Name"] != f"/{PROJECT}-{service}":
        found.append(f"{service} is called {seen['Name']}")
    nets = {name.removeprefix(f"{PROJECT}_") for name in seen["NetworkSettings"]["Networks"]}
    if nets != _NETWORKS.get(service, {"inner"}):
        found.append(f"{service} is on {nets}")
    if host["RestartPolicy"]["Name"] != _POLICIES.get(service, "unless-stopped"):
        found.append(f"{service} has policy {host['RestartPolicy']}")
    return found


def groups_yaml(**states: object) -> str:
    """A groups.yaml: ``on``, ``off`` or a flow mapping as text; groups not named are on."""
    lines = [f"  {name}: {_word(states.get(name, True))}" for name in GROUP_NAMES]
    return "\n".join(["groups:", *lines, ""])


def _word(state: object) -> str:
    return {True: "on", False: "off"}.get(state, state) if isinstance(state, bool) else str(state)  # type: ignore[arg-type,return-value]


def make_standin(engine: PrivateEngine) -> None:
    """The shipped stand-in image, on this engine."""
    script = ROOT / "desired-state" / "standin" / "build_image.py"
    subprocess.run([sys.executable, str(script)], env=engine.environ, check=True, capture_output=True)
