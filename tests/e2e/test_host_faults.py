"""Faults of the host: full or read-only disk, no memory, no watches, clock jumps, damaged files.

Containers are never affected.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.chaos.launch import tell_clock
from tests.e2e.test_drift import RESYNC, three_resyncs
from tests.e2e.test_failures import saved, with_cache
from tests.support.harness.daemon import Json, RequestRefused, service_of
from tests.support.harness.sandbox import PROJECT, Sandbox


@pytest.fixture
def small_disk(sandbox: Sandbox) -> Iterator[Path]:
    """The state directory on a file system of 16 MB, with a running daemon."""
    sandbox.daemon.end()
    state = sandbox.folder / "state"
    kept = (state / "ledger.json").read_bytes()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs", str(state)], check=True)
    try:
        (state / "ledger.json").write_bytes(kept)
        sandbox.daemon.start(1.0)
        sandbox.daemon.converged()
        yield state
    finally:
        sandbox.daemon.end()
        subprocess.run(["umount", "-l", str(state)], check=True)


def filled(folder: Path) -> Path:
    filler = folder / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(2**16)):
            pass
    return filler


def repairs(sandbox: Sandbox) -> None:
    """Assert that converging continues."""
    mark = sandbox.recorder.mark()
    sandbox.docker.kill("small-cache")
    sandbox.recorder.until(lambda e: e.action == "start" and e.service == "cache", since=mark)
    sandbox.is_true()


def refused(sandbox: Sandbox) -> str:
    before = (sandbox.desired / "groups.yaml").read_bytes()
    with pytest.raises(RequestRefused) as caught:
        sandbox.daemon.post("/services/stop/extra")
    assert caught.value.status == 503
    assert (sandbox.desired / "groups.yaml").read_bytes() == before
    return str(caught.value.value["detail"])


@pytest.mark.pitfall(35)
def test_full_disk_refuses_changes_and_stops_nothing(sandbox: Sandbox, small_disk: Path) -> None:
    filler = filled(small_disk)
    repairs(sandbox)
    assert "space" in refused(sandbox)
    # A file edited during that time is accepted once there is space.
    groups = sandbox.desired / "groups.yaml"
    generation = sandbox.daemon.get("/services/status")["generation"]
    sandbox.save("groups.yaml", groups.read_text().replace("extra: on", "extra: off"))
    sandbox.daemon.until(lambda s: any("can't be written" in warning for warning in s["warnings"]))
    repairs(sandbox)
    filler.unlink()
    sandbox.daemon.converged(generation + 1)
    sandbox.is_true({"base", "app", "front"})


@pytest.mark.pitfall(34)
def test_damaged_audit_log_is_set_aside_and_reported(sandbox: Sandbox) -> None:
    sandbox.daemon.end()
    state = sandbox.folder / "state"
    log = next(state.glob("audit*.db"))
    content = bytearray(log.read_bytes())
    content[100:8000] = b"\x5a" * (min(len(content), 8000) - 100)
    log.write_bytes(content)
    sandbox.daemon.start()
    sandbox.daemon.converged()
    repairs(sandbox)
    assert list(state.glob("audit.damaged-*"))
    entries = sandbox.daemon.get("/services/audit?limit=50")["entries"]
    assert any("damaged" in str(entry) for entry in entries)


# --- read-only files ---


@contextmanager
def read_only(place: Path) -> Iterator[None]:
    """Remount read-only, as after a disk error: open files stay open, nothing new can be written."""
    subprocess.run(["mount", "-o", "bind,ro", str(place), str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def remakes(sandbox: Sandbox) -> None:
    """Assert that a removed container is created again, which needs Compose."""
    mark = sandbox.recorder.mark()
    sandbox.docker.remove_container("small-cache", force=True)
    sandbox.recorder.until(lambda e: e.action == "start" and e.service == "cache", since=mark)
    sandbox.is_true()


@pytest.mark.pitfall(35)
@pytest.mark.parametrize("what", ["state", "desired"])
def test_read_only_disk_refuses_changes_and_stops_nothing(sandbox: Sandbox, what: str) -> None:
    started = {name: sandbox.one(name)["State"]["StartedAt"] for name in ("db", "api", "web")}
    with read_only(sandbox.folder / what):
        repairs(sandbox)
        remakes(sandbox)
        assert "ead-only" in refused(sandbox)
        sandbox.daemon.until(lambda s: any("read-only file system" in warning for warning in s["warnings"]))
        # A daemon that starts in this state works too.
        sandbox.daemon.end()
        sandbox.daemon.start()
        sandbox.daemon.until(lambda s: s["generation"] and s["engine"]["reachable"])
        repairs(sandbox)
        remakes(sandbox)
        assert "ead-only" in refused(sandbox)
        assert sandbox.daemon.get("/healthz")["status"] == "ok"
    assert {name: sandbox.one(name)["State"]["StartedAt"] for name in started} == started
    sandbox.daemon.post("/services/stop/extra?wait=20")
    sandbox.is_true({"base", "app", "front"})


@pytest.mark.pitfall(33)
def test_bind_mounted_file_is_not_replaced_and_is_read_when_edited(sandbox: Sandbox) -> None:
    groups = sandbox.desired / "groups.yaml"
    subprocess.run(["mount", "--bind", str(groups), str(groups)], check=True)
    try:
        detail = refused(sandbox)
        assert "mounted on its own" in detail
        before = sandbox.daemon.get("/services/status")["generation"]
        groups.write_text(groups.read_text().replace("extra: on", "extra: off"))
        sandbox.daemon.converged(sandbox.next_generation(before))
        sandbox.is_true({"base", "app", "front"})
    finally:
        subprocess.run(["umount", "-l", str(groups)], check=True)


# --- kernel limits ---


@pytest.fixture
def limited(sandbox: Sandbox) -> Iterator[Callable[[int], None]]:
    """Set how many folders the daemon may watch, initially none; uses a user namespace."""
    setting = "/proc/sys/user/max_inotify_watches"
    sandbox.daemon.end()
    program = sandbox.daemon.program
    first = ["sh", "-c", f'echo 0 >{setting} && exec "$@"', "sh"]
    sandbox.daemon.program = ["unshare", "--user", "--map-root-user", *first, *program]

    def allow(watches: int) -> None:
        inside = ["nsenter", "--user", "--preserve-credentials", "--target", str(sandbox.daemon.pid)]
        subprocess.run([*inside, "sh", "-c", f"echo {watches} >{setting}"], check=True)

    try:
        sandbox.daemon.start()
        yield allow
    finally:
        sandbox.daemon.end()
        sandbox.daemon.program = program


@pytest.mark.pitfall(29)
def test_files_are_polled_without_inotify_watches_and_watched_again_with_them(
    sandbox: Sandbox, limited: Callable[[int], None]
) -> None:
    def blind(status: Json) -> bool:
        return any("fs.inotify.max_user_watches is used up" in warning for warning in status["warnings"])

    sandbox.daemon.until(blind)
    sandbox.daemon.converged(sandbox.switch(extra=False))
    sandbox.is_true({"base", "app", "front"})
    limited(1000)
    sandbox.daemon.until(lambda s: not blind(s))
    sandbox.daemon.converged(sandbox.switch())
    # The limit is reached again; existing watches stay.
    limited(1)
    sandbox.daemon.converged(sandbox.switch(extra=False))
    sandbox.is_true({"base", "app", "front"})


@pytest.mark.pitfall(37)
def test_oom_kill_of_a_child_process_is_reported_while_its_container_runs(
    sandbox: Sandbox,
) -> None:
    limit = "mem_limit: 40m\nmemswap_limit: 40m"
    sandbox.daemon.converged(saved(sandbox, with_cache(limit)))
    hog = ["dd", "if=/dev/zero", "of=/dev/null", "bs=100000000", "count=1"]
    for _ in range(5):
        started, mark = sandbox.one("cache")["State"]["StartedAt"], sandbox.recorder.mark()
        made = sandbox.docker.exec_create("small-cache", hog)["Id"]
        sandbox.docker.exec_start(made)
        assert sandbox.docker.exec_inspect(made)["ExitCode"] == 137
        with suppress(AssertionError):
            status = sandbox.daemon.until(
                lambda s: "out of memory" in (service_of(s, "cache")["last_error"] or ""), within=10.0
            )
            break
        # Only an event reports it, and containerd loses one event in a hundred (containerd#8893).
        sandbox.docker.restart("small-cache")
        sandbox.daemon.converged()
    else:
        pytest.fail("not reported in five runs of the container")
    assert service_of(status, "cache")["ready"]
    assert sandbox.one("cache")["State"]["StartedAt"] == started
    assert not sandbox.recorder.touched(mark, PROJECT)
    # If the service ends with its child, OOM is the reason for any exit code.
    generation = saved(
        sandbox, with_cache(f'{limit}\nenvironment: {{STANDIN_MEMORY_MB: "100"}}\nrestart: "no"')
    )
    status = sandbox.daemon.until(
        lambda s: (
            s["observed_generation"] == generation and service_of(s, "cache")["reason"] == "out_of_memory"
        )
    )
    assert "out of memory" in service_of(status, "cache")["message"]
    assert sandbox.daemon.cli("logs", "cache", "--previous").returncode == 0


# --- clock ---


@pytest.fixture
def clock(sandbox: Sandbox) -> Iterator[Callable[[float], None]]:
    """Shift the daemon's clock by a number of years; it resyncs constantly."""
    file = sandbox.folder / "clock"
    file.write_text("0")
    sandbox.daemon.end()
    program = sandbox.daemon.program
    sandbox.daemon.program = [sys.executable, "-m", "tests.chaos.launch"]
    sandbox.daemon.environ["CHAOS_CLOCK"] = str(file)
    try:
        sandbox.daemon.start(RESYNC)
        sandbox.daemon.converged()
        yield lambda years: tell_clock(file, years * 31_556_952)
    finally:
        sandbox.daemon.end()
        sandbox.daemon.program = program
        del sandbox.daemon.environ["CHAOS_CLOCK"]


@pytest.mark.pitfall(36)
def test_clock_jump_of_years_changes_nothing_and_a_restart_request_is_applied_once(
    sandbox: Sandbox, clock: Callable[[float], None]
) -> None:
    mark = sandbox.recorder.mark()
    for years in (10, -10, 0):
        clock(years)
        three_resyncs(sandbox)
    assert not sandbox.recorder.touched(mark, PROJECT)
    for years in (10, -10):
        clock(years)
        repairs(sandbox)
        mark = sandbox.recorder.mark()
        sandbox.daemon.post("/services/restart/extra?wait=20")
        clock(0)
        three_resyncs(sandbox)
        assert sandbox.recorder.count(mark, "start", "cache") == 1, years
        ahead = any(
            "restarted_at is in the future" in warning for warning in sandbox.daemon.status["warnings"]
        )
        assert ahead == (years > 0)
    sandbox.is_true()
