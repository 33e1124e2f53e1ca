"""Facts about this machine for `make run`, and the installation of Debian packages.

Standard library only: `venv` needs it before the environment exists.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from reconciler.host.ports import bind_error, port_owner

_POLICY = Path("/usr/sbin/policy-rc.d")
_POLICY_SCRIPT = (
    "#!/bin/sh\n# Put here by `make run` of Service Manager while it installs; safe to remove.\nexit 101\n"
)
_APT = (
    "apt-get",
    *("-qq", "-y", "--no-install-recommends"),
    *("-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=5"),
)
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


class SetupError(Exception):
    """This machine lacks something that only its user can provide; the message says what to do."""


def report(text: str) -> None:
    """Print a line for the user of `make`."""
    print(text, flush=True)


def find_program(program: str) -> str | None:
    """Return the path of a program; also looks in the sbin folders, which a user's PATH often lacks."""
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:{_SBIN}")


def is_root() -> bool:
    """Whether this process runs as root."""
    return os.geteuid() == 0


def is_debian() -> bool:
    """Whether this is Debian, Ubuntu or another distribution of the family, with apt."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return False
    family = {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
    return bool(family & {"debian", "ubuntu"}) and find_program("apt-get") is not None


def has_systemd() -> bool:
    """Whether systemd runs this machine; being installed is not enough."""
    return Path("/run/systemd/system").is_dir()


def install(packages: Sequence[str]) -> None:
    """Install Debian packages, without recommended ones and without questions.

    Without systemd no package may start a service: nothing would ever stop it.

    Raises:
        SetupError: apt failed; with the last lines of its output.
    """
    report(f"Installing {', '.join(packages)} with apt-get; this takes a minute or so.")
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1"}
    with contextlib.nullcontext() if has_systemd() else _services_blocked():
        output = ""
        # Existing package lists may be enough and save a download; if they are too old, refresh them once.
        for refresh in (not any(Path("/var/lib/apt/lists").glob("*_Packages*")), True):
            if refresh:
                _run([*_APT, "update"], environ)
            failed, output = _run([*_APT, "install", *packages], environ)
            if not failed:
                return
            if refresh:
                break
    raise SetupError(f"apt-get could not install {' '.join(packages)}:\n{output}")


def exists_in_apt(package: str) -> bool:
    """Whether apt knows a package: Debian has split and renamed some of Docker's packages."""
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
def _services_blocked() -> Iterator[None]:
    """Keep packages from starting services, by Debian's policy-rc.d; an existing script stays in force."""
    try:
        _POLICY.touch(mode=0o755, exist_ok=False)
    except FileExistsError:
        yield
        return
    try:
        _POLICY.write_text(_POLICY_SCRIPT)
        yield
    finally:
        _POLICY.unlink(missing_ok=True)


def listen_problem(host: str, port: int) -> str:
    """Return why a port can't be used, with the name of the process that has it; empty if it is free."""
    reason = bind_error(host, port)
    if reason is None:
        return ""
    if reason == errno.EADDRINUSE:
        return f"taken by {port_owner(port) or 'a program of another user'}"
    return os.strerror(reason).lower()


def process_arguments(pid: int) -> list[str]:
    """Return the command line of a process; empty if there is no such process."""
    try:
        content = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [part.decode(errors="replace") for part in content.rstrip(b"\0").split(b"\0")] if content else []


def pids_of_program(program: str) -> list[int]:
    """Return the processes of a program in this network namespace; those of containers do not count."""
    own = Path("/proc/self/ns/net").stat().st_ino
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            named = (process / "comm").read_text().strip() == program
            if named and (process / "ns" / "net").stat().st_ino == own:
                found.append(int(process.name))
    return found


def own_address() -> str:
    """Return the address of this machine in its network; loopback without a route. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
