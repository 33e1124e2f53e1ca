"""Faults of the daemon."""

from __future__ import annotations

import signal

from tests.chaos.faults.fault import Fault, Undo
from tests.chaos.harness import ChaosHarness, signal_all
from tests.support.harness.engine_proxy import AtCall, Call


def _kill(world: ChaosHarness) -> Undo:
    world.account.disturbed += 1
    world.kill_daemon()
    world.tell("daemon killed")
    return lambda: _come_back(world)


def _come_back(world: ChaosHarness) -> None:
    if not world.daemon.running:
        world.restart_daemon()
        world.tell("daemon started")


def _stop(world: ChaosHarness) -> Undo:
    world.stop_daemon()
    world.tell("daemon stopped in its tracks")

    def go_on() -> None:
        world.continue_daemon()
        world.tell("daemon goes on")

    return go_on


def _crash_at_step(world: ChaosHarness) -> Undo:
    nth = world.chance.randint(1, 12)
    world.account.disturbed += 1
    world.tell(f"daemon dies at its change number {nth}")

    def kill(_: Call) -> None:
        world.deaf = True
        signal_all([world.daemon.pid], signal.SIGKILL)

    die = AtCall(nth, lambda call: call.changes, kill)
    world.hooks.append(die)

    def over() -> None:
        world.hooks.remove(die)
        if die.met:
            world.daemon.kill()
            world.tell("it died")
        _come_back(world)

    return over


FAULTS = (
    Fault("kill daemon", "daemon", 8, _kill, (0.0, 1.0), ends_daemon=True),
    Fault("stop daemon", "daemon", 4, _stop, (1.0, 4.0)),
    Fault("crash at step", "daemon", 8, _crash_at_step, (1.0, 3.0), ends_daemon=True),
)
