"""What `make run` finds out about this machine, and the packages that it may install.

Standard library only: `quickstart_venv` needs it before there is any environment.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

_POLICY = Path("/usr/sbin/policy-rc.d")
_NO_STARTS = (
    "#!/bin/sh\n# Put here by `make run` of Service Manager while it installs; safe to remove.\nexit 101\n"
)
_APT = (
    "apt-get",
    *("-qq", "-y", "--no-install-recommends"),
    *("-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=5"),
)
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
_LISTENING = "0A"


class Unprepared(Exception):
    """This machine lacks something that can't be had without a person; the message says what to do."""


def say(text: str) -> None:
    """A line for the person who typed `make`."""
    print(text, flush=True)


def which(program: str) -> str | None:
    """Where a program is; the folders of root's programs are often not on a user's path."""
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:{_SBIN}")


def is_root() -> bool:
    """Whether we may do anything on this machine."""
    return os.geteuid() == 0


def is_debian() -> bool:
    """Debian, Ubuntu or another of the family, with apt."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return False
    family = {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
    return bool(family & {"debian", "ubuntu"}) and which("apt-get") is not None


def has_systemd() -> bool:
    """Whether systemd runs this machine, as against being merely installed."""
    return Path("/run/systemd/system").is_dir()


def install(packages: Sequence[str]) -> None:
    """Install Debian packages, without recommended ones and without questions.

    Where systemd does not run, no package may start a service: nothing would ever stop it.

    Raises:
        Unprepared: apt could not; carries the last lines that it said.
    """
    say(f"Installing {', '.join(packages)} with apt-get; this takes a minute or so.")
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1"}
    with contextlib.nullcontext() if has_systemd() else _no_starts():
        said = ""
        # Lists that are there may do, and spare a download; if they are too old, one look for newer ones.
        for refresh in (not any(Path("/var/lib/apt/lists").glob("*_Packages*")), True):
            if refresh:
                _run([*_APT, "update"], environ)
            failed, said = _run([*_APT, "install", *packages], environ)
            if not failed:
                return
            if refresh:
                break
    raise Unprepared(f"apt-get could not install {' '.join(packages)}:\n{said}")


def exists_in_apt(package: str) -> bool:
    """Whether apt knows a package: Debian has split and renamed some of Docker's over the years."""
    return not _run(["apt-cache", "show", "--quiet=0", package], dict(os.environ))[0]


def _run(command: Sequence[str], environ: dict[str, str]) -> tuple[bool, str]:
    done = subprocess.run(
        command,
        check=False,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    return done.returncode != 0, "\n".join(done.stdout.splitlines()[-12:])


@contextlib.contextmanager
def _no_starts() -> Iterator[None]:
    """Debian's own way to keep packages from starting services; one that is there already is left alone."""
    try:
        _POLICY.touch(mode=0o755, exist_ok=False)
    except FileExistsError:
        yield
        return
    try:
        _POLICY.write_text(_NO_STARTS)
        yield
    finally:
        _POLICY.unlink(missing_ok=True)


def why_not_listen(host: str, port: int) -> str:
    """Why nobody can listen there now, with the name of who does already; empty where one can."""
    for family, kind, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
                probe.listen(1)
            except OSError as error:
                holder = holder_of(port)
                return f"taken by {holder}" if holder else (error.strerror or str(error)).lower()
    return ""


def holder_of(port: int, proc: Path = Path("/proc")) -> str:
    """Who listens on a TCP port: `python3 (pid 4711)`; empty where it is nobody's, or not to be seen."""
    sockets = {f"socket:[{inode}]" for inode in _listening(port, proc)}
    if not sockets:
        return ""
    for process in _processes(proc):
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(descriptor.readlink()) in sockets:
                        return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return "a program of another user"


def _listening(port: int, proc: Path) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (proc / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]


def _processes(proc: Path) -> Iterable[Path]:
    return [entry for entry in proc.iterdir() if entry.name.isdecimal()]


def arguments_of(pid: int) -> list[str]:
    """How a process was started; empty where there is none."""
    try:
        content = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [part.decode(errors="replace") for part in content.rstrip(b"\0").split(b"\0")] if content else []


def pids_of(program: str) -> list[int]:
    """The processes of this program that share our network: a container's own are none of our business."""
    ours = Path("/proc/self/ns/net").stat().st_ino
    found = []
    for process in _processes(Path("/proc")):
        with contextlib.suppress(OSError):
            named = (process / "comm").read_text().strip() == program
            if named and (process / "ns" / "net").stat().st_ino == ours:
                found.append(int(process.name))
    return found


def own_address() -> str:
    """The address that this machine has towards others; loopback where it has none. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
