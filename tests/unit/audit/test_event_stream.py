"""The stream of audit events: every subscriber gets every event."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

from reconciler.audit.chain import AuditEvent
from reconciler.audit.event_stream import AuditEventStream, Delivery
from reconciler.audit.log import WriterTimings
from tests.support.fixtures.audit_log import an_audit, an_event, targets


def test_every_subscriber_gets_every_event_although_another_one_fails() -> None:
    events, seen = AuditEventStream(), list[AuditEvent]()

    def broken(_event: AuditEvent, _delivery: Delivery) -> None:
        raise RuntimeError("a bug")

    events.subscribe(broken)
    events.subscribe(lambda event, _: seen.append(event))
    assert events.publish(an_event(1)) == ()
    assert seen == [an_event(1)]


def test_a_subscriber_gets_no_earlier_events() -> None:
    events, seen = AuditEventStream(), list[AuditEvent]()
    events.publish(an_event(1))
    events.subscribe(lambda event, _: seen.append(event))
    events.publish(an_event(2))
    assert seen == [an_event(2)]


def test_the_log_stores_a_durable_event_before_its_future_is_done(tmp_path: Path) -> None:
    events = AuditEventStream()
    with an_audit(tmp_path, pace=WriterTimings(gather=60.0)) as audit:
        events.subscribe(audit.on_event)
        assert events.publish(an_event(1)) == ()
        futures: tuple[Future[bool], ...] = events.publish(an_event(2), durable=True)
        assert [future.result(10) for future in futures] == [True]
        assert targets(tmp_path) == ["group-1", "group-2"]


def test_the_log_counts_repeats_of_a_key(tmp_path: Path) -> None:
    events = AuditEventStream()
    with an_audit(tmp_path) as audit:
        events.subscribe(audit.on_event)
        for _ in range(5):
            events.publish(an_event(1), repeat_key=("10.0.0.9", "start"))
    assert targets(tmp_path) == ["group-1", "group-1"]
