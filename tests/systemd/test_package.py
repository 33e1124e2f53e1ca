"""The package on a clean Debian, and `make install` in a folder: first install, upgrade, removal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.hosts.systemd_host import DESIRED, GROUPS, ROOT, UNIT, SystemdHost, rebuilt, until

NAME = "alpr-service-manager"
STATE = "/var/lib/service-manager"
CONVERGED = "converged, 2 of 2 services ready, 2 of 3 groups on"


@pytest.fixture(scope="module")
def box(make_box: Callable[[], SystemdHost]) -> Iterator[SystemdHost]:
    box = make_box().boot()
    try:
        yield box
    finally:
        box.remove()


# The steps of one machine, in this order.


def test_the_package_installs_and_starts_on_a_clean_debian(box: SystemdHost, package: Path) -> None:
    box.install(package)
    # No engine, no plugin, no network: the shipped stack is still read, with the bundled Compose.
    assert box.shows("ActiveState") == "active"
    assert box.run("systemctl", "is-enabled", UNIT) == "enabled"
    status = json.loads(box.run("service-manager", "status", "--output", "json"))
    assert (status["generation"], status["errors"]) == (1, [])
    assert set(status["groups"]) == {
        *("kafka", "storage", "search", "alerts", "monitoring", "analytics", "optional"),
    }
    assert box.run("stat", "-c", "%U:%G %a", str(DESIRED)) == "service-manager:service-manager 2775"
    assert box.run("stat", "-c", "%U:%G %a", f"{DESIRED}/config/prometheus.yml").endswith(" 664")
    assert box.run("stat", "-c", "%a", f"{DESIRED}/env/database.env") == "660"
    # The group may change every new file there, with any umask of its creator.
    box.run("sh", "-c", f"umask 077; mkdir {DESIRED}/config/new; touch {DESIRED}/config/new/file")
    assert box.run("stat", "-c", "%G %a", f"{DESIRED}/config/new").split() == ["service-manager", "2775"]
    assert box.run("stat", "-c", "%G %a", f"{DESIRED}/config/new/file").split() == ["service-manager", "664"]
    box.run("rm", "-r", f"{DESIRED}/config/new")
    assert box.run("stat", "-c", "%U:%G %a", STATE) == "service-manager:service-manager 700"
    assert box.run("service-manager", "validate", str(DESIRED)).splitlines()[-1]
    assert box.run("dpkg", "--verify", NAME) == ""
    compiled = box.run("find", "/usr/lib/service-manager", "-name", "loop.cpython-*.pyc")
    assert "reconciler/controller/__pycache__" in compiled


def test_an_upgrade_keeps_data_and_restarts_only_the_daemon(
    box: SystemdHost, package: Path, tmp_path: Path
) -> None:
    box.begin()
    box.use("# my own line\n")
    box.show_engine()
    box.run("systemctl", "restart", UNIT)
    box.status_becomes(CONVERGED)
    before, pid = box.containers(), box.pid
    entries = json.loads(box.run("service-manager", "audit", "--output", "json"))["entries"]
    box.install(rebuilt(package, "99.0", tmp_path))
    assert box.run("dpkg-query", "--show", "--showformat", "${Version}", NAME) == "99.0"
    box.status_becomes(CONVERGED)
    assert box.pid not in {0, pid}
    assert box.containers() == before
    assert box.read(DESIRED / "groups.yaml") + "\n" == GROUPS
    assert "# my own line" in box.read("/etc/service-manager/service-manager.env")
    kept = json.loads(box.run("service-manager", "audit", "--output", "json"))["entries"]
    assert kept[: len(entries)] == entries
    box.run("service-manager", "audit", "--verify")


def test_an_upgrade_does_not_restore_a_deleted_desired_state(
    box: SystemdHost, package: Path, tmp_path: Path
) -> None:
    before = box.containers()
    box.run("mv", str(DESIRED), "/root/elsewhere")
    try:
        box.install(rebuilt(package, "99.1", tmp_path))
        box.run("test", "!", "-e", str(DESIRED))
        assert box.containers() == before
    finally:
        box.run("mv", "/root/elsewhere", str(DESIRED))
    box.status_becomes(CONVERGED)


def test_a_removal_leaves_containers_and_data_for_a_later_install(box: SystemdHost, package: Path) -> None:
    before = box.containers()
    told = box.run("dpkg", "--remove", NAME)
    assert "containers keep running" in told
    assert box.shows("ActiveState") == "inactive"
    assert box.containers() == before
    assert box.read(DESIRED / "groups.yaml") + "\n" == GROUPS
    box.run("test", "-e", f"{STATE}/audit.db")
    for gone in ("/usr/bin/service-manager", "/usr/lib/service-manager"):
        box.run("test", "!", "-e", gone)
    box.install(package)
    box.status_becomes(CONVERGED)
    assert box.containers() == before
    assert box.read(DESIRED / "groups.yaml") + "\n" == GROUPS
    box.run("service-manager", "audit", "--verify")


def test_a_purge_removes_its_data_but_no_files_of_others(box: SystemdHost) -> None:
    before = box.containers()
    box.write(DESIRED / "database/rows", "precious\n", owner="service-manager")
    told = box.run("dpkg", "--purge", NAME)
    assert f"{DESIRED}/database/rows" in told
    assert box.containers() == before
    assert box.read(DESIRED / "database/rows") == "precious"
    assert box.run("find", "/etc/service-manager", "-type", "f") == f"{DESIRED}/database/rows"
    box.run("test", "!", "-e", STATE)
    assert "safe" not in box.run("cat", "/etc/gitconfig", check=False)
    assert box.shows("LoadState") == "not-found"
    until(lambda: box.run("systemctl", "is-system-running", check=False), "running", 10.0)


# --- make install ---


def make(*words: str) -> str:
    done = subprocess.run(
        ["make", "--no-print-directory", *words, f"VENV={Path(sys.executable).parents[1]}"],
        cwd=ROOT,
        env=os.environ | {"CI": "true"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_make_install_uses_destdir_and_uninstall_keeps_the_user_s_files(
    tmp_path: Path,
) -> None:
    where = (f"DESTDIR={tmp_path}", "PREFIX=/opt/sm")
    make("install", *where)
    library = tmp_path / "opt/sm/lib/service-manager"
    unit = (tmp_path / "etc/systemd/system" / UNIT).read_text()
    assert "\nExecStart=/opt/sm/bin/service-manager run\n" in unit
    assert (tmp_path / "opt/sm/bin/service-manager").resolve() == library / "bin/service-manager"
    assert (
        (library / "bin/service-manager")
        .read_text()
        .startswith("#!/opt/sm/lib/service-manager/bin/python3 -I\n")
    )
    for file in ("etc/sysusers.d/service-manager.conf", "etc/tmpfiles.d/service-manager.conf"):
        assert (tmp_path / file).exists()
    groups = tmp_path / "etc/service-manager/desired-state/groups.yaml"
    options = tmp_path / "etc/service-manager/service-manager.env"
    groups.write_text("groups: {}  # mine\n")
    options.write_text("# mine\n")
    # It needs neither the checkout nor the environment that built it.
    command = [str(library / "bin/python3"), "-I", str(library / "bin/service-manager"), "validate"]
    shipped = next(library.glob("lib/python3*/site-packages/reconciler/shipped_desired_state"))
    done = subprocess.run(
        [*command, str(shipped)], cwd="/", env={}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(tmp_path.rglob("*.egg-info"))

    make("install", *where)
    assert groups.read_text() == "groups: {}  # mine\n"
    assert options.read_text() == "# mine\n"

    assert "are kept" in make("uninstall", *where)
    left = sorted(path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*") if path.is_file())
    assert set(left) == {"etc"}
    assert groups.exists()
    assert not list((tmp_path / "etc/systemd/system").iterdir())
