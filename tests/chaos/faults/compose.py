"""Faults of Compose, and Compose commands by people."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading

from tests.chaos.faults.containers import remove, to_container
from tests.chaos.faults.fault import Fault, Undo
from tests.chaos.harness import ChaosHarness, signal_all
from tests.support.harness.engine_proxy import AtCall
from tests.support.harness.sandbox import GROUP_OF

ON_TWO_NETWORKS = "api"


def _lose_creates(world: ChaosHarness) -> Undo:
    # Excuses hardly anything: created containers exist, and an observation finds them.
    to_container("remove", remove)(world)
    lose = AtCall(1, lambda call: call.path == "/containers/create", lambda _: "lose")
    world.hooks.append(lose)

    def over() -> None:
        world.hooks.remove(lose)
        account = world.account
        if lose.met and (account.removed[ON_TWO_NETWORKS] or account.redefined[ON_TWO_NETWORKS]):
            # Created on the first network; Compose was killed before it connected the second.
            account.removed[ON_TWO_NETWORKS] += 1
        world.tell("the answer to a create was lost" if lose.met else "nothing was created")

    return over


def _kill(world: ChaosHarness) -> Undo:
    nth = world.chance.randint(1, 12)
    world.account.disturbed += 1
    world.tell(f"Compose dies at its call number {nth}")
    die = AtCall(nth, lambda call: call.by_compose, lambda call: signal_all([call.pid], signal.SIGKILL))
    world.hooks.append(die)

    def over() -> None:
        world.hooks.remove(die)
        world.tell("Compose died" if die.met else "Compose was not met")

    return over


def _person_up(world: ChaosHarness) -> Undo:
    # Beside the daemon, not through its proxy.
    world.account.persons += 1
    world.account.disturbed += 1
    services = [s for s, g in GROUP_OF.items() if g not in world.account.suspended and s != "migrate"]
    world.tell("a person runs docker compose up -d")

    def run() -> None:
        # A person's call may fail, or hang with an engine that was frozen.
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            world.sandbox.person("up", "-d", "--no-deps", "--no-build", *services)

    thread = threading.Thread(target=run)
    thread.start()

    def over() -> None:
        thread.join(100)
        world.tell("the person is done")

    return over


FAULTS = (
    Fault("lost creates", "compose", 2, _lose_creates, (2.0, 3.0)),
    Fault("kill Compose", "compose", 4, _kill, (1.0, 3.0)),
    Fault("a person's up", "compose", 4, _person_up, (0.5, 1.0)),
)
