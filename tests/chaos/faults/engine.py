"""Faults of the engine."""

from __future__ import annotations

import signal
from pathlib import Path
from subprocess import TimeoutExpired

from tests.chaos.faults.fault import Fault, Undo, victim_in
from tests.chaos.harness import ChaosHarness, shims_of, signal_all
from tests.chaos.load_generator import MemoryGroup

_ROOM = 32
_OVERDUE = 10.0


def _restart(world: ChaosHarness, *, kill: bool) -> None:
    world.account.disturbed += 1
    world.account.crashes += kill
    world.tell("engine killed and started" if kill else "engine restarts")
    world.restart_engine(kill=kill)
    world.tell("engine is back")


def _exhaust(world: ChaosHarness) -> None:
    try:
        group = MemoryGroup(f"{world.box_name}-engine")
    except OSError as error:
        world.tell(f"the engine keeps its memory: {error}")
        return
    # Raise the OOM score of the target; lowering others needs a privilege that not every machine has.
    Path(f"/proc/{world.engine.pid}/oom_score_adj").write_text("1000")
    group.add(world.engine.pid)
    group.leave(_ROOM)
    hog = group.hog(0)
    try:
        world.tell(f"engine out of memory, ended with {world.engine.wait_for_exit(_OVERDUE)}")
    except TimeoutExpired:
        world.tell("memory of the engine did not run out")
    finally:
        hog.kill()
        hog.wait()
        group.close()
    _restart(world, kill=True)


def _freeze(world: ChaosHarness) -> Undo:
    pid = world.engine.pid
    world.account.disturbed += 1
    world.frozen = True
    signal_all([pid], signal.SIGSTOP)
    world.tell("engine frozen")

    def thaw() -> None:
        signal_all([pid], signal.SIGCONT)
        world.frozen = False
        world.tell("engine goes on")

    return thaw


def _freeze_shim(world: ChaosHarness) -> Undo | None:
    victim = victim_in(world)
    pid = shims_of(world.engine).get(str(victim["id"])) if victim else None
    if victim is None or pid is None:
        world.tell("no shim to freeze")
        return None
    world.account.disturbed += 1
    signal_all([pid], signal.SIGSTOP)
    world.tell(f"shim of {victim['service']} frozen")

    def thaw() -> None:
        signal_all([pid], signal.SIGCONT)
        world.tell("shim goes on")

    return thaw


def _hide_socket(world: ChaosHarness) -> Undo:
    world.account.disturbed += 1
    world.proxy.hide()
    world.tell("socket hidden")

    def show() -> None:
        world.proxy.show()
        world.tell("socket is back")

    return show


FAULTS = (
    Fault("restart engine", "engine", 4, lambda w: _restart(w, kill=False)),
    Fault("kill engine", "engine", 3, lambda w: _restart(w, kill=True)),
    Fault("engine out of memory", "engine", 2, _exhaust),
    Fault("freeze engine", "engine", 5, _freeze, (1.0, 4.0)),
    Fault("freeze shim", "engine", 2, _freeze_shim, (1.0, 3.0)),
    Fault("hide socket", "engine", 4, _hide_socket, (0.5, 3.0)),
)
