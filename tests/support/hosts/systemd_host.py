"""A Debian with a real systemd, booted in a container, for tests of the package and the unit.

Its image is a Debian of `tests.support.hosts.debian`. Commands enter its namespaces directly, so that they
also work while its engine is blocked.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tests.support.harness.engine_proxy import EngineProxy
from tests.support.harness.private_engine import PrivateEngine
from tests.support.hosts import debian

ROOT = Path(__file__).resolve().parents[3]
IMAGE = "bed/debian:1"
UNIT = "service-manager.service"
DESIRED = Path("/etc/service-manager/desired-state")
PROJECT = "small"
_INCLUDED = ("systemd-sysv", "dbus", "python3", "git")
_BOOT_DEADLINE = 60.0
T = TypeVar("T")

STACK = """\
name: small
compose: [compose.yaml]
groups:
  base: {services: [db], memory: 1MB}
  app: {services: [api], memory: 1MB, depends_on: [base]}
  extra: {services: [cache], memory: 1MB}
"""
GROUPS = """\
groups:
  base: on      # a comment that stays
  app: on
  extra: off
"""
COMPOSE = """\
x-any: &any {image: "bed/standin:1", network_mode: none, stop_signal: SIGKILL}
services:
  db: *any
  api: *any
  cache: *any
