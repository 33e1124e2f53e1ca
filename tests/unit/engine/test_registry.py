"""The engine registry: each name has an entry, and an entry loads only the adapter that it needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.engine import registry
from reconciler.model.capabilities import ALL, Capability
from reconciler.options import ENGINES


@pytest.mark.parametrize("name", ENGINES)
async def test_each_engine_can_be_created_while_it_is_down(name: str, tmp_path: Path) -> None:
    environ = {"DOCKER_HOST": f"unix://{tmp_path}/absent.sock", "HOME": str(tmp_path)}
    engine = registry.kind(name).create(tmp_path, environ, patience=1.0)
    assert engine.capabilities == ALL
    await engine.close()


async def test_a_remote_docker_engine_does_not_mount_files_of_this_host(tmp_path: Path) -> None:
    engine = registry.kind("docker").create(tmp_path, {"DOCKER_HOST": "tcp://192.0.2.1:2375"})
    assert engine.capabilities == ALL - {Capability.HOST_FILES}
    await engine.close()


def test_an_address_is_the_one_that_the_environment_names() -> None:
    environ = {"DOCKER_HOST": "tcp://192.0.2.1:2375"}
    assert registry.kind("docker").address(environ) == "tcp://192.0.2.1:2375"
    assert registry.kind("simulated").address(environ) == "in memory"


def test_doctor_checks_of_an_engine_are_those_of_its_kind() -> None:
    names = {name: [check.__name__ for check in registry.kind(name).checks()] for name in ENGINES}
    assert names == {
        "docker": ["check_socket", "check_engine", "check_compose"],
        "podman": ["check_socket", "check_engine", "check_health_checks", "check_compose"],
        "simulated": ["check_compose"],
    }


def test_a_resolver_passes_on_only_what_finds_engine_and_credentials() -> None:
    resolver = registry.kind("docker").resolver({"PATH": "/bin", "HOME": "/root", "TOKEN": "x"})
    assert dict(resolver.environment) == {"PATH": "/bin", "HOME": "/root"}


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("registry", ["docker", "reconciler.engine.docker", "reconciler.engine.simulated"]),
        ("registry.kind('simulated').create(Path('.'))", ["docker", "reconciler.engine.docker"]),
        ("registry.kind('docker').resolver({})", ["docker", "reconciler.engine.docker"]),
        ("registry.kind('docker').create(Path('.'))", ["reconciler.engine.simulated"]),
    ],
)
def test_no_adapter_is_loaded_that_is_not_used(code: str, absent: list[str]) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom reconciler.engine import registry\n"
        f"{code}\nprint(*(name for name in {absent!r} if name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.split() == []
