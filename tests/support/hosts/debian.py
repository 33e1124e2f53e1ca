"""Debian file systems for tests; kept below `.cache/`, removed by `make clean`."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

CACHE = Path(__file__).resolve().parents[3] / ".cache" / "debian"
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
_TRIMMED = (
    "var/cache/apt/archives",
    "var/lib/apt/lists",
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
)


def own_release() -> str:
    """The code name of this machine's release."""
    return platform.freedesktop_os_release()["VERSION_CODENAME"]


def tree(release: str, included: Sequence[str]) -> Path:
    """The folder of a complete file system, from debootstrap; created once, which takes a minute or two."""
    return _once(CACHE / f"{release}-{'-'.join(included)}", lambda part: _make(release, included, part))


def programs(release: str, packages: Sequence[str]) -> Path:
    """The folder of these packages and what they need, unpacked only; created once, in half a minute.

    Enough to run a program in a ``MountNamespace``; no maintainer script runs. Also for ``sid``, whose
    snapshot on a mirror may have an expired Release file.
    """
    made = CACHE / f"{release}-{'-'.join(packages)}-unpacked"
    # `umount` is the last command of a namespace's set-up, and runs in the new root.
    return _once(made, lambda part: _unpack(release, (*packages, "mount"), part))


def _once(made: Path, make: Callable[[Path], None]) -> Path:
    part = made.with_name(f"{made.name}.part")
    CACHE.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(CACHE, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Tests run in several processes; the second waits for the first.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(part, ignore_errors=True)
            make(part)
            part.rename(made)
    finally:
        os.close(descriptor)
    return made


def _make(release: str, included: Sequence[str], part: Path) -> None:
    subprocess.run(
        [
            # Its own mount namespace, so that no mount is left in the tree if it is killed.
            *("unshare", "--mount"),
            *("debootstrap", "--variant=minbase", f"--include={','.join(included)}"),
            *(release, str(part), _mirror()),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    for folder in _TRIMMED:
        shutil.rmtree(part / folder)
        (part / folder).mkdir()


def _unpack(release: str, packages: Sequence[str], part: Path) -> None:
    # Links that the package base-files makes on a machine.
    for folder in ("bin", "lib", "lib64", "sbin"):
        (part / "usr" / folder).mkdir(parents=True)
        (part / folder).symlink_to(f"usr/{folder}")
    for folder in ("dev", "proc", "sys", "tmp", "run", "mnt", "etc", "var/tmp"):
        (part / folder).mkdir(parents=True)
    # The engine creates the source of a bind mount, but can't in a read-only root: /var/run/docker.sock.
    (part / "var" / "run").symlink_to("/run")
    (part / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    # Podman's name server reads the machine's, and Podman itself its hosts; there is no network to reach.
    (part / "etc" / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    (part / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
    (part / "etc" / "group").write_text("root:x:0:\n")
    with tempfile.TemporaryDirectory() as made:
        state = Path(made)
        for folder in ("lists/partial", "cache/archives/partial"):
            (state / folder).mkdir(parents=True)
        (state / "status").touch()
        (state / "sources.list").write_text(f"deb [signed-by={_KEYS}] {_mirror()} {release} main\n")
        settings = {
            "Dir::State": state,
            "Dir::State::status": state / "status",
            "Dir::Cache": state / "cache",
            "Dir::Etc::sourcelist": state / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Acquire::Check-Valid-Until": "false",
            "Acquire::Languages": "none",
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",
        }
        apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in settings.items())]
        subprocess.run([*apt, "update"], check=True, stdout=subprocess.DEVNULL)
        download = [*apt, "-y", "--download-only", "install", *packages]
        subprocess.run(download, check=True, stdout=subprocess.DEVNULL)
        for package in sorted((state / "cache" / "archives").glob("*.deb")):
            subprocess.run(["dpkg-deb", "--extract", package, part], check=True)
    for folder in _TRIMMED:
        shutil.rmtree(part / folder, ignore_errors=True)


def _mirror() -> str:
    # The source of this machine's packages, which has newer releases too.
    release = own_release()
    wanted = ("--format", "$(REPO_URI) $(CODENAME) $(RELEASE)", "Created-By: Packages")
    targets = subprocess.run(["apt-get", "indextargets", *wanted], capture_output=True, text=True, check=True)
    for line in targets.stdout.splitlines():
        address, *names = line.split()
        if release in names:
            return address
    raise AssertionError("apt names no archive of this release: run `apt-get update`")
