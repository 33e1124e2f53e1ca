"""Two small sums that Prometheus can read: how often, and how long.

Instead of the client library's own counters: those take a lock for every change and publish the moment
each was made as a series of its own. Everything here is used from the event loop alone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily


class Counter:
    """A counter by labels. ``name`` is without ``_total``."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str]) -> None:
        self._about = (name, documentation)
        self._labels = list(labels)
        self._values: dict[tuple[str, ...], float] = {}

    def add(self, *labels: str, by: float = 1.0) -> None:
        """Count one more (or ``by`` more)."""
        self._values[labels] = self._values.get(labels, 0.0) + by

    def family(self, zeros: Iterable[tuple[str, ...]] = ()) -> CounterMetricFamily:
        """What Prometheus gets. ``zeros`` are labels to show before anything was counted under them:

        a series that begins at 1 has no increase that a query could see.
        """
        found = CounterMetricFamily(*self._about, labels=self._labels)
        for labels, value in {**dict.fromkeys(zeros, 0.0), **self._values}.items():
            found.add_metric(labels, value)
        return found


class Histogram:
    """A histogram of seconds by labels; ``bounds`` are the upper ends of its buckets, growing."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self._about = (name, documentation)
        self._labels = list(labels)
        self._bounds = tuple(bounds)
        self._names = [*map(str, self._bounds), "+Inf"]
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}

    def add(self, seconds: float, *labels: str) -> None:
        """Count one that took so long."""
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * len(self._names)
        counts[bisect_left(self._bounds, seconds)] += 1
        self._sums[labels] = self._sums.get(labels, 0.0) + seconds

    def family(self) -> HistogramMetricFamily:
        """What Prometheus gets."""
        found = HistogramMetricFamily(*self._about, labels=self._labels)
        for labels, counts in self._counts.items():
            sofar = 0
            buckets: list[tuple[str, float]] = []
            for name, count in zip(self._names, counts, strict=True):
                sofar += count
                buckets.append((name, float(sofar)))
            found.add_metric(labels, buckets, self._sums[labels])
        return found
