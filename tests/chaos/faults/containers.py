"""Faults of containers."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from typing import Any

from docker.errors import APIError

from tests.chaos.faults.fault import Fault, victim_in
from tests.chaos.harness import ChaosHarness
from tests.support.harness.sandbox import GROUP_OF

# Both use more than the memory limit of this stack's containers (twice, with swap).
_CHILD_HOGS = "dd if=/dev/zero of=/dev/null bs=192M count=1"
# The kernel kills the largest process first: process 1, and with it all others.
_ALL_HOG = "dd if=/dev/zero of=/dev/null bs=40M count=99"
_MAIN_PAYS = f"echo 1000 >/proc/1/oom_score_adj; for n in 1 2 3 4; do {_ALL_HOG} & done; wait"
_KILLED = 137

Deed = Callable[[ChaosHarness, dict[str, Any]], None]


def to_container(word: str, deed: Deed, *, hits: bool = True) -> Callable[[ChaosHarness], None]:
    """Do this to a container; ``hits``: it ends a run."""

    def begin(world: ChaosHarness) -> None:
        victim = victim_in(world)
        if victim is None:
            world.tell(f"no container to {word}")
            return
        service = victim["service"]
        world.account.hit[service] += hits
        try:
            deed(world, victim)
        except (APIError, OSError) as error:
            world.tell(f"{word} {service}: {str(error)[:80]}")
        else:
            world.tell(f"{word} {service}")

    return begin


def remove(world: ChaosHarness, victim: dict[str, Any]) -> None:
    """Remove it."""
    world.account.removed[victim["service"]] += 1
    world.docker.remove_container(victim["id"], force=True)


def _crash(world: ChaosHarness, victim: dict[str, Any]) -> None:
    os.kill(victim["State"]["Pid"], signal.SIGKILL)


def _disconnect(world: ChaosHarness, victim: dict[str, Any]) -> None:
    network = sorted(victim["NetworkSettings"]["Networks"])[0]
    # Restored by a recreation.
    world.account.removed[victim["service"]] += 1
    world.docker.disconnect_container_from_network(victim["id"], network)


def _rename(world: ChaosHarness, victim: dict[str, Any]) -> None:
    world.docker.rename(victim["id"], f"odd-{world.chance.randrange(10**6)}")


def _remove_several(world: ChaosHarness) -> None:
    for _ in range(3):
        to_container("remove", remove)(world)


def _down(world: ChaosHarness) -> None:
    """Like a person's `compose down`, except for suspended groups; removes networks too (PITFALLS row 8)."""
    # The daemon recreates containers while more are removed.
    world.account.disturbed += 1
    for victim in world.managed():
        world.account.hit[victim["service"]] += 1
        with contextlib.suppress(APIError):
            remove(world, victim)
    for name in world.sandbox.networks():
        with contextlib.suppress(APIError):
            world.docker.remove_network(name)
            world.tell(f"remove {name}")
            # A container created on it in between has to be created once more.
            world.account.removed.update(GROUP_OF.keys())
    world.tell("everything was removed")


def _exhaust(script: str) -> Deed:
    def deed(world: ChaosHarness, victim: dict[str, Any]) -> None:
        made = world.docker.exec_create(victim["id"], ["sh", "-c", script])
        world.docker.exec_start(made["Id"])
        code = world.docker.exec_inspect(made["Id"])["ExitCode"]
        if code != _KILLED:
            world.tell(f"memory of {victim['service']} did not run out: {code}")

    return deed


_DEEDS: dict[str, Deed] = {
    "kill": lambda w, v: w.docker.kill(v["id"]),
    "crash": _crash,
    "stop": lambda w, v: w.docker.stop(v["id"], timeout=2),
    "pause": lambda w, v: w.docker.pause(v["id"]),
    "remove": remove,
    "rename": _rename,
    "disconnect": _disconnect,
}

FAULTS = (
    *(Fault(word, "container", 21 / 7, to_container(word, deed)) for word, deed in _DEEDS.items()),
    Fault("out of memory", "container", 2, to_container("exhaust", _exhaust(_MAIN_PAYS))),
    # The service keeps running, and no action is needed.
    Fault(
        "child out of memory",
        "container",
        2,
        to_container("exhaust a child of", _exhaust(_CHILD_HOGS), hits=False),
    ),
    Fault("remove several", "container", 2, _remove_several),
    Fault("down", "container", 2, _down),
)
