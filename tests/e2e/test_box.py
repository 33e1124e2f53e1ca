"""The box goes wrong: no room, no memory, no watches, nothing to write to, no idea what time it is, damage.

Containers never notice.
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
def small_disk(yard: Sandbox) -> Iterator[Path]:
    """The state directory on a file system of its own, of 16 MB; the daemon runs."""
    yard.daemon.end()
    state = yard.folder / "state"
    kept = (state / "ledger.json").read_bytes()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs", str(state)], check=True)
    try:
        (state / "ledger.json").write_bytes(kept)
        yard.daemon.start(1.0)
        yard.daemon.converged()
        yield state
    finally:
        yard.daemon.end()
        subprocess.run(["umount", "-l", str(state)], check=True)


def filled(folder: Path) -> Path:
    filler = folder / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(2**16)):
            pass
    return filler


def repairs(yard: Sandbox) -> None:
    """Converging goes on, whatever the disk says."""
    mark = yard.recorder.mark()
    yard.docker.kill("small-cache")
    yard.recorder.until(lambda e: e.action == "start" and e.service == "cache", since=mark)
    yard.is_true()


def refused(yard: Sandbox) -> str:
    before = (yard.desired / "groups.yaml").read_bytes()
    with pytest.raises(RequestRefused) as told:
        yard.daemon.post("/services/stop/extra")
    assert told.value.status == 503
    assert (yard.desired / "groups.yaml").read_bytes() == before
    return str(told.value.value["detail"])


@pytest.mark.pitfall(35)
def test_a_full_disk_refuses_changes_and_stops_nothing(yard: Sandbox, small_disk: Path) -> None:
    filler = filled(small_disk)
    repairs(yard)
    assert "space" in refused(yard)
    # A file that somebody edits meanwhile is taken in once there is room.
    groups = yard.desired / "groups.yaml"
    generation = yard.daemon.get("/services/status")["generation"]
    yard.save("groups.yaml", groups.read_text().replace("extra: on", "extra: off"))
    yard.daemon.until(lambda s: any("can't be written" in told for told in s["warnings"]))
    repairs(yard)
    filler.unlink()
    yard.daemon.converged(generation + 1)
    yard.is_true({"base", "app", "front"})


@pytest.mark.pitfall(34)
def test_a_damaged_audit_log_is_set_aside_and_said(yard: Sandbox) -> None:
    yard.daemon.end()
    state = yard.folder / "state"
    log = next(state.glob("audit*.db"))
    content = bytearray(log.read_bytes())
    content[100:8000] = b"\x5a" * (min(len(content), 8000) - 100)
    log.write_bytes(content)
    yard.daemon.start()
    yard.daemon.converged()
    repairs(yard)
    assert list(state.glob("audit.damaged-*"))
    entries = yard.daemon.get("/services/audit?limit=50")["entries"]
    assert any("damaged" in str(entry) for entry in entries)


# --- what can't be written ---


@contextmanager
def read_only(place: Path) -> Iterator[None]:
    """As a disk is after an error: what was open stays open, and nothing new can be written."""
    subprocess.run(["mount", "-o", "bind,ro", str(place), str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def remakes(yard: Sandbox) -> None:
    """What is gone is made again; for that Compose is needed."""
    mark = yard.recorder.mark()
    yard.docker.remove_container("small-cache", force=True)
    yard.recorder.until(lambda e: e.action == "start" and e.service == "cache", since=mark)
    yard.is_true()


@pytest.mark.pitfall(35)
@pytest.mark.parametrize("what", ["state", "desired"])
def test_what_turned_read_only_refuses_changes_and_stops_nothing(yard: Sandbox, what: str) -> None:
    started = {name: yard.one(name)["State"]["StartedAt"] for name in ("db", "api", "web")}
    with read_only(yard.folder / what):
        repairs(yard)
        remakes(yard)
        assert "ead-only" in refused(yard)
        yard.daemon.until(lambda s: any("read-only file system" in told for told in s["warnings"]))
        # One that starts only now is no worse off.
        yard.daemon.end()
        yard.daemon.start()
        yard.daemon.until(lambda s: s["generation"] and s["engine"]["reachable"])
        repairs(yard)
        remakes(yard)
        assert "ead-only" in refused(yard)
        assert yard.daemon.get("/healthz")["status"] == "ok"
    assert {name: yard.one(name)["State"]["StartedAt"] for name in started} == started
    yard.daemon.post("/services/stop/extra?wait=20")
    yard.is_true({"base", "app", "front"})


@pytest.mark.pitfall(33)
def test_a_file_that_is_a_mount_of_its_own_is_not_written_over_and_read_when_edited(yard: Sandbox) -> None:
    groups = yard.desired / "groups.yaml"
    subprocess.run(["mount", "--bind", str(groups), str(groups)], check=True)
    try:
        told = refused(yard)
        assert "mounted on its own" in told
        before = yard.daemon.get("/services/status")["generation"]
        groups.write_text(groups.read_text().replace("extra: on", "extra: off"))
        yard.daemon.converged(yard.next_generation(before))
        yard.is_true({"base", "app", "front"})
    finally:
        subprocess.run(["umount", "-l", str(groups)], check=True)


# --- what the kernel has no more of ---


@pytest.fixture
def limited(yard: Sandbox) -> Iterator[Callable[[int], None]]:
    """Says how many folders the daemon may watch; none to begin with. For that it has a user namespace."""
    setting = "/proc/sys/user/max_inotify_watches"
    yard.daemon.end()
    program = yard.daemon.program
    first = ["sh", "-c", f'echo 0 >{setting} && exec "$@"', "sh"]
    yard.daemon.program = ["unshare", "--user", "--map-root-user", *first, *program]

    def allow(watches: int) -> None:
        inside = ["nsenter", "--user", "--preserve-credentials", "--target", str(yard.daemon.pid)]
        subprocess.run([*inside, "sh", "-c", f"echo {watches} >{setting}"], check=True)

    try:
        yard.daemon.start()
        yield allow
    finally:
        yard.daemon.end()
        yard.daemon.program = program


@pytest.mark.pitfall(29)
def test_without_watches_files_are_looked_at_and_with_them_watched_again(
    yard: Sandbox, limited: Callable[[int], None]
) -> None:
    def blind(status: Json) -> bool:
        return any("fs.inotify.max_user_watches is used up" in told for told in status["warnings"])

    yard.daemon.until(blind)
    yard.daemon.converged(yard.switch(extra=False))
    yard.is_true({"base", "app", "front"})
    limited(1000)
    yard.daemon.until(lambda s: not blind(s))
    yard.daemon.converged(yard.switch())
    # They are used up again, and what was watched stays watched.
    limited(1)
    yard.daemon.converged(yard.switch(extra=False))
    yard.is_true({"base", "app", "front"})


@pytest.mark.pitfall(37)
def test_a_process_that_the_kernel_took_for_want_of_memory_is_told_though_its_container_runs_on(
    yard: Sandbox,
) -> None:
    limit = "mem_limit: 40m\nmemswap_limit: 40m"
    yard.daemon.converged(saved(yard, with_cache(limit)))
    hog = ["dd", "if=/dev/zero", "of=/dev/null", "bs=100000000", "count=1"]
    for _ in range(5):
        started, mark = yard.one("cache")["State"]["StartedAt"], yard.recorder.mark()
        made = yard.docker.exec_create("small-cache", hog)["Id"]
        yard.docker.exec_start(made)
        assert yard.docker.exec_inspect(made)["ExitCode"] == 137
        with suppress(AssertionError):
            status = yard.daemon.until(
                lambda s: "out of memory" in (service_of(s, "cache")["last_error"] or ""), within=10.0
            )
            break
        # Only an event tells of it, events are hints, and containerd loses one in a hundred (its issue 8893).
        yard.docker.restart("small-cache")
        yard.daemon.converged()
    else:
        pytest.fail("told in none of five runs of the container")
    assert service_of(status, "cache")["ready"]
    assert yard.one("cache")["State"]["StartedAt"] == started
    assert not yard.recorder.touched(mark, PROJECT)
    # Where the service goes with its child, that is the reason, whatever exit code it ends with.
    generation = saved(yard, with_cache(f'{limit}\nenvironment: {{STANDIN_MEMORY_MB: "100"}}\nrestart: "no"'))
    status = yard.daemon.until(
        lambda s: (
            s["observed_generation"] == generation and service_of(s, "cache")["reason"] == "out_of_memory"
        )
    )
    assert "out of memory" in service_of(status, "cache")["message"]
    assert yard.daemon.cli("logs", "cache", "--previous").returncode == 0


# --- what time it is ---


@pytest.fixture
def clock(yard: Sandbox) -> Iterator[Callable[[float], None]]:
    """Sets the daemon's clock off by so many years; it looks at everything all the time."""
    file = yard.folder / "clock"
    file.write_text("0")
    yard.daemon.end()
    program = yard.daemon.program
    yard.daemon.program = [sys.executable, "-m", "tests.chaos.launch"]
    yard.daemon.environ["CHAOS_CLOCK"] = str(file)
    try:
        yard.daemon.start(RESYNC)
        yard.daemon.converged()
        yield lambda years: tell_clock(file, years * 31_556_952)
    finally:
        yard.daemon.end()
        yard.daemon.program = program
        del yard.daemon.environ["CHAOS_CLOCK"]


@pytest.mark.pitfall(36)
def test_a_clock_that_jumps_by_years_moves_nothing_and_a_restart_is_carried_out_once(
    yard: Sandbox, clock: Callable[[float], None]
) -> None:
    mark = yard.recorder.mark()
    for years in (10, -10, 0):
        clock(years)
        three_resyncs(yard)
    assert not yard.recorder.touched(mark, PROJECT)
    for years in (10, -10):
        clock(years)
        repairs(yard)
        mark = yard.recorder.mark()
        yard.daemon.post("/services/restart/extra?wait=20")
        clock(0)
        three_resyncs(yard)
        assert yard.recorder.count(mark, "start", "cache") == 1, years
        ahead = any("restarted_at is in the future" in told for told in yard.daemon.status["warnings"])
        assert ahead == (years > 0)
    yard.is_true()
