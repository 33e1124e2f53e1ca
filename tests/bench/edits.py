"""From an edit, or a request, to the first call of the engine; through a proxy in front of the engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from tests.bench.daemon import Daemon
from tests.bench.harness import BenchHarness, say
from tests.bench.recording_proxy import Call, RecordingProxy

from .figures import Figure, load

_APART = 0.6
_LONGEST = 10.0


def scenario(bench: BenchHarness) -> Iterator[Figure]:
    """A group of one service, switched off and on again: by saving groups.yaml, and over REST."""
    stand = bench.stand
    stand.use_interval(None)
    kafka = ("kafka",)
    stand.switch(kafka)
    saved: dict[str, list[float]] = {"call": [], "order": []}
    posted: dict[str, list[float]] = {"reply": [], "call": [], "order": []}
    with (
        RecordingProxy(bench.engine.socket, bench.folder / "edits.sock") as proxy,
        Daemon(stand, bench.state(), host=proxy.host) as daemon,
    ):
        for number in range(2 * max(bench.runs, 3) + 1):
            on = number % 2 == 0
            time.sleep(_APART)
            _note(proxy, saved, lambda on=on: stand.switch((*kafka, "optional") if on else kafka), number)
            daemon.settled(0)
        for number in range(2 * max(bench.runs, 3) + 1):
            on = number % 2 == 1
            time.sleep(_APART)
            replied = _note(proxy, posted, lambda on=on: _post(daemon, on=on), number)
            posted["reply"] += [replied] if number else []
            daemon.settled(0)
        daemon.switch(())
    say(f"  [{load()}]")
    yield _figure("groups.yaml saved → first call of the engine", saved["call"], 150)
    yield _figure("groups.yaml saved → first order (start or stop) at the engine", saved["order"], 160)
    yield _figure("POST start/stop → durable reply", posted["reply"], 15)
    yield _figure("POST → first call of the engine", posted["call"], 100)
    yield _figure("POST → first order at the engine", posted["order"])


def _figure(what: str, seconds: list[float], limit: float | None = None) -> Figure:
    return Figure(what=what, values=[s * 1000 for s in seconds], unit="ms", limit=limit)


def _note(
    proxy: RecordingProxy, into: dict[str, list[float]], act: Callable[[], float], number: int
) -> float:
    """Act, and wait for the engine call; the first time of each is the warm-up."""
    ended = act()
    # A save returns its time; a request returns its duration.
    began = ended if ended > 1000 else time.monotonic() - ended
    call = _first(proxy, began, lambda call: True)
    order = _first(proxy, began, lambda call: call.method == "POST" and "/containers/" in call.path)
    if number:
        into["call"].append(call.at - began)
        into["order"].append(order.at - began)
    return ended


def _first(proxy: RecordingProxy, began: float, good: Callable[[Call], bool]) -> Call:
    deadline = time.monotonic() + _LONGEST
    while time.monotonic() < deadline:
        for call in proxy.since(began):
            if good(call):
                return call
        time.sleep(0.005)
    raise RuntimeError(f"no engine call within {_LONGEST:.0f} s")


def _post(daemon: Daemon, *, on: bool) -> float:
    began = time.monotonic()
    code, body = daemon.ask("POST", f"/services/{'start' if on else 'stop'}/optional")
    took = time.monotonic() - began
    if code != 202:
        raise RuntimeError(f"POST answers {code}: {body}")
    return took
