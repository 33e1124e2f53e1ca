"""The private engine of `make run`: a dockerd whose data, socket and log all lie in this checkout.

It outlives `make run`, so that Ctrl-C stops no container, and serves the next one. `make clean` ends it,
unmounts what it mounted and removes its data. Needs root.

It makes no default bridge, since that has one name for all engines of a machine and building or removing it
is felt by the others; Compose gives every project a network of its own anyway. Where another engine shares
our network it keeps off the firewall as well: a dockerd that starts flushes the rules of the one before it.
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
from reconciler.quickstart.host import Unprepared, arguments_of, own_address, pids_of, which

LONGEST_SOCKET = 107
"""Bytes that a Unix socket's path may have, by `sockaddr_un`."""
_LONGEST_BELOW = "/exec/containerd/containerd.sock.ttrpc"
"""The longest path of a socket that dockerd and its containerd make below a folder of ours."""
_START_DEADLINE = 60.0
_ANSWER_DEADLINE = 15.0
"""For one that runs already, but may have been started just now by another `make run`."""
_STOP_DEADLINE = 30.0
_PING_DEADLINE = 5.0


@dataclass(frozen=True, slots=True)
class PrivateEngine:
    """Where one lies: `folder` has data and log, `runtime` the sockets and the pid."""

    folder: Path
    runtime: Path

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.runtime / "docker.sock"

    @property
    def url(self) -> str:
        """What goes into DOCKER_HOST."""
        return f"unix://{self.socket}"

    @property
    def data(self) -> Path:
        """Its images, containers and volumes."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """What it says."""
        return self.folder / "log"

    @property
    def pid(self) -> int:
        """Its process; 0 where it is not running. A pid that another process has by now is not taken."""
        try:
            pid = int((self.runtime / "pid").read_text())
        except (OSError, ValueError):
            return 0
        return pid if str(self.data) in arguments_of(pid) else 0


def locate(folder: Path) -> PrivateEngine:
    """The private engine of a folder, wherever its sockets must lie."""
    return PrivateEngine(folder, runtime_of(folder))


def runtime_of(folder: Path) -> Path:
    """The folder itself, or one with a short name where the paths of sockets would grow too long."""
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


def arguments(engine: PrivateEngine, *, alone: bool, address: str) -> list[str]:
    """What dockerd is started with; `alone`: no other engine shares our network."""
    return [
        *("--data-root", str(engine.data)),
        *("--exec-root", str(engine.runtime / "exec")),
        *("--pidfile", str(engine.runtime / "pid")),
        *("--host", engine.url),
        *("--bridge", "none"),
        # `host-gateway` in a Compose file is the address of the default bridge, which is not there.
        *("--host-gateway-ip", address),
        *([] if alone else ["--iptables=false", "--ip6tables=false"]),
        # Nothing of the machine's own dockerd: its settings may name its data.
        *("--config-file", str(engine.folder / "daemon.json")),
    ]


def start(engine: PrivateEngine) -> bool:
    """Start it, unless it runs. True if it was started now.

    Raises:
        Unprepared: it does not come up; with the end of its log.
    """
    if pid := engine.pid:
        _wait_for_answer(engine, pid)
        return False
    program = which("dockerd")
    if program is None:
        raise Unprepared("There is no dockerd on this machine")
    engine.folder.mkdir(parents=True, exist_ok=True, mode=0o711)
    engine.runtime.mkdir(parents=True, exist_ok=True, mode=0o711)
    (engine.folder / "daemon.json").write_text("{}\n")
    _clear_after_kill(engine)
    alone = not pids_of("dockerd")
    before = engine.folder / "firewall.json"
    if alone and not before.exists():
        before.write_text(json.dumps(firewall.look()))
    with engine.log.open("ab") as log:
        process = subprocess.Popen(
            [program, *arguments(engine, alone=alone, address=own_address())],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C at `make run` is not meant for it
        )
    _wait_until_up(engine, process)
    return True


def _clear_after_kill(engine: PrivateEngine) -> None:
    """What one that was killed leaves, and its successor stumbles over: a containerd that nobody stops any
    more, and pid files, which name a zombie or a stranger by now. Shims stay: by them the new one finds the
    containers.
    """
    _end_all(engine, "containerd")
    for name in ("pid", "exec/containerd/containerd.pid"):
        (engine.runtime / name).unlink(missing_ok=True)


def _wait_for_answer(engine: PrivateEngine, pid: int) -> None:
    deadline = time.monotonic() + _ANSWER_DEADLINE
    while not ping(engine.socket):
        if time.monotonic() > deadline:
            remedy = "look at its log, or begin anew: make clean"
            raise Unprepared(
                f"The private engine (pid {pid}) runs and does not answer: {engine.log}; {remedy}"
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
    raise Unprepared(f"The private engine did not start. The end of {engine.log}:\n{last}")


def destroy(engine: PrivateEngine) -> None:
    """End it, and remove all that it has; its containers should be gone by now.

    Raises:
        Unprepared: something is still mounted; nothing behind a mount is ever deleted.
    """
    _end(engine.pid)
    _end_all(engine, "containerd")
    _end_all(engine, "containerd-shim")
    _unmount(engine)
    before = engine.folder / "firewall.json"
    if before.exists() and not pids_of("dockerd"):
        firewall.restore(json.loads(before.read_text()))
    for folder in {engine.runtime, engine.folder}:
        shutil.rmtree(folder, ignore_errors=True)


def _end_all(engine: PrivateEngine, program: str) -> None:
    # By their arguments they are of this engine.
    sign = str(engine.runtime / "exec")
    for pid in pids_of(program):
        if any(part.startswith(sign) for part in arguments_of(pid)):
            _end(pid)


def _end(pid: int) -> None:
    if not pid:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + _STOP_DEADLINE
        while time.monotonic() < deadline:
            # No arguments: gone, or a zombie that its parent has yet to fetch.
            if not arguments_of(pid):
                return
            time.sleep(0.1)


def _unmount(engine: PrivateEngine) -> None:
    for _ in range(3):
        mounts = mounts_below(Path("/proc/self/mountinfo").read_text(), (engine.folder, engine.runtime))
        if not mounts:
            return
        for mount in mounts:
            subprocess.run(["umount", "--lazy", mount], capture_output=True, check=False)
    raise Unprepared(f"These are still mounted, so nothing of the engine was removed: {', '.join(mounts)}")


def mounts_below(table: str, folders: tuple[Path, ...]) -> list[str]:
    """What is mounted at or below any of these folders, the innermost first."""
    points = [line.split()[4].encode().decode("unicode_escape") for line in table.splitlines()]
    below = {point for point in points if any(Path(point).is_relative_to(folder) for folder in folders)}
    return sorted(below, key=len, reverse=True)
