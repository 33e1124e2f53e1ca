"""Faults of the connection between daemon and engine."""

from __future__ import annotations

from collections.abc import Callable

from tests.chaos.faults.containers import to_container
from tests.chaos.faults.fault import Fault, Undo
from tests.chaos.harness import ChaosHarness
from tests.support.harness.engine_proxy import AtCall, Call


def _at_call(verdict: str, *, reads: bool = True) -> Callable[[ChaosHarness], Undo]:
    def begin(world: ChaosHarness) -> Undo:
        nth = world.chance.randint(1, 8)
        world.tell(f"{verdict} at call number {nth}")
        met: list[str] = []

        def meant(call: Call) -> bool:
            # A broken event stream is a fault of its own.
            return call.path != "/events" and (reads or call.changes)

        def spoil(call: Call) -> str | None:
            met.append(f"{call.method} {call.path}")
            if call.changes:
                world.account.disturbed += 1
            return verdict

        hook = AtCall(nth, meant, spoil)
        if verdict == "hold":
            world.proxy.arm()
        world.hooks.append(hook)

        def over() -> None:
            world.hooks.remove(hook)
            if verdict == "hold":
                world.proxy.release()
            world.tell(f"{verdict} met {met[0] if met else 'nothing'}")

        return over

    return begin


def _fail_lists(world: ChaosHarness) -> Undo:
    # Longer than reads are retried: the observation fails and must cause no action.
    def hook(call: Call) -> str | None:
        return "refuse" if call.method == "GET" and call.path == "/containers/json" else None

    world.hooks.append(hook)
    world.tell("lists fail")

    def over() -> None:
        world.hooks.remove(hook)
        world.tell("lists are given")

    return over


def _mute(world: ChaosHarness) -> Undo:
    silence = world.proxy.mute()
    silence.__enter__()
    world.tell("events are lost")

    def over() -> None:
        silence.__exit__(None, None, None)
        world.tell("events arrive again")

    return over


def _mute_and_kill(world: ChaosHarness) -> Undo:
    over = _mute(world)
    to_container("kill, unheard,", lambda w, v: w.docker.kill(v["id"]))(world)
    return over


FAULTS = (
    Fault("answer 500", "proxy", 3, _at_call("refuse"), (1.0, 2.0)),
    Fault("cut the line", "proxy", 3, _at_call("cut"), (1.0, 2.0)),
    Fault("stall", "proxy", 3, _at_call("hold"), (1.0, 3.0)),
    Fault("done but no answer", "proxy", 4, _at_call("lose", reads=False), (1.0, 3.0)),
    Fault("lists fail", "proxy", 3, _fail_lists, (1.0, 3.0)),
    Fault("lose events", "proxy", 2, _mute, (1.0, 3.0)),
    Fault("lose events of a kill", "proxy", 2, _mute_and_kill, (1.0, 3.0)),
)