"""


def load(engine: PrivateEngine) -> None:
    """Import its image into an engine."""
    repository, _, tag = IMAGE.partition(":")
    root = debian.tree(debian.own_release(), _INCLUDED)
    client = engine.client
    with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as packed:
        client.import_image_from_stream(packed.stdout, repository=repository, tag=tag)
    client.close()
    assert packed.returncode == 0


class SystemdHost:
    """One host. Its engine is behind ``proxy``, at /engine/s; it has its own network."""

    def __init__(self, engine: PrivateEngine, proxy: EngineProxy, share: Path) -> None:
        self._engine = engine
        self._proxy = proxy
        self._share = share
        self._client = engine.client
        self._id = ""
        self._pid = 0

    # --- power ---

    def boot(self) -> SystemdHost:
        """Create it and wait until it is up."""
        host = self._client.create_host_config(
            cap_add=["ALL"],
            cap_drop=["SYS_RESOURCE"],
            security_opt=["seccomp=unconfined"],
            binds=["/sys/fs/cgroup:/sys/fs/cgroup:rw", f"{self._share}:/engine:rw"],
            tmpfs={"/run": "", "/run/lock": ""},
            network_mode="none",
        )
        made = self._client.create_container(
            IMAGE,
            # As Docker creates it, with private mounts: systemd can't hand over credentials here.
            ["/sbin/init"],
            environment={"container": "docker"},
            stop_signal="SIGRTMIN+3",
            host_config=host,
        )
        self._id = made["Id"]
        self._start()
        return self

    def reboot(self, between: Callable[[], None]) -> None:
        """Shut down, run an action, boot again."""
        self._client.stop(self._id, timeout=30)
        between()
        self._start()

    def remove(self) -> None:
        """Remove it."""
        self._client.remove_container(self._id, force=True, v=True)
        self._client.close()

    def _start(self) -> None:
        self._client.start(self._id)
        self._pid = self._client.inspect_container(self._id)["State"]["Pid"]
        until(lambda: self.run("systemctl", "is-system-running", check=False), "running", _BOOT_DEADLINE)

    # --- commands in it ---

    def run(self, *command: str, check: bool = True, user: str = "", stdin: str | None = None) -> str:
        """Run a command as root or another user; returns both outputs without the last newline."""
        home = f"/home/{user}" if user else "/root"
        as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"] if user else []
        done = subprocess.run(
            [
                *("nsenter", "-t", str(self._pid), "-m", "-p", "-u", "-i", "-n", "--"),
                *(
                    "env",
                    "-i",
                    "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    f"HOME={home}",
                    "LC_ALL=C.UTF-8",
                ),
                *("DEBIAN_FRONTEND=noninteractive", *as_user, *command),
            ],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=180,
            check=False,
        )
        assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stdout}\n{self.journal()}"
        return done.stdout.rstrip("\n")

    def refused(self, *command: str, user: str = "") -> str:
        """Run a command that must fail; returns its output."""
        return self.run("sh", "-c", f"! {shlex.join(command)}", user=user)

    def write(self, path: Path | str, content: str, *, mode: int = 0o664, owner: str = "root") -> None:
        """Write a file as an editor does: a temporary file, then a rename."""
        new = f"{path}.test-new"
        self.run("mkdir", "-p", str(Path(path).parent))
        self.run("dd", "status=none", f"of={new}", stdin=content)
        self.run("chown", f"{owner}:{owner}", new)
        self.run("chmod", f"{mode:o}", new)
        self.run("mv", new, str(path))

    def read(self, path: Path | str) -> str:
        """The content of a file."""
        return self.run("cat", str(path))

    def bring(self, file: Path) -> str:
        """Copy a file of this machine into it; returns its path there."""
        shutil.copy2(file, self._share / file.name)
        return f"/engine/{file.name}"

    # --- the service ---

    def install(self, package: Path) -> str:
        """Install a Debian package; returns the output."""
        return self.run("dpkg", "--install", self.bring(package))

    def use(self, options: str = "") -> None:
        """Set options of the daemon, including the engine's address, for the next start."""
        self.write(
            "/etc/service-manager/service-manager.env", f"DOCKER_HOST=unix:///engine/s\n{options}", mode=0o640
        )

    def drop_in(self, lines: str) -> None:
        """Add settings to the unit until the next boot; none removes them."""
        folder = f"/run/systemd/system/{UNIT}.d"
        if lines:
            self.write(f"{folder}/test.conf", f"[Service]\n{lines}\n")
        else:
            self.run("rm", "-rf", folder)
        self.run("systemctl", "daemon-reload")

    def show_engine(self) -> None:
        """Make the engine reachable for the host, for its group docker."""
        self._proxy.show()
        group = self.run("getent", "group", "docker").split(":")[2]
        os.chown(self._proxy.path, 0, int(group))
        self._proxy.path.chmod(0o660)

    def let_credentials_through(self) -> None:
        """Let systemd hand over credentials, which needs a shared mount."""
        self.run("mount", "--make-rshared", "/")

    def hide_engine(self) -> None:
        """Make the engine unreachable for the host."""
        self._proxy.hide()

    @contextlib.contextmanager
    def frozen_engine(self) -> Iterator[None]:
        """Let the engine accept connections and not answer, for the host."""
        with self._proxy.hooked(lambda _: "hold"):
            yield

    def shows(self, name: str) -> str:
        """One of the unit's properties."""
        return self.run("systemctl", "show", "--property", name, "--value", UNIT)

    @property
    def pid(self) -> int:
        """The daemon's process id inside the host."""
        return int(self.shows("MainPID"))

    def journal(self, *filters: str) -> str:
        """The journal messages of the unit."""
        return self.run("journalctl", "--unit", UNIT, "--output", "cat", "--no-pager", *filters, check=False)

    def records(self, *filters: str) -> list[dict[str, Any]]:
        """The journal entries of the daemon with all fields."""
        lines = self.run("journalctl", "--output", "json", "--all", "--no-pager", *filters).splitlines()
        return [json.loads(line) for line in lines]

    def status_becomes(self, part: str, within: float = 30.0) -> str:
        """Wait for the line that `systemctl status` shows."""
        return until(lambda: self.shows("StatusText"), part, within)

    def containers(self) -> dict[str, tuple[str, str]]:
        """Id and start time of the running containers of the stack, by service."""
        found = {}
        for entry in self._client.containers(filters={"label": f"com.docker.compose.project={PROJECT}"}):
            container = self._client.inspect_container(entry["Id"])
            found[entry["Labels"]["com.docker.compose.service"]] = (
                entry["Id"],
                container["State"]["StartedAt"],
            )
        return found

    def stop_containers(self) -> None:
        """Stop the stack's containers without the daemon, as a power cut does."""
        for id, _ in self.containers().values():
            self._client.kill(id)

    def begin(self) -> None:
        """Install the small stack instead of the shipped one, whose images can't be pulled here."""
        self.save()
        self.status_becomes("of 3 groups on")

    def save(self, groups: str = GROUPS, compose: str = COMPOSE) -> None:
        """The small stack, owned by the service."""
        files = {"compose.yaml": compose, "stack.yaml": STACK, "groups.yaml": groups}
        for name, content in files.items():
            self.write(DESIRED / name, content, owner="service-manager")


def until(look: Callable[[], T], part: T, within: float) -> T:
    """Poll until the result contains ``part`` (text) or equals it; fails with the last one."""
    deadline = time.monotonic() + within
    while True:
        found = look()
        if part in found if isinstance(found, str) else found == part:  # type: ignore[operator]
            return found
        assert time.monotonic() < deadline, f"not in {within:g} s: {found}"
        time.sleep(0.1)


def rebuilt(package: Path, version: str, folder: Path) -> Path:
    """The package with another version."""
    root = folder / version
    subprocess.run(["dpkg-deb", "--raw-extract", str(package), str(root)], check=True)
    control = root / "DEBIAN/control"
    lines: Sequence[str] = control.read_text().splitlines()
    lines = [f"Version: {version}" if line.startswith("Version:") else line for line in lines]
    control.write_text("\n".join(lines) + "\n")
    made = folder / f"alpr-service-manager_{version}.deb"
    command = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(root), str(made)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(root)
    return made
