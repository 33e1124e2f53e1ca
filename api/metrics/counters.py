"""Counts events since the start of the daemon: passes, actions, repairs, retries, requests.

Hooks of the loop and ``MetricsMiddleware`` update it, ``registry`` reads it. It only counts: it waits for
nothing and decides nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import Counter, Gauge, Histogram, Metric, disable_created_metrics

from api.metrics.zero_series import ZeroSeries
from reconciler.controller.snapshot import Snapshot, SnapshotPublisher
from reconciler.errors import ContainerGone, EngineError, EngineUnavailable, OutcomeUnknown
from reconciler.planning.drift import DriftKind
from reconciler.planning.planner import Step

_UNSURE = (EngineUnavailable, OutcomeUnknown, ContainerGone)
"""Errors that are no failed attempt of the service; see ``reconciler.errors``."""

PASS_OUTCOMES = ("idle", "waiting", "acting", "observed", "incomplete", "unreachable")
"""Outcomes of a pass (``LoopHooks.on_pass``)."""

_PASS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_ACTION = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0)
_REQUEST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 60.0)

_REPAIRABLE = tuple(str(kind) for kind in DriftKind if kind is not DriftKind.ORPHAN)


disable_created_metrics()  # type: ignore[no-untyped-call]


def _counter(name: str, documentation: str, *labels: str) -> Counter:
    return Counter(f"service_manager_{name}", documentation, labels, registry=None)


def _histogram(name: str, documentation: str, *labels: str, buckets: Sequence[float]) -> Histogram:
    return Histogram(f"service_manager_{name}", documentation, labels, registry=None, buckets=buckets)


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
        # When each step in flight was sent; steps whose last attempt failed.
        self._sent: dict[tuple[str, str], float] = {}
        self._failed: set[tuple[str, str]] = set()
        # Services acted on in this pass, and the kinds of drift being repaired, by service.
        self._acted_on: set[str] = set()
        self._repairing: dict[str, frozenset[str]] = {}
        self._passes = _counter("reconciles", "Passes of the loop, by outcome.", "outcome")
        self._pass_seconds = _histogram(
            "reconcile_duration_seconds", "Duration of a pass of the loop.", buckets=_PASS
        )
        self._last_look = Gauge(
            "service_manager_last_look_timestamp_seconds",
            "Time of the last pass with a complete look at the engine; 0: none yet.",
            registry=None,
        )
        self._repairs = _counter(
            "repairs",
            "Drift that the loop repaired, by service and kind of drift.",
            "group",
            "service",
            "kind",
        )
        self._actions = _counter(
            "actions", "Completed actions of the engine, by outcome.", "action", "outcome"
        )
        self._action_seconds = _histogram(
            "action_duration_seconds",
            "Time from sending an action to the engine until it completed.",
            "action",
            "outcome",
            buckets=_ACTION,
        )
        self._retries = _counter("retries", "Actions sent again after a failure.", "group", "service")
        self._findings = _counter(
            "resync_findings",
            "Differences that only the periodic resync pass found, because no event reported them.",
        )
        self._requests = _counter(
            "http_requests",
            "HTTP requests answered, by method, route and status.",
            "method",
            "route",
            "status",
        )
        self._request_seconds = _histogram(
            "http_request_duration_seconds",
            "Time until the response started; for a long poll this includes the requested wait.",
            "method",
            "route",
            buckets=_REQUEST,
        )
        ZeroSeries(self._passes).show((outcome,) for outcome in PASS_OUTCOMES)
        self._repair_zeros = ZeroSeries(self._repairs)
        self._retry_zeros = ZeroSeries(self._retries)

    # --- hooks of the loop -------------------------------------------------------------------------

    def on_pass(self, seconds: float, outcome: str) -> None:
        """Count a pass whose snapshot is published: its duration in ``seconds``, and its outcome."""
        self._passes.labels(outcome).inc()
        self._pass_seconds.observe(seconds)
        if outcome not in {"unreachable", "incomplete"}:
            self._last_look.set(self._clock())
        if self._acted_on or self._repairing:
            self._follow_repairs(self._snapshots.current)

    def on_step(self, step: Step, error: EngineError | None, over: bool) -> None:
        """Count a step that was sent, or that completed (``over``) with or without an error."""
        key = (step.service, str(step.action))
        if not over:
            self._sent[key] = self._timer()
            self._acted_on.add(step.service)
            if key in self._failed:
                group = _group_of(self._snapshots.current).get(step.service, "")
                self._retries.labels(group, step.service).inc()
            return
        outcome = "succeeded" if error is None else "unknown" if isinstance(error, _UNSURE) else "failed"
        self._actions.labels(key[1], outcome).inc()
        sent = self._sent.pop(key, None)
        if sent is not None:
            self._action_seconds.labels(key[1], outcome).observe(self._timer() - sent)
        if error is None:
            self._failed.discard(key)
        else:
            self._failed.add(key)

    def on_drift(self, differences: int) -> None:
        """Count the differences that a periodic resync pass found."""
        self._findings.inc(differences)

    def on_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; ``route`` is the template of its route, never the address itself."""
        self._requests.labels(method, route, str(status)).inc()
        self._request_seconds.labels(method, route).observe(seconds)

    # --- repairs -----------------------------------------------------------------------------------

    def _follow_repairs(self, snapshot: Snapshot) -> None:
        """Count repairs: one begins with a step for a drifted service and counts once the drift is gone.

        Recreating a container takes several steps and is one repair, as is creating and starting a missing
        one. If desired state changes in between, it is an ordinary change and no repair.
        """
        views = {view.name: view for group in snapshot.groups.values() for view in group.services}
        pending = {drift.service for drift in snapshot.drifts if drift.pending}
        for service in self._acted_on:
            view = views.get(service)
            if view is not None and view.drift:
                self._repairing[service] = self._repairing.get(service, frozenset()) | {*view.drift}
        self._acted_on.clear()
        for service in list(self._repairing):
            view = views.get(service)
            if view is None or service in pending:
                del self._repairing[service]
            elif not view.drift:
                for kind in self._repairing.pop(service):
                    self._repairs.labels(view.group, service, kind).inc()

    # --- reading -----------------------------------------------------------------------------------

    def collect(self) -> Iterator[Metric]:
        """Return all counters and histograms, for Prometheus."""
        groups = _group_of(self._snapshots.current)
        self._repair_zeros.show(
            (group, service, kind) for service, group in groups.items() for kind in _REPAIRABLE
        )
        self._retry_zeros.show((group, service) for service, group in groups.items())
        for metric in (
            self._passes,
            self._pass_seconds,
            self._last_look,
            self._repairs,
            self._actions,
            self._action_seconds,
            self._retries,
            self._findings,
            self._requests,
            self._request_seconds,
        ):
            yield from metric.collect()

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering does not collect."""
        return ()


def _group_of(snapshot: Snapshot) -> Mapping[str, str]:
    return {view.name: group.name for group in snapshot.groups.values() for view in group.services}
