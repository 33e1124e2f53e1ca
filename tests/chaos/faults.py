"""What goes wrong: to containers, to the daemon, to the engine, between them, to files, to the box.

Each fault is begun, lasts a while where that means anything, and is taken back by what ``begin`` returned.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from docker.errors import APIError

from tests.chaos.world import World, shims_of, signal_all
from tests.e2e.proxy import Call
from tests.e2e.yard import GROUP_NAMES, GROUP_OF, groups_yaml

Undo = Callable[[], None]


class Fault(NamedTuple):
    """``share`` of all faults, in percent; ``lasts``: between which seconds."""

    name: str
    kind: str
    share: float
    begin: Callable[[World], Undo | None]
    lasts: tuple[float, float] = (0.0, 0.0)


# --- containers ---


def _victim(world: World, *statuses: str) -> dict[str, Any] | None:
    several = [c for c in world.managed() if c["status"] in (statuses or ("running",))]
    several = [c for c in several if c["service"] != "migrate"]
    return world.chance.choice(sorted(several, key=lambda c: str(c["service"]))) if several else None


def _to_container(word: str, deed: Callable[[World, dict[str, Any]], None]) -> Callable[[World], None]:
    def begin(world: World) -> None:
        victim = _victim(world)
        if victim is None:
            world.tell(f"nobody to {word}")
            return
        service = victim["service"]
        world.account.hit[service] += 1
        try:
            deed(world, victim)
        except (APIError, OSError) as error:
            world.tell(f"{word} {service}: {str(error)[:80]}")
        else:
            world.tell(f"{word} {service}")

    return begin


def _remove(world: World, victim: dict[str, Any]) -> None:
    world.account.removed[victim["service"]] += 1
    world.docker.remove_container(victim["id"], force=True)


def _crash(world: World, victim: dict[str, Any]) -> None:
    os.kill(victim["State"]["Pid"], signal.SIGKILL)


def _disconnect(world: World, victim: dict[str, Any]) -> None:
    network = sorted(victim["NetworkSettings"]["Networks"])[0]
    # Given back by a remake.
    world.account.removed[victim["service"]] += 1
    world.docker.disconnect_container_from_network(victim["id"], network)


def _rename(world: World, victim: dict[str, Any]) -> None:
    world.docker.rename(victim["id"], f"odd-{world.chance.randrange(10**6)}")


def _remove_several(world: World) -> None:
    for _ in range(3):
        _to_container("remove", _remove)(world)


# --- the daemon ---


def _kill_daemon(world: World) -> Undo:
    world.account.disturbed += 1
    world.kill_daemon()
    world.tell("daemon killed")
    return lambda: _come_back(world)


def _come_back(world: World) -> None:
    if not world.daemon.running:
        world.restart_daemon()
        world.tell("daemon started")


def _stop_daemon(world: World) -> Undo:
    pid = world.daemon.pid
    world.deaf = True
    signal_all([pid], signal.SIGSTOP)
    world.tell("daemon stopped in its tracks")

    def go_on() -> None:
        signal_all([pid], signal.SIGCONT)
        world.deaf = not world.daemon.running
        world.tell("daemon goes on")

    return go_on


def _crash_at_step(world: World) -> Undo:
    left = [world.chance.randint(1, 12)]
    world.account.disturbed += 1
    world.tell(f"daemon dies at its change number {left[0]}")

    def die(call: Call) -> None:
        if call.changes and left[0] > 0:
            left[0] -= 1
            if left[0] == 0:
                world.deaf = True
                signal_all([world.daemon.pid], signal.SIGKILL)

    world.hooks.append(die)

    def over() -> None:
        world.hooks.remove(die)
        if left[0] <= 0:
            world.daemon.kill()
            world.tell("it died")
        _come_back(world)

    return over


# --- the engine ---


def _engine(world: World, *, kill: bool) -> None:
    world.account.engine_restarts += 1
    world.account.disturbed += 1
    world.account.crashes += kill
    world.tell("engine killed and started" if kill else "engine restarts")
    world.yard.restart_engine(kill=kill)
    world.tell("engine is back")


def _freeze_engine(world: World) -> Undo:
    process = world.engine._process
    assert process is not None
    world.account.disturbed += 1
    world.frozen = True
    signal_all([process.pid], signal.SIGSTOP)
    world.tell("engine frozen")

    def thaw() -> None:
        signal_all([process.pid], signal.SIGCONT)
        world.frozen = False
        world.tell("engine goes on")

    return thaw


def _freeze_shim(world: World) -> Undo | None:
    victim = _victim(world)
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


def _hide_socket(world: World) -> Undo:
    world.account.disturbed += 1
    world.proxy.hide()
    world.tell("socket hidden")

    def show() -> None:
        world.proxy.show()
        world.tell("socket is back")

    return show


# --- between daemon and engine ---


def _at_call(verdict: str, *, reads: bool = True) -> Callable[[World], Undo]:
    def begin(world: World) -> Undo:
        left = [world.chance.randint(1, 8)]
        world.tell(f"{verdict} at call number {left[0]}")
        met: list[str] = []

        def hook(call: Call) -> str | None:
            # A stream of events that breaks has a fault of its own.
            if call.path == "/events" or not (reads or call.changes) or met:
                return None
            left[0] -= 1
            if left[0] > 0:
                return None
            met.append(f"{call.method} {call.path}")
            if call.changes:
                world.account.disturbed += 1
            return verdict

        world.hooks.append(hook)

        def over() -> None:
            world.hooks.remove(hook)
            if verdict == "hold":
                world.proxy.release()
            world.tell(f"{verdict} met {met[0] if met else 'nothing'}")

        return over

    return begin


def _fail_lists(world: World) -> Undo:
    # For longer than a read is tried again: the look fails, and nothing may come of it.
    def hook(call: Call) -> str | None:
        return "refuse" if call.method == "GET" and call.path == "/containers/json" else None

    world.hooks.append(hook)
    world.tell("lists fail")

    def over() -> None:
        world.hooks.remove(hook)
        world.tell("lists are given")

    return over


def _mute(world: World) -> Undo:
    silence = world.proxy.mute()
    silence.__enter__()
    world.tell("events are lost")

    def over() -> None:
        silence.__exit__(None, None, None)
        world.tell("events are heard")

    return over


def _mute_and_kill(world: World) -> Undo:
    over = _mute(world)
    _to_container("kill, unheard,", lambda w, v: w.docker.kill(v["id"]))(world)
    return over


def _lose_creates(world: World) -> Undo:
    # Excuses nothing: what was made is there, and a look finds it.
    _to_container("remove", _remove)(world)
    met: list[str] = []

    def hook(call: Call) -> str | None:
        if call.path != "/containers/create" or met:
            return None
        met.append(call.path)
        return "lose"

    world.hooks.append(hook)

    def over() -> None:
        world.hooks.remove(hook)
        world.tell("the answer to a create was lost" if met else "nothing was created")

    return over


# --- Compose ---


def _kill_compose(world: World) -> Undo:
    left = [world.chance.randint(1, 12)]
    world.account.disturbed += 1
    world.tell(f"Compose dies at its call number {left[0]}")

    def die(call: Call) -> None:
        if call.by_compose and left[0] > 0:
            left[0] -= 1
            if left[0] == 0:
                signal_all([call.pid], signal.SIGKILL)

    world.hooks.append(die)

    def over() -> None:
        world.hooks.remove(die)
        world.tell("Compose died" if left[0] <= 0 else "Compose was not met")

    return over


def _person_up(world: World) -> Undo:
    # Beside the daemon, not through its proxy; what it does is the person's.
    world.account.persons += 1
    world.account.disturbed += 1
    services = [s for s, g in GROUP_OF.items() if g not in world.account.suspended and s != "migrate"]
    world.tell("a person runs docker compose up -d")

    def run() -> None:
        with contextlib.suppress(AssertionError):
            world.yard.person("up", "-d", "--no-deps", "--no-build", *services)

    thread = threading.Thread(target=run)
    thread.start()

    def over() -> None:
        thread.join(100)
        world.tell("the person is done")

    return over


# --- files ---


def _truncate(world: World) -> Undo:
    path = world.yard.desired / "groups.yaml"
    whole = path.read_bytes()
    world.yard.save("groups.yaml", whole[: world.chance.randrange(len(whole))])
    world.tell("groups.yaml cut short")

    def mend() -> None:
        world.yard.save("groups.yaml", whole)
        world.tell("groups.yaml whole again")

    return mend


def _half_written(world: World) -> Undo:
    path = world.yard.desired / "groups.yaml"
    whole = path.read_bytes()
    file = path.open("wb")
    file.write(whole[: len(whole) // 2])
    file.flush()
    world.tell("groups.yaml half written")

    def finish() -> None:
        file.write(whole[len(whole) // 2 :])
        file.close()
        world.tell("groups.yaml written")

    return finish


def _swap_directory(world: World) -> None:
    desired = world.yard.desired
    other, old = desired.with_name("desired.new"), desired.with_name("desired.old")
    shutil.copytree(desired, other)
    desired.rename(old)
    other.rename(desired)
    shutil.rmtree(old)
    world.tell("directory replaced by a copy")


def _storm(world: World) -> None:
    whole = (world.yard.desired / "groups.yaml").read_bytes()
    states = dict(world.account.acked) or dict.fromkeys(GROUP_NAMES, True)
    suspended = dict.fromkeys(world.account.suspended, "{state: on, suspend: true}")
    for number in range(40):
        flip = {**states, "front": bool(number % 2) and states.get("app", True)}
        world.yard.save("groups.yaml", groups_yaml(**{**flip, **suspended}))
    world.yard.save("groups.yaml", whole)
    world.toggle(["front"], 5)
    world.tell("groups.yaml saved 41 times")


def _delete(world: World) -> Undo:
    path = world.yard.desired / world.chance.choice(["groups.yaml", "stack.yaml", "compose.yaml"])
    whole = path.read_bytes()
    path.unlink()
    world.tell(f"{path.name} deleted")

    def restore() -> None:
        world.yard.save(path.name, whole)
        world.tell(f"{path.name} is back")

    return restore


# --- the box ---


def _fill_disk(world: World) -> Undo:
    ballast = world.state / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb") as file:
        while True:
            file.write(b"\0" * 65536)
            file.flush()
    world.tell("state directory full")

    def free() -> None:
        ballast.unlink(missing_ok=True)
        world.tell("state directory has room")

    return free


def _jump_clock(world: World) -> Undo | None:
    seconds = world.chance.choice([-3600.0, 3600.0, -3.15e8, 3.15e8])
    victim = _victim(world)
    if victim is None:
        world.set_clock(seconds)
        world.tell(f"clock off by {seconds:g} s, with nobody up")
        return None

    def kill() -> None:
        world.account.hit[victim["service"]] += 1
        with contextlib.suppress(APIError):
            world.docker.kill(victim["id"])
        world.tell(f"kill {victim['service']}")

    def again() -> None:
        # What fails twice is waited for: the clock jumps in the middle of that.
        kill()
        world.recorder.look_until(lambda: world.daemon.running, bool)
        world.set_clock(seconds)
        world.tell(f"clock off by {seconds:g} s")

    kill()
    return again


_CONTAINER = {
    "kill": lambda w, v: w.docker.kill(v["id"]),
    "crash": _crash,
    "stop": lambda w, v: w.docker.stop(v["id"], timeout=2),
    "pause": lambda w, v: w.docker.pause(v["id"]),
    "remove": _remove,
    "rename": _rename,
    "disconnect": _disconnect,
}

FAULTS: tuple[Fault, ...] = (
    *(Fault(word, "container", 25 / 7, _to_container(word, deed)) for word, deed in _CONTAINER.items()),
    Fault("remove several", "container", 2, _remove_several),
    Fault("kill daemon", "daemon", 8, _kill_daemon, (0.0, 1.0)),
    Fault("stop daemon", "daemon", 4, _stop_daemon, (1.0, 4.0)),
    Fault("crash at step", "daemon", 8, _crash_at_step, (1.0, 3.0)),
    Fault("restart engine", "engine", 4, lambda w: _engine(w, kill=False)),
    Fault("kill engine", "engine", 4, lambda w: _engine(w, kill=True)),
    Fault("freeze engine", "engine", 5, _freeze_engine, (1.0, 4.0)),
    Fault("freeze shim", "engine", 3, _freeze_shim, (1.0, 3.0)),
    Fault("hide socket", "engine", 4, _hide_socket, (0.5, 3.0)),
    Fault("answer 500", "proxy", 3, _at_call("refuse"), (1.0, 2.0)),
    Fault("cut the line", "proxy", 3, _at_call("cut"), (1.0, 2.0)),
    Fault("stall", "proxy", 3, _at_call("hold"), (1.0, 3.0)),
    Fault("done but no answer", "proxy", 4, _at_call("lose", reads=False), (1.0, 3.0)),
    Fault("lost creates", "compose", 2, _lose_creates, (2.0, 3.0)),
    Fault("lists fail", "proxy", 3, _fail_lists, (1.0, 3.0)),
    Fault("lose events", "proxy", 2, _mute, (1.0, 3.0)),
    Fault("lose events of a kill", "proxy", 2, _mute_and_kill, (1.0, 3.0)),
    Fault("kill Compose", "compose", 4, _kill_compose, (1.0, 3.0)),
    Fault("a person's up", "compose", 4, _person_up, (0.5, 1.0)),
    Fault("truncate", "files", 1.5, _truncate, (0.3, 1.5)),
    Fault("half written", "files", 1.5, _half_written, (0.3, 1.5)),
    Fault("swap directory", "files", 1.5, _swap_directory),
    Fault("storm of edits", "files", 1.0, _storm),
    Fault("delete a file", "files", 1.5, _delete, (0.3, 1.5)),
    Fault("disk full", "box", 2.5, _fill_disk, (1.0, 3.0)),
    Fault("clock jumps", "box", 2.5, _jump_clock, (1.5, 2.5)),
)
BY_NAME = {fault.name: fault for fault in FAULTS}
