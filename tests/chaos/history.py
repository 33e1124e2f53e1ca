"""Actions compared with state: starts that came too early, stops without a cause.

Uses the calls recorded by the proxy and the engine's events, never the daemon's own reports.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence

from tests.chaos.harness import ActionLog
from tests.chaos.stack import NEEDS
from tests.support.harness.engine_proxy import Call
from tests.support.harness.engine_recorder import Event
from tests.support.harness.sandbox import GROUP_OF, ONE_SHOTS, PROJECT

_ACT = re.compile(r"/containers/([^/]+)/(start|stop|kill|restart)")
_LOOKS = 2
"""The look that a start rests on is one of the last so many: one more may have begun since."""
_EVER = float("inf")
Spans = list[tuple[float, float]]


def early_starts(
    account: ActionLog, events: Iterable[Event], calls: Sequence[Call], services: Mapping[str, str]
) -> list[str]:
    """Starts while a dependency was not ready, also not at the observation before."""
    up = _up(events, account.outages)
    ahead = time.time() - time.monotonic()
    looks: dict[int, list[float]] = {}
    found = []
    for call in calls:
        if call.path == "/containers/json":
            looks.setdefault(call.pid, []).append(call.at)
        act = _act(call, services)
        if act is None or act[1] not in {"start", "restart"}:
            continue
        service = act[0]
        rests_on = [0.0, *looks.get(call.pid, ())][-_LOOKS:][0]
        since, at = rests_on + ahead, call.at + ahead
        if any(first <= at <= last for first, last in account.outages):
            continue
        # No service waits for a group that is off; the times when it was off are not recorded.
        needs = [(n, takes) for n, takes in NEEDS.get(service, {}).items() if GROUP_OF[n] not in account.off]
        found += [
            f"{service} was started before {name} was ready"
            for name, takes in needs
            if not any(first + takes <= at and last >= since for first, last in up[name])
        ]
    return found


def needless_stops(account: ActionLog, calls: Iterable[Call], services: Mapping[str, str]) -> list[str]:
    """Stops of services that were not switched, changed or hit; a broken file or lost engine is no cause."""
    found = []
    for call in calls:
        act = _act(call, services)
        if act is None or act[1] == "start":
            continue
        service, verb = act
        reasons = (
            account.hit[service],
            account.removed[service],
            account.redefined[service],
            account.toggled[service],
            GROUP_OF[service] in account.off,
            # Other creators, and interrupted creations, leave more than one.
            account.persons,
            account.crashes,
        )
        if not any(reasons):
            found.append(f"{service} was ordered to {verb} for no reason")
    return found


def _act(call: Call, services: Mapping[str, str]) -> tuple[str, str] | None:
    """The service and action of a call by the daemon or its Compose."""
    act = _ACT.fullmatch(call.path) if call.method == "POST" else None
    return (services[act[1]], act[2]) if act and act[1] in services else None


def _up(events: Iterable[Event], outages: Iterable[tuple[float, float]]) -> Mapping[str, Spans]:
    """The intervals in which each service ran or was done. Unobserved times count as such."""
    opened = dict.fromkeys(GROUP_OF, 0.0)
    spans: dict[str, Spans] = {name: [] for name in GROUP_OF}
    happened = [(e.at, e.service, e.action) for e in events if e.kind == "container" and e.project == PROJECT]
    happened += [(over, name, "outage") for _, over in outages for name in GROUP_OF]
    for at, name, action in sorted(happened):
        if name not in GROUP_OF:
            continue
        if action in {"start", "die"} and name in opened:
            spans[name].append((opened.pop(name), at))
        if action == "outage":
            opened.setdefault(name, 0.0)
        elif action == ("die" if name in ONE_SHOTS else "start"):
            opened[name] = at
    for name, since in opened.items():
        spans[name].append((since, _EVER))
    return spans
