"""Each check of the history finds its kind of fault and nothing else."""

from __future__ import annotations

import time

from tests.chaos.harness import ActionLog
from tests.chaos.history import early_starts, needless_stops
from tests.support.harness.engine_proxy import Call
from tests.support.harness.engine_recorder import Event
from tests.support.harness.sandbox import GROUP_OF, PROJECT

IDS = {f"id-{service}": service for service in GROUP_OF}
PID = 1


def event(at: float, service: str, action: str) -> Event:
    return Event(time.time() + at, "container", action, f"id-{service}", "", service, PROJECT)


def start(at: float, service: str, verb: str = "start") -> Call:
    return Call(time.monotonic() + at, "POST", f"/containers/id-{service}/{verb}", "", PID)


def look(at: float) -> Call:
    return Call(time.monotonic() + at, "GET", "/containers/json", "", PID)


def test_start_before_a_dependency_is_ready_is_found() -> None:
    events = [event(1, "db", "die"), event(2, "db", "start")]
    assert early_starts(ActionLog(), events, [look(1.5), look(1.6), start(2.1, "api")], IDS) == [
        "api was started before db was ready"
    ]


def test_start_after_a_dependency_is_ready_is_accepted() -> None:
    events = [event(1, "db", "die"), event(2, "db", "start")]
    assert early_starts(ActionLog(), events, [look(1.5), look(1.6), start(2.4, "api")], IDS) == []


def test_service_started_condition_needs_no_readiness() -> None:
    events = [event(1, "api", "die"), event(2, "api", "start")]
    assert early_starts(ActionLog(), events, [look(1.5), look(1.6), start(2.1, "worker")], IDS) == []
    assert early_starts(ActionLog(), events, [look(1.5), look(1.6), start(2.1, "web")], IDS)


def test_failure_after_the_observation_is_excused() -> None:
    events = [event(1, "db", "die")]
    assert early_starts(ActionLog(), events, [look(0.9), look(1.1), start(1.2, "api")], IDS) == []
    assert early_starts(ActionLog(), events, [look(1.1), look(1.2), start(1.3, "api")], IDS)


def test_one_shot_is_ready_when_it_ended() -> None:
    events = [event(1, "migrate", "start"), event(2, "migrate", "die")]
    assert early_starts(ActionLog(), events, [look(1.1), look(1.2), start(1.9, "api")], IDS)
    assert not early_starts(ActionLog(), events, [look(1.1), look(1.2), start(2.1, "api")], IDS)


def test_group_that_is_off_is_not_waited_for() -> None:
    events = [event(1, "api", "die")]
    calls = [look(1.1), look(1.2), start(2, "web")]
    assert early_starts(ActionLog(), events, calls, IDS)
    assert early_starts(ActionLog(off={"app"}), events, calls, IDS) == []


def test_events_during_an_outage_are_unknown() -> None:
    events = [event(1, "db", "die")]
    away = ActionLog(outages=[(time.time() + 1.5, time.time() + 2)])
    assert early_starts(away, events, [look(1.4), start(1.8, "api")], IDS) == []
    assert early_starts(away, events, [look(2.1), look(2.2), start(3, "api")], IDS) == []
    assert early_starts(away, [*events, event(3, "db", "start")], [look(3.1)] * 2 + [start(3.2, "api")], IDS)


def test_stop_without_a_cause_is_found() -> None:
    account = ActionLog(off={"front"})
    account.hit["db"] += 1
    calls = [start(1, service, "stop") for service in ("db", "web", "cache")]
    assert needless_stops(account, calls, IDS) == ["cache was ordered to stop for no reason"]
