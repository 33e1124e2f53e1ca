"""The one stream of audit events: components publish what happens, subscribers store it or notify people.

Publishers: acceptance of desired state, the loop's steps and outcomes, refused requests and sign-ins, start
and stop of the daemon. The audit log is a subscriber; it stores events as entries and has its own listeners
for entries that are on disk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

from reconciler.audit.chain import AuditEvent

log = logging.getLogger(__name__)


class Delivery(NamedTuple):
    """How to store an event; only for subscribers that store events.

    ``durable``: store it at once, since the publisher waits for it. ``repeat_key``: events with an equal key
    may be stored as one event with a count, since clients decide how many there are; empty: store each.
    """

    durable: bool = False
    repeat_key: tuple[str, ...] = ()


Subscriber = Callable[[AuditEvent, Delivery], "Future[bool] | None"]
"""Takes an event. Called in the publisher's thread, so it must return at once.

For a durable event, a subscriber that stores events returns a future: True once the event is on disk, False
if that failed. In all other cases it returns None.
"""


class AuditEventStream:
    """Passes each event to all subscribers, in the order of subscription. Thread-safe."""

    def __init__(self) -> None:
        self._subscribers: tuple[Subscriber, ...] = ()

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call ``subscriber`` with every later event."""
        self._subscribers = (*self._subscribers, subscriber)

    def publish(
        self, event: AuditEvent, *, durable: bool = False, repeat_key: tuple[str, ...] = ()
    ) -> tuple[Future[bool], ...]:
        """Publish an event; never blocks and never fails.

        With ``durable``, return the futures of the subscribers that store it; otherwise return ().
        """
        delivery = Delivery(durable, repeat_key)
        futures = []
        for subscriber in self._subscribers:
            try:
                future = subscriber(event, delivery)
            except Exception:
                # A subscriber's bug must not keep the event from the others.
                log.exception("a subscriber of audit events failed")
                continue
            if future is not None:
                futures.append(future)
        return tuple(futures)
