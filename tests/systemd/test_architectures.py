"""Packages for other architectures: resolved from the lock file, without programs of another architecture."""

from __future__ import annotations

import hashlib
import platform
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.engine.compose import discovery
from reconciler.engine.compose.release import DIGESTS, architecture, program_path
from reconciler.quickstart import compose_fetch
from reconciler.quickstart.venv import ensure_compose
from tests.unit.test_lock import RUNTIME, entries

ELF = {"x86_64": 62, "aarch64": 183, "armv7l": 40}
"""`e_machine` of an ELF header."""


def processors(wheel: Path) -> Iterator[tuple[str, int]]:
    """Each compiled file in a wheel, and the processor it is for."""
    with zipfile.ZipFile(wheel) as opened:
        for name in opened.namelist():
            head = opened.open(name).read(20)
            if head.startswith(b"\x7fELF"):
                yield name, struct.unpack_from("<H", head, 18)[0]


@pytest.mark.parametrize(
    ("machine", "tags"),
    [
        ("aarch64", ["manylinux2014_aarch64", "manylinux_2_28_aarch64"]),
        ("armv7l", ["manylinux2014_armv7l", "manylinux_2_31_armv7l"]),
    ],
)
@pytest.mark.parametrize("python", ["3.11", "3.14"])
def test_the_lock_file_has_wheels_only_for_that_processor(
    tmp_path: Path, machine: str, tags: list[str], python: str
) -> None:
    # pip evaluates markers for the machine that it runs on.
    absent = {
        name
        for name, (pin, _) in entries(RUNTIME).items()
        if pin.marker and not pin.marker.evaluate({"platform_machine": machine, "sys_platform": "linux"})
    }
    lock = RUNTIME.read_text()
    for name in absent:
        lock = re.sub(rf"^{name}==.*(?:\n[ \t].*)*\n", "", lock, flags=re.MULTILINE)
    (tmp_path / "lock").write_text(lock)
    command = [sys.executable, "-m", "pip", "--quiet", "download", "--require-hashes", "--no-deps"]
    command += ["--only-binary", ":all:", "--python-version", python, "--platform", "any"]
    command += [word for tag in tags for word in ("--platform", tag)]
    command += ["--dest", str(tmp_path / "wheels"), "--requirement", str(tmp_path / "lock")]
    subprocess.run(command, check=True, timeout=300)
    wheels = list((tmp_path / "wheels").glob("*.whl"))
    assert len(wheels) == len(entries(RUNTIME)) - len(absent)
    found = {(wheel.name, name): cpu for wheel in wheels for name, cpu in processors(wheel)}
    assert found
    assert set(found.values()) == {ELF[machine]}, found


@pytest.mark.parametrize("machine", ["aarch64", "armv7l", "riscv64"])
def test_the_environment_of_a_board_gets_the_compose_for_it_or_none(
    tmp_path: Path, machine: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def release(address: str, new: Path) -> None:
        asked.append(address)
        new.write_bytes(machine.encode())

    def no_archive(*_: object, **__: object) -> None:
        raise AssertionError("the archive has a program for x86-64 alone")

    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(compose_fetch, "_download", release)
    monkeypatch.setattr(compose_fetch, "program_of_archive", no_archive)
    monkeypatch.setattr(discovery, "_candidates", lambda _: iter(()))
    place, known = program_path(tmp_path), architecture(machine)
    if known:
        # The published program is not the pinned one: nothing is installed.
        ensure_compose(tmp_path, pinned=False)
        assert not place.exists()
        assert f"docker-compose-linux-{known}" in capsys.readouterr().out
        monkeypatch.setitem(DIGESTS, known, hashlib.sha256(machine.encode()).hexdigest())
    ensure_compose(tmp_path, pinned=False)
    assert all(address.endswith(f"-linux-{known}") for address in asked)
    assert bool(asked) == bool(known)
    assert (place.read_bytes() if place.exists() else b"") == (machine.encode() if known else b"")
    assert (machine in capsys.readouterr().out) or known
