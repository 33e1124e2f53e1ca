"""A private, real engine for tests: own data and socket, no change to the host's network, removed afterwards.

Also for benches and chaos runs: ``with PrivateEngine() as engine: ...``. Needs root and Docker's
``dockerd``; never falls back to the engine of the machine. With the name of a Debian release it is that
release's Docker, in a file system of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import textwrap
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from docker import APIClient
from docker.errors import APIError, DockerException

from reconciler.desired_state.compose_model import services_from
from reconciler.engine.compose.discovery import find_compose
from reconciler.engine.compose.resolve import resolve
from reconciler.model.observed import Container, ObservedState
from reconciler.model.secret_values import encode_values, with_values_file
from reconciler.model.stack import Group, Stack
from tests.support.harness.child_process import ChildProcess
from tests.support.harness.mount_namespace import MountNamespace
from tests.support.hosts import debian

IMAGE = "bed/standin:1"
_APPLETS = ("sh", "sleep", "cat", "echo", "true", "false", "test", "touch", "ls", "nc", "seq", "printf")
RELEASE = os.environ.get("ENGINE_RELEASE", "")
"""The engine of the tests that need only one: as ``PrivateEngine`` takes it."""
_START_DEADLINE = 60.0
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/bin"
_NEWER = ("trixie", (26, 1))
"""The Debian release that provides the newer Docker, and its version."""
_NEWEST = "sid"
"""The Debian release with the newest Docker that its archive has: 28.5 in November 2026."""
_NEEDED = ("docker.io", "procps")
"""Packages that make an engine: it runs `ps` to tell which processes a container has."""
_CONTAINERD = "+containerd"
"""After a release's name: images in containerd's store, where other digests are the ids (PITFALLS row 5)."""
T = TypeVar("T")


class PrivateEngineError(RuntimeError):
    """A part is missing on the machine; the message says what to do."""


def engines() -> dict[str, str]:
    """The engines to test with, by name: "" for this machine's own, else the Debian release it comes from.

    A second one if this machine's engine is old and its archive has a newer one, and that one again with the
    other image store.
    """
    release, newer = _NEWER
    version: tuple[int, ...] = ()
    if program := shutil.which("dockerd", path=_PATH):
        output = subprocess.run([program, "--version"], capture_output=True, check=True, text=True).stdout
        version = tuple(int(number) for number in re.findall(r"\d+", output)[:2])
    found = {_name(version): ""}
    if version < newer and platform.freedesktop_os_release()["ID"] == "debian":
        found[_name(newer)] = release
        found[f"{_name(newer)}, containerd's image store"] = f"{release}{_CONTAINERD}"
    return found


def newest_engine() -> dict[str, str]:
    """The newest engine that the archive of this machine has, as ``engines``; empty if it has no archive.

    By itself, because only the contract suite and what depends on the engine's wording run on it.
    """
    debian_machine = platform.freedesktop_os_release()["ID"] == "debian"
    return {f"docker of Debian {_NEWEST}": _NEWEST} if debian_machine else {}


def _name(version: tuple[int, ...]) -> str:
    return f"docker {'.'.join(map(str, version))}".strip()


class PrivateEngine(ChildProcess):
    """One ``dockerd`` in a folder of its own: this machine's, or that of a Debian release.

    With ``+containerd`` after the release's name it keeps images in containerd's store.
    """

    def __init__(self, release: str = RELEASE) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sm-bed-", dir="/tmp"))
        self.socket = self.folder / "s"
        self._release = release.removesuffix(_CONTAINERD)
        self._features = {"containerd-snapshotter": True} if release.endswith(_CONTAINERD) else {}
        self._namespace: MountNamespace | None = None

    def __enter__(self) -> PrivateEngine:
        try:
            self.start()
            self.import_image(IMAGE)
        except BaseException:
            self.destroy()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.destroy()

    @property
    def host(self) -> str:
        """The value of DOCKER_HOST."""
        return f"unix://{self.socket}"

    @property
    def environ(self) -> dict[str, str]:
        """An environment in which every tool uses this engine, without settings of the user."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.folder),
            "DOCKER_HOST": self.host,
            "DOCKER_CONFIG": str(self.folder / "docker-config"),
        }

    @property
    def surroundings(self) -> dict[str, str]:
        """The environment of the engine's own process."""
        return os.environ | {"PATH": _PATH}

    @property
    def client(self) -> APIClient:
        """The SDK's client, independent of the adapter."""
        return APIClient(base_url=self.host, version="1.41", timeout=60)

    def wait_for_exit(self, within: float) -> int:
        """Wait for its end; returns the exit code."""
        assert self._process is not None
        return self._process.wait(within)

    def start(self) -> None:
        """Start the engine and wait until it answers."""
        if os.geteuid() != 0:
            raise PrivateEngineError("a private engine needs root: run the tests with sudo")
        program, descriptors = self.command()
        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(
            program,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=self.surroundings,
            pass_fds=descriptors,
            start_new_session=True,
        )
        log.close()
        self._await_answer()

    def stop(self) -> None:
        """SIGTERM, as systemd would; its containers stop too."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: its containers run on without it."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """The engine accepts connections and answers nothing."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        # The signal is asynchronous: on a busy machine the engine still responds for a moment.
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)

    def import_image(self, name: str, *instructions: str) -> None:
        """Make an image of busybox alone; ``instructions`` are Dockerfile lines such as VOLUME."""
        repository, _, tag = name.rpartition(":")
        changes = ['CMD ["sleep","100000"]', *instructions]
        client = self.client
        try:
            client.import_image_from_data(standin_tree(), repository=repository, tag=tag, changes=changes)
        finally:
            client.close()

    def wipe(self) -> None:
        """Remove every container, network and volume."""
        client = self.client
        try:
            ids = [entry["Id"] for entry in client.containers(all=True)]
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda id: _remove(client, id), ids))
            client.prune_networks()  # type: ignore[no-untyped-call]
            client.prune_volumes()
        finally:
            client.close()

    def destroy(self) -> None:
        """Stop it and remove everything that it left."""
        if self.running:
            with contextlib.suppress(DockerException, OSError):
                self.wipe()
            self.stop()
        for mount in _mounts_under(self.folder):
            subprocess.run(["umount", "-l", mount], check=False, capture_output=True)
        if self._namespace is not None:
            self._namespace.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def command(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """The command that starts the engine, and the descriptors that it needs."""
        program, descriptors = self._program()
        # Always given, or it would use the machine's.
        settings = self.folder / "daemon.json"
        settings.write_text(json.dumps({"features": self._features, "insecure-registries": ["127.0.0.0/8"]}))
        arguments = (
            *("--data-root", str(self.folder / "data")),
            *("--exec-root", str(self.folder / "exec")),
            *("--config-file", str(settings)),
            *("--pidfile", str(self.folder / "pid")),
            *("-H", self.host),
            # The host's bridge and firewall stay unchanged; published ports use the proxy.
            *("--bridge", "none", "--iptables=false", "--ip6tables=false"),
            *("--shutdown-timeout", "3"),
        )
        return (*program, *arguments), descriptors

    def _program(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """The program, and the descriptors that it needs."""
        if not self._release:
            found = shutil.which("dockerd", path=_PATH)
            if not found:
                raise PrivateEngineError(
                    "dockerd is missing: install Docker (Debian: `apt install docker.io`)"
                )
            return (found,), ()
        if self._namespace is None:
            # One namespace for all starts: it has the mounts of containers that outlive a killed engine.
            self._namespace = MountNamespace(debian.programs(self._release, _NEEDED))
        return (*self._namespace.entry, "dockerd"), (self._namespace.descriptor,)

    def _end(self, number: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        process.wait(timeout=30)
        self._process = None

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection, contextlib.suppress(OSError):
            connection.settimeout(5.0)
            connection.connect(str(self.socket))
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b"200 OK" in connection.recv(256)
        return False

    def _await_answer(self) -> None:
        deadline = time.monotonic() + _START_DEADLINE
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                break
            if self._answers():
                return
            time.sleep(0.05)
        tail = (self.folder / "log").read_text(errors="replace")[-2000:]
        assert self._process is not None
        code = self._process.poll()
        how = f"it ended with {code}" if code is not None else f"no answer in {_START_DEADLINE:g} s"
        raise PrivateEngineError(f"the private engine does not start ({how}):\n{tail}")


class Project:
    """A Compose project in a folder, resolved and frozen as the store does it."""

    def __init__(self, engine: PrivateEngine, folder: Path, name: str, compose: str) -> None:
        self.engine = engine
        self.folder = folder
        self.name = name
        self.file = folder / "compose.yaml"
        self.model = folder.parent / f"{name}-model.json"
        self.generation = 0
        folder.mkdir(parents=True, exist_ok=True)
        self.write(compose)

    def write(self, compose: str) -> None:
        """Replace the Compose file."""
        self.file.write_text(textwrap.dedent(compose))

    async def stack(self) -> Stack:
        """Resolve, freeze, and put all services into one group."""
        resolved = await resolve([self.file], self.folder, self.name, environ=self.engine.environ)
        self.generation += 1
        model = self.model.with_suffix(f".{self.generation}.json")
        values = model.with_suffix(".values")
        values.write_bytes(encode_values(resolved.values, None))
        model.write_bytes(with_values_file(resolved.text, values.name))
        services = services_from(resolved, self.name)
        return Stack(
            name=self.name,
            groups={"all": Group(name="all", services=tuple(services))},
            services=services,
            model=str(model),
            directory=str(self.folder),
            files=(str(self.file),),
        )

    def person(self, *arguments: str) -> str:
        """Run Compose on the original file, as a person in a shell; returns its output."""
        done = subprocess.run(
            [find_compose(self.engine.environ).path, *arguments],
            cwd=self.folder,
            env=self.engine.environ | {"COMPOSE_PROJECT_NAME": self.name},
            capture_output=True,
            check=False,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr


def by_service(observed: ObservedState) -> Mapping[str, Container]:
    """The containers of an observation by service; a test with several per service uses the list."""
    return {container.service: container for container in observed.containers}


async def until(
    look: Callable[[], Awaitable[T]], good: Callable[[T], Any], within: float = 15.0, pause: float = 0.02
) -> T:
    """Poll until the result is good; fails with the last one after ``within`` seconds."""
    deadline = time.monotonic() + within
    while True:
        found = await look()
        if good(found):
            return found
        assert time.monotonic() < deadline, f"not in {within} s: {found}"
        await asyncio.sleep(pause)


def _remove(client: APIClient, id: str) -> None:
    with contextlib.suppress(APIError):
        client.remove_container(id, force=True, v=True)


def standin_tree(*folders: str) -> bytes:
    """The content of an image (a tar): busybox and some folders, including these."""
    busybox = shutil.which("busybox")
    if not busybox:
        raise PrivateEngineError("busybox is missing: `apt install busybox-static`")
    content = Path(busybox).read_bytes()
    if b"/lib64/ld-linux" in content or b"/lib/ld-linux" in content:
        raise PrivateEngineError("busybox is linked dynamically: `apt install busybox-static`")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "data", *folders):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(folder)
        program = tarfile.TarInfo("bin/busybox")
        program.size, program.mode = len(content), 0o755
        archive.addfile(program, io.BytesIO(content))
        for applet in _APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
    return buffer.getvalue()


def _mounts_under(folder: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    mounts = [line.split()[4] for line in lines]
    return sorted((mount for mount in mounts if mount.startswith(f"{folder}/")), reverse=True)
