"""The box goes wrong: its disk is full, its audit log damaged. Containers never notice."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.daemon import Refused
from tests.e2e.yard import Yard


@pytest.fixture
def small_disk(yard: Yard) -> Iterator[Path]:
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


def repairs(yard: Yard) -> None:
    """Converging goes on, whatever the disk says."""
    mark = yard.recorder.mark()
    yard.docker.kill("small-cache")
    yard.recorder.until(lambda e: e.action == "start" and e.service == "cache", since=mark)
    yard.is_true()


def refused(yard: Yard) -> str:
    before = (yard.desired / "groups.yaml").read_bytes()
    with pytest.raises(Refused) as told:
        yard.daemon.post("/services/stop/extra")
    assert told.value.status == 503
    assert (yard.desired / "groups.yaml").read_bytes() == before
    return str(told.value.value["detail"])


def test_a_full_disk_refuses_changes_and_stops_nothing(yard: Yard, small_disk: Path) -> None:
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


def test_a_damaged_audit_log_is_set_aside_and_said(yard: Yard) -> None:
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
