"""Faults of the files of desired state."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.chaos.faults.fault import Fault, Undo
from tests.chaos.harness import ChaosHarness
from tests.support.harness.sandbox import GROUP_NAMES, groups_yaml

_QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")
_MOST_NOTICES = 200_000


def _truncate(world: ChaosHarness) -> Undo:
    path = world.sandbox.desired / "groups.yaml"
    whole = path.read_bytes()
    cut = whole[: world.chance.randrange(len(whole))]
    world.sandbox.save("groups.yaml", cut)
    world.tell("groups.yaml cut short")

    def mend() -> None:
        # Unless another file was saved in between.
        if path.read_bytes() == cut:
            world.sandbox.save("groups.yaml", whole)
        world.tell("groups.yaml whole again")

    return mend


def _half_written(world: ChaosHarness) -> Undo:
    path = world.sandbox.desired / "groups.yaml"
    whole = path.read_bytes()
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    os.truncate(file, len(whole) // 2)
    world.tell("groups.yaml half written")

    def finish() -> None:
        os.pwrite(file, whole, 0)
        os.close(file)
        world.tell("groups.yaml written")

    return finish


def _swap_directory(world: ChaosHarness) -> None:
    desired = world.sandbox.desired
    other, old = desired.with_name("desired.new"), desired.with_name("desired.old")
    shutil.rmtree(other, ignore_errors=True)
    shutil.copytree(desired, other)
    desired.rename(old)
    other.rename(desired)
    shutil.rmtree(old)
    world.tell("directory replaced by a copy")


def _storm(world: ChaosHarness) -> None:
    whole = (world.sandbox.desired / "groups.yaml").read_bytes()
    states = dict(world.account.acked) or dict.fromkeys(GROUP_NAMES, True)
    suspended = dict.fromkeys(world.account.suspended, "{state: on, suspend: true}")
    world.toggle(["front"], 5)
    # On a full disk, the progress is unknown.
    acked = world.account.acked.pop("front", None)
    for number in range(40):
        flip = {**states, "front": bool(number % 2) and states.get("app", True)}
        world.sandbox.save("groups.yaml", groups_yaml(**{**flip, **suspended}))
    world.sandbox.save("groups.yaml", whole)
    if acked is not None:
        world.account.acked["front"] = acked
    world.tell("groups.yaml saved 41 times")


def _delete(world: ChaosHarness) -> Undo:
    path = world.sandbox.desired / world.chance.choice(["groups.yaml", "stack.yaml", "compose.yaml"])
    whole = path.read_bytes()
    path.unlink()
    world.tell(f"{path.name} deleted")

    def restore() -> None:
        if not path.exists():
            world.sandbox.save(path.name, whole)
        world.tell(f"{path.name} is back")

    return restore


def _overflow(world: ChaosHarness) -> None:
    """More inotify events than the queue holds, so that the relevant last one is lost."""
    desired = world.sandbox.desired
    room = int(_QUEUE.read_text()) if _QUEUE.exists() else 0
    if not 0 < room <= _MOST_NOTICES or not world.daemon.running:
        world.tell("notices can't be made to overflow")
        return
    world.stop_daemon()
    try:
        noise = [desired / f".noise-{number}" for number in range(2)]
        # Alternate two names, because equal events in a row are merged; each causes several.
        for number in range(room // 2 + 1):
            os.close(os.open(noise[number % 2], os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC))
            noise[number % 2].unlink()
        mode = f"mode-{world.chance.randrange(10**6)}"
        world.account.redefined["api"] += 1
        world.sandbox.save("env/api.env", f"API_MODE={mode}\n")
    finally:
        world.continue_daemon()
    world.tell(f"more than {room} notices, then env/api.env: {mode}")


FAULTS = (
    Fault("truncate", "files", 1.5, _truncate, (0.3, 1.5)),
    Fault("half written", "files", 1.5, _half_written, (0.3, 1.5)),
    Fault("swap directory", "files", 1.5, _swap_directory),
    Fault("storm of edits", "files", 1.0, _storm),
    Fault("delete a file", "files", 1.5, _delete, (0.3, 1.5)),
    Fault("notices overflow", "files", 1.5, _overflow),
)
