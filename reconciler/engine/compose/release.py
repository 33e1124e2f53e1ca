"""The Docker Compose bundled with Service Manager: its version, digests and location.

Standard library only: the program is fetched before there is a Python environment.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from reconciler.host.untrusted import MALFORMED
from reconciler.model.json_text import load_json

VERSION = "2.40.3"
DIGESTS = {
    "x86_64": "dba9d98e1ba5bfe11d88c99b9bd32fc4a0624a30fafe68eea34d61a3e42fd372",
    "aarch64": "d26373b19e89160546d15407516cc59f453030d9bc5b43ba7faf16f7b4980137",
    "armv7": "66aa2f460820b17aaa71e65b2c70e55eb27c11bdb9816169c322065a5b016d29",
}
"""SHA-256 of Docker's release binaries of that version, by Docker's name of the architecture."""

_ALIASES = {
    "amd64": "x86_64",
    "arm64": "aarch64",
    "armhf": "armv7",
    "armv7l": "armv7",
    "armv8l": "armv7",  # reported to a 32-bit process by a 64-bit kernel
}
_TIME = 1_577_836_800
"""Modification time of the installed program, in whole seconds, so that packing it changes nothing."""


def architecture(machine: str) -> str:
    """Return Docker's name of an architecture, from ``platform.machine()`` or dpkg's; empty if none is
    pinned.
    """
    name = _ALIASES.get(machine, machine)
    return name if name in DIGESTS else ""


def url(architecture: str) -> str:
    """Return the address where Docker publishes the program."""
    release = f"https://github.com/docker/compose/releases/download/v{VERSION}"
    return f"{release}/docker-compose-linux-{architecture}"


def program_path(environment: Path) -> Path:
    """Return the location of the program in a Python environment (``sys.prefix``)."""
    return environment / "libexec" / "service-manager" / "docker-compose"


def digest_of(program: Path) -> str:
    """Return the SHA-256 of a file; takes 0.2 s for Compose, more on a small board.

    Raises:
        OSError: it can't be read.
    """
    with program.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def install_program(new: Path, place: Path) -> None:
    """Move a program with a verified digest to its place, atomically, with a record of the verification.

    ``new`` must be on the same file system.

    Raises:
        OSError: it can't be written there.
    """
    new.chmod(0o755)
    os.utime(new, (_TIME, _TIME))
    record = {"version": VERSION, "sha256": digest_of(new), "size": new.stat().st_size, "time": _TIME}
    note = _record(place)
    part = note.with_name(f".{note.name}.new")
    part.write_text(json.dumps(record) + "\n")
    new.replace(place)
    part.replace(note)


def is_genuine(program: Path, architecture: str) -> bool:
    """Whether this is the pinned program of the architecture.

    Compares size and time with the record of ``install_program`` first: computing the digest would add 0.2 s
    and more to each command.
    """
    wanted = DIGESTS.get(architecture)
    try:
        found = program.stat()
        if not wanted or not found.st_mode & 0o100:
            return False
        if _recorded(program) == (wanted, found.st_size, int(found.st_mtime)):
            return True
        return digest_of(program) == wanted
    except OSError:
        return False


def _record(program: Path) -> Path:
    return program.with_name("docker-compose.json")


def _recorded(program: Path) -> tuple[str, int, int] | None:
    try:
        record = load_json(_record(program).read_bytes())
        return record["sha256"], record["size"], record["time"]
    except (OSError, *MALFORMED):
        return None
