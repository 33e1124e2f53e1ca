"""Counts events since the start of the daemon: passes, actions, repairs, retries, requests.

Hooks of the loop and ``MetricsMiddleware`` update it, ``registry`` reads it. It only counts: it waits for
nothing and decides nothing.
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
"""Errors that are no failed attempt of the service; see ``reconciler.errors``."""

LOOKS = ("idle", "waiting", "acting", "incomplete", "unreachable")
"""Outcomes of a pass."""

_PASS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_ACTION = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0)
_REQUEST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 60.0)

_REPAIRABLE = tuple(str(kind) for kind in DriftKind if kind is not DriftKind.ORPHAN)


class Counters:
    """All counters and histograms. ``clock`` is wall seconds, ``timer`` monotonic seconds."""

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
        # When each step in flight was sent; steps whose last attempt failed.
        self._sent: dict[tuple[str, str], float] = {}
        self._failed: set[tuple[str, str]] = set()
        # Services acted on in this pass, and the kinds of drift being repaired, by service.
        self._fresh: set[str] = set()
        self._mending: dict[str, frozenset[str]] = {}
        prefix = "service_manager"
        self._passes = Counter(f"{prefix}_reconciles", "Passes of the loop, by outcome.", ["outcome"])
        self._pass_seconds = Histogram(
            f"{prefix}_reconcile_duration_seconds", "Duration of a pass of the loop.", [], _PASS
        )
        self._repairs = Counter(
            f"{prefix}_repairs",
            "Drift that the loop repaired, by service and kind of drift.",
            ["group", "service", "kind"],
        )
        self._actions = Counter(
            f"{prefix}_actions", "Completed actions of the engine, by outcome.", ["action", "outcome"]
        )
        self._action_seconds = Histogram(
            f"{prefix}_action_duration_seconds",
            "Time from sending an action to the engine until it completed.",
            ["action", "outcome"],
            _ACTION,
        )
        self._retries = Counter(
            f"{prefix}_retries", "Actions sent again after a failure.", ["group", "service"]
        )
        self._findings = Counter(
            f"{prefix}_resync_findings",
            "Differences that only the periodic resync pass found, because no event reported them.",
            [],
        )
        self._requests = Counter(
            f"{prefix}_http_requests",
            "HTTP requests answered, by method, route and status.",
            ["method", "route", "status"],
        )
        self._request_seconds = Histogram(
            f"{prefix}_http_request_duration_seconds",
            "Time until the response started; for a long poll this includes the requested wait.",
            ["method", "route"],
            _REQUEST,
        )

    # --- hooks of the loop -------------------------------------------------------------------------

    def on_pass(self, seconds: float, outcome: str) -> None:
        """Count a pass whose snapshot is published: its duration in ``seconds``, and its outcome."""
        self._passes.add(outcome)
        self._pass_seconds.add(seconds)
        if outcome not in {"unreachable", "incomplete"}:
            self._looked_at = self._clock()
        if self._fresh or self._mending:
            self._follow_repairs(self._snapshots.current)

    def on_step(self, step: PlannedStep, error: EngineError | None, over: bool) -> None:
        """Count a step that was sent, or that completed (``over``) with or without an error."""
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
        """Count the differences that a periodic resync pass found."""
        self._findings.add(by=differences)

    def on_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; ``route`` is the template of its route, never the address itself."""
        self._requests.add(method, route, str(status))
        self._request_seconds.add(seconds, method, route)

    # --- repairs -----------------------------------------------------------------------------------

    def _follow_repairs(self, snapshot: Snapshot) -> None:
        """Count repairs: one begins with a step for a drifted service and counts once the drift is gone.

        Recreating a container takes several steps and is one repair, as is creating and starting a missing
        one. If desired state changes in between, it is an ordinary change and no repair.
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
        """Return all counters and histograms, for Prometheus."""
        group_of = _group_of(self._snapshots.current)
        yield self._passes.family((outcome,) for outcome in LOOKS)
        yield self._pass_seconds.family()
        yield GaugeMetricFamily(
            "service_manager_last_look_timestamp_seconds",
            "Time of the last pass with a complete look at the engine; 0: none yet.",
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
        """Return nothing, so that registering does not collect."""
        return ()


def _group_of(snapshot: Snapshot) -> Mapping[str, str]:
    return {view.name: group.name for group in snapshot.groups.values() for view in group.services}
