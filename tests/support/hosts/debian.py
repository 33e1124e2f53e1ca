"""Debian file systems for tests, from debootstrap; kept below `.cache/`, removed by `make clean`."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

CACHE = Path(__file__).resolve().parents[3] / ".cache" / "debian"
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
    """The folder of a file system with these packages; created once, which takes a minute or two."""
    made = CACHE / f"{release}-{'-'.join(included)}"
    CACHE.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(CACHE, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Tests run in several processes; the second waits for the first.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if not made.exists():
            _make(release, included, made)
    finally:
        os.close(descriptor)
    return made


def _make(release: str, included: Sequence[str], made: Path) -> None:
    part = made.with_name(f"{made.name}.part")
    shutil.rmtree(part, ignore_errors=True)
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
    part.rename(made)


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
