"""Gauges for Prometheus: computed from the last snapshot at each scrape.

Labels are names from the files and stable words, so the number of series is bounded: about twenty for each
service.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from reconciler import __version__
from reconciler.controller.snapshot import GroupView, ServiceView, Snapshot, SnapshotPublisher
from reconciler.planning.drift import DriftKind

PHASES = ("converged", "progressing", "waiting", "blocked", "degraded", "suspended")


class Gauges:
    """Prometheus collector over snapshots. ``clock`` is wall seconds."""

    def __init__(self, snapshots: SnapshotPublisher, clock: Callable[[], float]) -> None:
        self._snapshots = snapshots
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """Return the last snapshot as metrics."""
        snapshot = self._snapshots.current
        yield from _whole(snapshot)
        yield from _groups(tuple(snapshot.groups.values()))
        yield from _services(
            [view for group in snapshot.groups.values() for view in group.services], self._clock()
        )

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering does not collect."""
        return ()


def _gauge(name: str, documentation: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"service_manager_{name}", documentation, value=value)


def _whole(snapshot: Snapshot) -> Iterator[Metric]:
    yield _labelled("build_info", "Version of the daemon; always 1.", ["version"], [((__version__,), 1.0)])
    yield _gauge("engine_reachable", "Whether the container engine responds.", snapshot.engine.reachable)
    yield _gauge(
        "desired_state_valid",
        "Whether the files on disk are valid (0: the last valid state stays in force).",
        snapshot.valid,
    )
    yield _gauge("desired_state_errors", "Mistakes in the files on disk.", len(snapshot.errors))
    yield _gauge(
        "converged", "Whether all groups are as desired, not counting suspended ones.", snapshot.converged
    )
    yield _gauge("pilot_ready", "Whether the groups that the pilot needs are ready.", snapshot.pilot_ready)
    yield _gauge("generation", "Current generation of desired state.", snapshot.generation)
    yield _gauge(
        "observed_generation",
        "Last generation that ended, converged or degraded.",
        snapshot.observed_generation,
    )
    yield _gauge(
        "generation_accepted_timestamp_seconds",
        "Time when the current generation was accepted.",
        snapshot.accepted_at,
    )
    counts = Counter((str(drift.kind), drift.pending) for drift in snapshot.drifts)
    yield _labelled(
        "drift",
        "Differences between desired and observed state; pending: an accepted change not applied yet.",
        ["kind", "pending"],
        [
            ((str(kind), _word(pending)), counts[str(kind), pending])
            for kind in DriftKind
            for pending in (False, True)
        ],
    )


def _word(truth: bool) -> str:
    return "true" if truth else "false"


_Samples = Sequence[tuple[tuple[str, ...], float]]


def _labelled(name: str, documentation: str, labels: Sequence[str], samples: _Samples) -> Metric:
    family = GaugeMetricFamily(f"service_manager_{name}", documentation, labels=list(labels))
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _groups(groups: Sequence[GroupView]) -> Iterator[Metric]:
    def per_group(name: str, documentation: str, value: Callable[[GroupView], float]) -> Metric:
        return _labelled(name, documentation, ["group"], [((group.name,), value(group)) for group in groups])

    yield per_group("group_desired", "Whether the group should be on.", lambda g: g.desired)
    yield per_group("group_ready", "Whether every service of the group is ready.", _is_ready)
    yield _labelled(
        "group_phase",
        "Phase of the group: 1 for the current phase, 0 for the others.",
        ["group", "phase"],
        [((group.name, phase), group.phase == phase) for group in groups for phase in PHASES],
    )
    yield per_group(
        "services_running", "Services of the group with a running container.", lambda g: g.running
    )
    yield per_group("services_expected", "Services of the group that should run.", _expected)
    yield per_group("group_memory_bytes", "Measured memory use of the group.", lambda g: g.memory)
    yield per_group(
        "group_memory_estimate_bytes", "Estimate of the group's memory in stack.yaml.", lambda g: g.estimate
    )
    yield per_group(
        "group_cpu_ratio",
        "Measured CPU use of the group; 1 is one core.",
        lambda g: round(sum(view.cpu or 0.0 for view in g.services) / 100, 6),
    )


def _is_ready(group: GroupView) -> float:
    return all(view.ready or view.done for view in group.services)


def _expected(group: GroupView) -> float:
    # A one-shot that has completed need not run.
    return sum(not view.done for view in group.services) if group.desired else 0


def _services(services: Sequence[ServiceView], now: float) -> Iterator[Metric]:
    labels = ["group", "service"]

    def per_service(name: str, documentation: str, value: Callable[[ServiceView], float | None]) -> Metric:
        values = (((view.group, view.name), value(view)) for view in services)
        return _labelled(
            name, documentation, labels, [(key, number) for key, number in values if number is not None]
        )

    yield per_service("service_ready", "Whether the service is ready for its dependents.", lambda s: s.ready)
    yield _labelled(
        "service_phase",
        "Phase of the service: one series per service, with its phase and reason.",
        [*labels, "phase", "reason"],
        [((view.group, view.name, view.phase, view.reason), 1.0) for view in services if view.phase],
    )
    yield per_service(
        "service_drift", "Number of kinds of unexpected drift of the service.", lambda s: len(s.drift)
    )
    yield per_service(
        "service_backoff_seconds",
        "Time until the next attempt after a failure of the service; 0: no attempt is delayed.",
        lambda s: max(0.0, s.retry_at - now) if s.retry_at else 0.0,
    )
    yield per_service("service_memory_bytes", "Measured memory use.", lambda s: s.memory)
    yield per_service(
        "service_cpu_ratio",
        "Measured CPU use; 1 is one core.",
        lambda s: None if s.cpu is None else round(s.cpu / 100, 6),
    )
    restarts = CounterMetricFamily(
        "service_manager_service_engine_restarts",
        "Restarts of the container by the engine's own restart policy.",
        labels=labels,
    )
    for view in services:
        restarts.add_metric((view.group, view.name), view.restart_count)
    yield restarts
