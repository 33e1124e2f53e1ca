"""Faults of the host: disks, clock, ports, memory."""

from __future__ import annotations

import contextlib
import socket
import threading

from docker.errors import APIError

from tests.chaos.faults.fault import Fault, Undo, victim_in
from tests.chaos.harness import ChaosHarness, remount
from tests.support.harness.engine_proxy import Call

_ROOM = 160
"""Megabytes that a hog may take: more than the daemon has, so that the kernel takes the hog."""
_BREATH = 0.3
_RATHER = 500
"""How much rather the kernel ends the hog: as much as the shipped unit has it spare the daemon."""


def _fill_disk(world: ChaosHarness) -> Undo:
    folder = world.chance.choice([world.state, world.disk])
    ballast = folder / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        for size in (65536, 512):
            with contextlib.suppress(OSError):
                while file.write(b"\0" * size):
                    pass
    world.tell(f"no room in {folder.name}")

    def free() -> None:
        ballast.unlink(missing_ok=True)
        world.tell(f"room in {folder.name}")

    return free


def _desired_read_only(world: ChaosHarness) -> Undo | None:
    if not remount(world.disk, "ro"):
        world.tell("a file of the desired state is open for writing: it stays writable")
        return None
    world.tell("desired state read-only")

    def mend() -> None:
        remount(world.disk, "rw")
        world.tell("desired state writable")

    return mend


def _state_read_only(world: ChaosHarness) -> Undo:
    # Only a start is affected: files open for writing prevent the remount.
    world.account.disturbed += 1
    world.kill_daemon()
    if not remount(world.state, "ro"):
        world.tell("a file of the state directory is open for writing: it stays writable")
    else:
        world.tell("daemon starts with its state directory read-only")
    world.daemon.start(world.sandbox.resync, wait=False)

    def mend() -> None:
        remount(world.state, "rw")
        alive = world.daemon.running
        if not alive:
            world.restart_daemon()
        world.daemon.await_answer()
        world.deaf = False
        world.tell(f"state directory writable, the daemon {'lived' if alive else 'had ended'}")

    return mend


def _jump_clock(world: ChaosHarness) -> Undo | None:
    seconds = world.chance.choice([-3600.0, 3600.0, -3.15e8, 3.15e8])
    victim = victim_in(world)
    if victim is None:
        world.set_clock(seconds)
        world.tell(f"clock off by {seconds:g} s, with the daemon down")
        return None

    def kill() -> None:
        world.account.hit[victim["service"]] += 1
        with contextlib.suppress(APIError):
            world.docker.kill(victim["id"])
        world.tell(f"kill {victim['service']}")

    def again() -> None:
        # After two failures there is a back-off; the clock jumps during it.
        kill()
        world.set_clock(seconds)
        world.tell(f"clock off by {seconds:g} s")

    kill()
    return again


def _take_port(world: ChaosHarness) -> Undo | None:
    """Another process listens on the published port between two runs of its service."""
    taken: list[socket.socket] = []

    def take(call: Call) -> None:
        if call.changes and call.path.endswith("/start") and not taken:
            listener = socket.socket()
            try:
                listener.bind(("127.0.0.1", world.port))
                listener.listen()
            except OSError:
                listener.close()
            else:
                taken.append(listener)

    edge = next((c for c in world.managed() if c["service"] == "edge" and c["status"] == "running"), None)
    if edge is None:
        world.tell("no service publishes a port")
        return None
    world.hooks.append(take)
    world.account.hit["edge"] += 1
    world.account.disturbed += 1
    with contextlib.suppress(APIError):
        world.docker.stop(str(edge["id"]), timeout=1)
    world.tell("edge stopped, its port wanted")

    def free() -> None:
        world.hooks.remove(take)
        for listener in taken:
            listener.close()
        world.tell("port free again" if taken else "port was in use")

    return free


def _hog_memory(world: ChaosHarness) -> Undo | None:
    if world.box is None:
        world.tell("memory can't be limited here")
        return None
    box, over, ends = world.box, threading.Event(), []
    pid = world.daemon.pid if world.daemon.running else 0
    box.leave(_ROOM)

    def press() -> None:
        while not over.wait(_BREATH):
            hog = box.hog(_RATHER)
            while hog.poll() is None and not over.wait(0.05):
                pass
            hog.kill()
            ends.append(hog.wait())

    thread = threading.Thread(target=press)
    thread.start()
    world.tell("a process takes all memory of the host")

    def free() -> None:
        over.set()
        thread.join()
        box.free()
        world.tell(f"memory is free again after {len(ends)} hogs")
        if world.daemon_vanished(pid):
            world.account.complaints.append("out of memory, the daemon went and not the hog")

    return free


FAULTS = (
    Fault("disk full", "box", 3, _fill_disk, (1.0, 3.0)),
    Fault("desired state read-only", "box", 1.5, _desired_read_only, (1.0, 3.0)),
    Fault("state read-only at a start", "box", 1.5, _state_read_only, (1.0, 3.0), ends_daemon=True),
    Fault("clock jumps", "box", 2.5, _jump_clock, (1.5, 2.5)),
    Fault("port taken", "box", 2, _take_port, (1.5, 3.0)),
    Fault("memory hog", "box", 2, _hog_memory, (1.0, 3.0)),
)
