"""`make run` and `make clean` in a fresh clone, on a private engine.

Slow because everything is real: environment by pip, engine, images, daemon. A proxy address that does not
exist keeps registries out of reach, so that the result is the same on every machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from reconciler.quickstart.engine import PrivateEngine, locate, ping
from tests.support.harness.private_engine import IMAGE
from tests.support.harness.private_engine import PrivateEngine as OwnersEngine

ROOT = Path(__file__).resolve().parents[2]
KAFKA = {"alpr-zookeeper", "alpr-kafka", "alpr-schema-registry"}
NOWHERE = "http://127.0.0.1:9"
SECOND_RUN_WITHIN = 30.0

pytestmark = pytest.mark.timeout(400)


class Box:
    """A clone in a folder with its own name, with a terminal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        hidden = ("DOCKER_", "MAKE", "MFLAGS", "SERVICE_MANAGER_", "VIRTUAL_ENV", "PYTEST")
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
        self.environ["DOCKER_CONFIG"] = str(folder.parent / "docker-config")  # no context of the developer
        # An engine of this machine must not be used.
        self.engine = "private" if ping(Path("/var/run/docker.sock")) else ""

    def use(self, host: str) -> None:
        """The engine of the machine's owner, from DOCKER_HOST."""
        self.environ["DOCKER_HOST"] = host
        self.engine = ""

    @property
    def host(self) -> str:
        return self.environ.get("DOCKER_HOST", self.private.url)

    @property
    def private(self) -> PrivateEngine:
        return locate(self.folder / ".run" / "engine")

    def make(self, *words: str, within: float = 120) -> str:
        done = subprocess.run(
            ["make", *words],
            cwd=self.folder,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=within,
            check=False,
        )
        return done.stdout + f"\n(ended with {done.returncode})"

    @contextlib.contextmanager
    def running(self, log: Path) -> Iterator[subprocess.Popen[bytes]]:
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["make", "run", f"PORT={self.port}", f"ENGINE={self.engine}"],
                cwd=self.folder,
                env={**self.environ, "HTTP_PROXY": NOWHERE, "HTTPS_PROXY": NOWHERE, "NO_PROXY": ""},
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def get(self, path: str) -> Any:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return json.load(answer)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return None

    def converged(self) -> bool:
        status = self.get("/services/status")
        return bool(status and status["converged"] and status["generation"] == status["observed_generation"])

    @contextlib.contextmanager
    def eyes(self) -> Iterator[docker.DockerClient]:
        client = docker.DockerClient(base_url=self.host)
        try:
            yield client
        finally:
            client.close()

    def containers(self) -> set[str]:
        with self.eyes() as client:
            return {container.name for container in client.containers.list()}

    def bridges(self) -> list[str]:
        with self.eyes() as client:
            return [f"br-{str(network.id)[:12]}" for network in client.networks.list(names=["alpr-network"])]

    def files(self) -> set[str]:
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")}


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    folder = tmp_path / "my parking lot's box"
    for name in subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    box = Box(folder)
    try:
        yield box
    finally:
        if (folder / ".run").exists():
            box.make("clean")


def until(
    condition: Callable[[], object], within: float, process: subprocess.Popen[bytes], log: Path
) -> float:
    began = time.monotonic()
    while not condition():
        ended = process.poll() is not None
        if ended or time.monotonic() - began > within:
            pytest.fail(f"{'ended' if ended else f'not in {within} s'}:\n{log.read_text()}")
        time.sleep(0.1)
    return time.monotonic() - began


def press_ctrl_c(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole foreground group
    process.wait(20)


def processes_of(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes() if entry.name.isdecimal() else b""
            if os.fsencode(f"{folder}/") in line:
                found.append(line.decode(errors="replace").replace("\0", " "))
    return found


def test_fresh_clone_to_running_stack_and_back(box: Box, tmp_path: Path) -> None:
    fresh = box.files()
    assert "(ended with 0)" in box.make("environment", within=300)

    first = tmp_path / "first"
    with box.running(first) as process:
        until(lambda: box.get("/healthz"), 60, process, first)
        until(box.converged, 60, process, first)
        output = first.read_text()
        assert "stand-ins" in output
        assert "can't get confluentinc/cp-zookeeper" in output
        assert f"http://127.0.0.1:{box.port}/services/dashboard" in output
        assert box.containers() == KAFKA
        assert box.get("/services/status/kafka")["running_count"] == 3

        again = box.make("run", f"PORT={box.port + 1}")
        assert f"A daemon already runs on desired-state, at http://127.0.0.1:{box.port}" in again
        press_ctrl_c(process)
    assert box.get("/healthz") is None
    assert box.containers() == KAFKA

    with socket.create_server(("127.0.0.1", box.port)):
        refused = box.make("run", f"PORT={box.port}")
        assert f"Port {box.port} of 127.0.0.1: taken by" in refused
        assert "make run PORT=" in refused

    second = tmp_path / "second"
    with box.running(second) as process:
        until(box.converged, SECOND_RUN_WITHIN, process, second)
        assert "as in the last run" in second.read_text()
        bridges = box.bridges()
        assert "(ended with 0)" in box.make("clean")  # with the daemon still running
        process.wait(20)
    assert len(bridges) == 1
    assert not Path("/sys/class/net", bridges[0]).exists()
    assert box.files() == fresh
    assert processes_of(box.folder) == []
    assert str(box.folder).replace(" ", "\\040") not in Path("/proc/self/mountinfo").read_text()


def test_clean_on_the_owners_engine_removes_only_what_it_created(box: Box, tmp_path: Path) -> None:
    elsewhere = {"com.docker.compose.project": "alpr", "com.docker.compose.project.working_dir": "/elsewhere"}
    with OwnersEngine() as engine:
        box.use(engine.host)
        with box.eyes() as client:
            client.networks.create("alpr_other", labels={"com.docker.compose.project": "alpr"})
            client.volumes.create("photos")
            for name, labels in (("theirs", {}), ("alpr-of-another-clone", elsewhere)):
                client.containers.run(IMAGE, name=name, labels=labels, detach=True, network_mode="none")
            log = tmp_path / "log"
            assert "(ended with 0)" in box.make("environment", within=300)
            with box.running(log) as process:
                until(box.converged, 60, process, log)
                assert "the one that docker uses here" in log.read_text()
                press_ctrl_c(process)
            assert box.containers() == {"theirs", "alpr-of-another-clone", *KAFKA}
            assert not box.private.folder.exists()

            output = box.make("clean")
            assert "removed 3 containers, 1 networks, 1 stand-in images" in output
            assert box.containers() == {"theirs", "alpr-of-another-clone"}
            assert [network.name for network in client.networks.list(names=["alpr"])] == ["alpr_other"]
            volumes = {volume.name for volume in client.volumes.list()}
            assert {"photos", "alpr_kafka-data"} <= volumes
            order = next(line for line in output.splitlines() if "volume rm" in line)
            assert set(order.partition(" rm ")[2].split()) == volumes - {"photos"}
            assert [tag for image in client.images.list() for tag in image.tags] == [IMAGE]
