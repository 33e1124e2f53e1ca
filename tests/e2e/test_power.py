"""Power cuts: only what reached the disk remains, and the daemon starts from it."""

from __future__ import annotations

import itertools
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from tests.support.harness.daemon import Daemon
from tests.support.harness.sandbox import GROUP_NAMES, Sandbox

_SIZE = 48 * 2**20
_OPTIONS = "loop,commit=300,noauto_da_alloc"
"""What an ext4 does of itself for those who forget to sync is switched off, as far as it can be."""


class Disk:
    """An ext4 image file that holds folders of a sandbox.

    Unsynced data is only in the kernel's memory and not in the file, so a copy of the file is the disk
    after a power cut at that moment.
    """

    def __init__(self, folder: Path, places: dict[str, Path]) -> None:
        self._folder, self._places = folder, places
        self._mount = folder / "disk"
        self._mount.mkdir(parents=True)
        self.image = folder / "image"
        with self.image.open("wb") as file:
            file.truncate(_SIZE)
        subprocess.run(["mkfs.ext4", "-q", "-F", str(self.image)], check=True)

    def fill(self) -> None:
        """Copy the current content of the folders."""
        subprocess.run(["mount", "-o", _OPTIONS, str(self.image), str(self._mount)], check=True)
        for name, place in self._places.items():
            shutil.copytree(place, self._mount / name, symlinks=True)
            (self._mount / name).chmod(place.stat().st_mode & 0o777)
        subprocess.run(["umount", str(self._mount)], check=True)

    @contextmanager
    def plugged(self, image: Path) -> Iterator[None]:
        """Mount this disk at its folders."""
        subprocess.run(["mount", "-o", _OPTIONS, str(image), str(self._mount)], check=True)
        try:
            for name, place in self._places.items():
                subprocess.run(["mount", "--bind", str(self._mount / name), str(place)], check=True)
            yield
        finally:
            for place in (*self._places.values(), self._mount):
                subprocess.run(["umount", "-l", str(place)], check=False)

    def cut(self, daemon: Daemon, number: int) -> Path:
        """The disk after a power cut at this moment; the daemon keeps running."""
        copy = self._folder / f"image.{number}"
        daemon.signal(signal.SIGSTOP)
        try:
            shutil.copyfile(self.image, copy)
        finally:
            daemon.signal(signal.SIGCONT)
        return copy


class Cut(NamedTuple):
    """``may_be``: possible states of `extra` in groups.yaml; ``acknowledged``: writes acknowledged before."""

    image: Path
    may_be: set[str]
    acknowledged: int


@pytest.fixture
def disk(sandbox: Sandbox, tmp_path: Path) -> Iterator[Disk]:
    """Desired state and state directory of the sandbox on their own disk; no daemon runs."""
    sandbox.daemon.end()
    disk = Disk(tmp_path, {"state": sandbox.folder / "state", "desired": sandbox.desired})
    disk.fill()
    yield disk
    sandbox.daemon.kill()


@pytest.mark.pitfall(33, 34)
def test_acknowledged_writes_survive_a_power_cut_and_others_are_whole_or_absent(
    sandbox: Sandbox, disk: Disk
) -> None:
    with disk.plugged(disk.image):
        sandbox.daemon.start()
        sandbox.daemon.converged()
        before = len(writes(sandbox))
        cuts = [*cuts_at_the_answer(sandbox, disk), *cuts_in_the_middle(sandbox, disk)]
        sandbox.daemon.kill()
    for cut in cuts:
        with disk.plugged(cut.image):
            assert says_of_extra(sandbox) in cut.may_be, cut
            sandbox.daemon.start()
            sandbox.daemon.converged()
            on = {*GROUP_NAMES} - ({"extra"} if says_of_extra(sandbox) == "off" else set())
            sandbox.is_true(on)
            assert len(writes(sandbox)) - before >= cut.acknowledged
            sandbox.daemon.kill()


def cuts_at_the_answer(sandbox: Sandbox, disk: Disk) -> Iterator[Cut]:
    """Cut the power at the moment a write is acknowledged."""
    for number in range(3):
        verb, word = (("stop", "off"), ("start", "on"))[number % 2]
        sandbox.daemon.post(f"/services/{verb}/extra")
        yield Cut(disk.cut(sandbox.daemon, number), {word}, number + 1)


def cuts_in_the_middle(sandbox: Sandbox, disk: Disk) -> Iterator[Cut]:
    """Cut the power during a series of writes."""
    chance, done = Random(1), threading.Event()
    acknowledged = 3

    def write() -> None:
        nonlocal acknowledged
        for verb in itertools.cycle(["start", "stop"]):
            if done.is_set():
                return
            sandbox.daemon.post(f"/services/{verb}/extra")
            acknowledged += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(3, 7):
            done.wait(chance.uniform(0.05, 0.15))
            before = acknowledged
            yield Cut(disk.cut(sandbox.daemon, number), {"on", "off"}, before)
    finally:
        done.set()
        writer.join()


def says_of_extra(sandbox: Sandbox) -> str:
    """The state of the group in a complete file."""
    words = dict(line.split("#")[0].strip().split(": ") for line in lines_of(sandbox)[1:])
    assert words.keys() == {*GROUP_NAMES}
    return words["extra"].strip()


def lines_of(sandbox: Sandbox) -> list[str]:
    return (sandbox.desired / "groups.yaml").read_text().splitlines()


def writes(sandbox: Sandbox) -> list[str]:
    """The writes in the audit log."""
    entries = sandbox.daemon.get("/services/audit?limit=1000")["entries"]
    return [e["action"] for e in entries if e["target"] == "extra" and e["action"] in {"start", "stop"}]
