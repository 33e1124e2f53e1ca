"""The private engine of `make run`: a dockerd whose data, socket and log are in this checkout.

It outlives `make run`, so that Ctrl-C stops no container, and serves the next run. `make clean` stops it,
removes its mounts and its data. Needs root.

It creates no default bridge: all engines of a machine share that name, and creating or removing the bridge
disturbs the others. Compose gives every project a network of its own. If another engine shares the network
namespace, the private engine also changes no firewall rules: a starting dockerd flushes those of the others.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from reconciler.quickstart import firewall
from reconciler.quickstart.host import (
    SetupError,
    find_program,
    own_address,
    pids_of_program,
    process_arguments,
)

LONGEST_SOCKET = 107
"""Most bytes of a Unix socket's path, by `sockaddr_un`."""
_LONGEST_BELOW = "/exec/containerd/containerd.sock.ttrpc"
"""The longest path of a socket that dockerd and its containerd create below the folder."""
_START_DEADLINE = 60.0
_ANSWER_DEADLINE = 15.0
"""Seconds for an engine that another `make run` may have started a moment ago."""
_STOP_DEADLINE = 30.0
_PING_DEADLINE = 5.0


@dataclass(frozen=True, slots=True)
class PrivateEngine:
    """The paths of a private engine: `folder` has data and log, `runtime` the sockets and the pid."""

    folder: Path
    runtime: Path

    @property
    def socket(self) -> Path:
        """The socket that it listens on."""
        return self.runtime / "docker.sock"

    @property
    def url(self) -> str:
        """The value for DOCKER_HOST."""
        return f"unix://{self.socket}"

    @property
    def data(self) -> Path:
        """The folder of its images, containers and volumes."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """Its log file."""
        return self.folder / "log"

    @property
    def pid(self) -> int:
        """Its process; 0: not running. A pid that was reused by another process does not count."""
        try:
            pid = int((self.runtime / "pid").read_text())
        except (OSError, ValueError):
            return 0
        return pid if str(self.data) in process_arguments(pid) else 0


def locate(folder: Path) -> PrivateEngine:
    """Return the private engine of a folder."""
    return PrivateEngine(folder, runtime_folder(folder))


def runtime_folder(folder: Path) -> Path:
    """Return the folder itself, or one with a short name if the paths of sockets would be too long."""
    if len(os.fsencode(f"{folder}{_LONGEST_BELOW}")) <= LONGEST_SOCKET:
        return folder
    return Path("/run") / f"service-manager-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}"


def ping(path: Path) -> bool:
    """Whether an engine answers on this socket."""
    connection = http.client.HTTPConnection("docker", timeout=_PING_DEADLINE)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.settimeout(_PING_DEADLINE)
    try:
        connection.sock.connect(str(path))
        connection.request("GET", "/_ping")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def dockerd_arguments(engine: PrivateEngine, *, alone: bool, address: str) -> list[str]:
    """Return the options of dockerd. `alone`: no other engine shares the network namespace."""
    return [
        *("--data-root", str(engine.data)),
        *("--exec-root", str(engine.runtime / "exec")),
        *("--pidfile", str(engine.runtime / "pid")),
        *("--host", engine.url),
        *("--bridge", "none"),
        # By default `host-gateway` in a Compose file is the address of the default bridge, which is missing.
        *("--host-gateway-ip", address),
        *([] if alone else ["--iptables=false", "--ip6tables=false"]),
        # Not the configuration of the machine's own dockerd, which may name its data.
        *("--config-file", str(engine.folder / "daemon.json")),
    ]


def start(engine: PrivateEngine) -> bool:
    """Start the engine unless it runs; True: it was started now.

    Raises:
        SetupError: it does not start; with the end of its log.
    """
    if pid := engine.pid:
        _wait_for_answer(engine, pid)
        return False
    program = find_program("dockerd")
    if program is None:
        raise SetupError("There is no dockerd on this machine")
    engine.folder.mkdir(parents=True, exist_ok=True, mode=0o711)
    engine.runtime.mkdir(parents=True, exist_ok=True, mode=0o711)
    (engine.folder / "daemon.json").write_text("{}\n")
    _remove_leftovers(engine)
    alone = not pids_of_program("dockerd")
    before = engine.folder / "firewall.json"
    if alone and not before.exists():
        before.write_text(json.dumps(firewall.read_state()))
    with engine.log.open("ab") as log:
        process = subprocess.Popen(
            [program, *dockerd_arguments(engine, alone=alone, address=own_address())],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C must not reach it
        )
    _wait_until_up(engine, process)
    return True


def _remove_leftovers(engine: PrivateEngine) -> None:
    """Remove what a killed engine leaves behind and what stops the next one from starting.

    That is a running containerd, and pid files that may name another process. Shims stay, since the new
    engine finds the containers by them.
    """
    _stop_all(engine, "containerd")
    for name in ("pid", "exec/containerd/containerd.pid"):
        (engine.runtime / name).unlink(missing_ok=True)


def _wait_for_answer(engine: PrivateEngine, pid: int) -> None:
    deadline = time.monotonic() + _ANSWER_DEADLINE
    while not ping(engine.socket):
        if time.monotonic() > deadline:
            remedy = "read its log, or start over: make clean"
            raise SetupError(
                f"The private engine (pid {pid}) runs, but does not answer: {engine.log}; {remedy}"
            )
        time.sleep(0.1)


def _wait_until_up(engine: PrivateEngine, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_DEADLINE
    while time.monotonic() < deadline:
        if ping(engine.socket):
            return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    else:
        process.terminate()
    last = "\n".join(engine.log.read_text(errors="replace").splitlines()[-8:])
    raise SetupError(f"The private engine did not start. The end of {engine.log}:\n{last}")


def destroy(engine: PrivateEngine) -> None:
    """Stop the engine and remove its files. Remove its containers first.

    Raises:
        SetupError: something is still mounted; nothing below a mount is ever deleted.
    """
    _stop(engine.pid)
    _stop_all(engine, "containerd")
    _stop_all(engine, "containerd-shim")
    _unmount(engine)
    before = engine.folder / "firewall.json"
    if before.exists() and not pids_of_program("dockerd"):
        firewall.restore(json.loads(before.read_text()))
    for folder in {engine.runtime, engine.folder}:
        shutil.rmtree(folder, ignore_errors=True)


def _stop_all(engine: PrivateEngine, program: str) -> None:
    # Their arguments show that they belong to this engine.
    sign = str(engine.runtime / "exec")
    for pid in pids_of_program(program):
        if any(part.startswith(sign) for part in process_arguments(pid)):
            _stop(pid)


def _stop(pid: int) -> None:
    if not pid:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + _STOP_DEADLINE
        while time.monotonic() < deadline:
            # No arguments: ended, or a zombie.
            if not process_arguments(pid):
                return
            time.sleep(0.1)


def _unmount(engine: PrivateEngine) -> None:
    for _ in range(3):
        mounts = mounts_below(Path("/proc/self/mountinfo").read_text(), (engine.folder, engine.runtime))
        if not mounts:
            return
        for mount in mounts:
            subprocess.run(["umount", "--lazy", mount], capture_output=True, check=False)
    raise SetupError(f"Still mounted, so nothing of the engine was removed: {', '.join(mounts)}")


def mounts_below(table: str, folders: tuple[Path, ...]) -> list[str]:
    """Return the mounts at or below any of these folders, the innermost first."""
    points = [line.split()[4].encode().decode("unicode_escape") for line in table.splitlines()]
    below = {point for point in points if any(Path(point).is_relative_to(folder) for folder in folders)}
    return sorted(below, key=len, reverse=True)
