"""What has happened since the daemon began, counted: passes, actions, repairs, retries, requests.

Fed by the loop's hooks and by ``measure``; read by ``metrics``. Counting is all that happens here: nothing
waits, nothing is decided.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from api.context import PlannedStep
from api.metrics.metric_types import Counter, Histogram
from reconciler.controller.snapshot import Snapshot, SnapshotPublisher
from reconciler.errors import ContainerGone, EngineError, EngineUnavailable, OutcomeUnknown
from reconciler.planning.drift import DriftKind

_UNSURE = (EngineUnavailable, OutcomeUnknown, ContainerGone)
"""Errors that say nothing of the service: no failed attempt (``errors``)."""

LOOKS = ("idle", "waiting", "acting", "incomplete", "unreachable")
"""What can come of a pass."""

_PASS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_ACTION = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0)
_REQUEST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 60.0)

_REPAIRABLE = tuple(str(kind) for kind in DriftKind if kind is not DriftKind.ORPHAN)


class Counters:
    """Everything that only grows. ``clock`` is wall seconds, ``timer`` monotonic ones."""

    def __init__(
        self,
        snapshots: SnapshotPublisher,
        *,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._snapshots = snapshots
        self._clock = clock
        self._timer = timer
        self._looked_at = 0.0
        # When each step in flight was sent; which last came back with an error.
        self._sent: dict[tuple[str, str], float] = {}
        self._failed: set[tuple[str, str]] = set()
        # Services acted on in this pass, and the kinds of drift being repaired, by service.
        self._fresh: set[str] = set()
        self._mending: dict[str, frozenset[str]] = {}
        prefix = "service_manager"
        self._passes = Counter(
            f"{prefix}_reconciles", "Passes of the loop, by what came of them.", ["outcome"]
        )
        self._pass_seconds = Histogram(
            f"{prefix}_reconcile_duration_seconds", "Time that a pass of the loop took.", [], _PASS
        )
        self._repairs = Counter(
            f"{prefix}_repairs",
            "Drift that the loop set right, by service and kind of drift.",
            ["group", "service", "kind"],
        )
        self._actions = Counter(
            f"{prefix}_actions", "Actions sent to the engine that came back.", ["action", "outcome"]
        )
        self._action_seconds = Histogram(
            f"{prefix}_action_duration_seconds",
            "Time from sending an action to the engine until it came back.",
            ["action", "outcome"],
            _ACTION,
        )
        self._retries = Counter(
            f"{prefix}_retries", "Actions sent again after they had failed.", ["group", "service"]
        )
        self._findings = Counter(
            f"{prefix}_resync_findings",
            "Differences that only the timed safety-net pass found: no event had told of them.",
            [],
        )
        self._requests = Counter(
            f"{prefix}_http_requests",
            "HTTP requests answered, by method, route and status.",
            ["method", "route", "status"],
        )
        self._request_seconds = Histogram(
            f"{prefix}_http_request_duration_seconds",
            "Time until an answer began; a long poll waits as long as it was told to.",
            ["method", "route"],
            _REQUEST,
        )

    # --- hooks of the loop -------------------------------------------------------------------------

    def on_pass(self, seconds: float, outcome: str) -> None:
        """A pass is over and its snapshot published: ``seconds`` it took, what came of it."""
        self._passes.add(outcome)
        self._pass_seconds.add(seconds)
        if outcome not in {"unreachable", "incomplete"}:
            self._looked_at = self._clock()
        if self._fresh or self._mending:
            self._follow_repairs(self._snapshots.current)

    def on_step(self, step: PlannedStep, error: EngineError | None, over: bool) -> None:
        """A step was sent, or came back, with or without an error."""
        key = (step.service, str(step.action))
        if not over:
            self._sent[key] = self._timer()
            self._fresh.add(step.service)
            if key in self._failed:
                self._retries.add(_group_of(self._snapshots.current).get(step.service, ""), step.service)
            return
        outcome = "succeeded" if error is None else "unknown" if isinstance(error, _UNSURE) else "failed"
        self._actions.add(key[1], outcome)
        sent = self._sent.pop(key, None)
        if sent is not None:
            self._action_seconds.add(self._timer() - sent, key[1], outcome)
        if error is None:
            self._failed.discard(key)
        else:
            self._failed.add(key)

    def on_drift(self, differences: int) -> None:
        """A pass that nothing but the clock had asked for found so many differences."""
        self._findings.add(by=differences)

    def on_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered; ``route`` is its template, never the address itself."""
        self._requests.add(method, route, str(status))
        self._request_seconds.add(seconds, method, route)

    # --- repairs -----------------------------------------------------------------------------------

    def _follow_repairs(self, snapshot: Snapshot) -> None:
        """A repair begins with a step for a service that drifted, and counts once nothing drifts there.

        A remake takes several steps and is one repair, a missing container that is made and then started
        as well. A change of desired state meanwhile makes it an ordinary change, and no repair.
        """
        views = {view.name: view for group in snapshot.groups.values() for view in group.services}
        pending = {found.service for found in snapshot.drifts if found.pending}
        for service in self._fresh:
            view = views.get(service)
            if view is not None and view.drift:
                self._mending[service] = self._mending.get(service, frozenset()) | {*view.drift}
        self._fresh.clear()
        for service in list(self._mending):
            view = views.get(service)
            if view is None or service in pending:
                del self._mending[service]
            elif not view.drift:
                for kind in self._mending.pop(service):
                    self._repairs.add(view.group, service, kind)

    # --- reading -----------------------------------------------------------------------------------

    def collect(self) -> Iterator[Metric]:
        """Everything counted, for Prometheus."""
        group_of = _group_of(self._snapshots.current)
        yield self._passes.family((outcome,) for outcome in LOOKS)
        yield self._pass_seconds.family()
        yield GaugeMetricFamily(
            "service_manager_last_look_timestamp_seconds",
            "When a pass last saw the engine as it is; 0: not yet.",
            value=self._looked_at,
        )
        yield self._repairs.family(
            (group, service, kind) for service, group in group_of.items() for kind in _REPAIRABLE
        )
        yield self._actions.family()
        yield self._action_seconds.family()
        yield self._retries.family((group, service) for service, group in group_of.items())
        yield self._findings.family([()])
        yield self._requests.family()
        yield self._request_seconds.family()

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not collect."""
        return ()


def _group_of(snapshot: Snapshot) -> Mapping[str, str]:
    return {view.name: group.name for group in snapshot.groups.values() for view in group.services}
