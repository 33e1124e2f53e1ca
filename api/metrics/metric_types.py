"""Counter and histogram without locks, for use from the event loop alone.

The client library's own types take a lock for every change and publish the time of creation as a series of
its own.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily


class Counter:
    """A counter with labels. ``name`` is without ``_total``."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str]) -> None:
        self._about = (name, documentation)
        self._labels = list(labels)
        self._values: dict[tuple[str, ...], float] = {}

    def add(self, *labels: str, by: float = 1.0) -> None:
        """Add ``by``."""
        self._values[labels] = self._values.get(labels, 0.0) + by

    def family(self, zeros: Iterable[tuple[str, ...]] = ()) -> CounterMetricFamily:
        """Return the metric family. ``zeros`` are label values to show as 0 before the first count.

        A series that starts at 1 has no increase that a query could see.
        """
        found = CounterMetricFamily(*self._about, labels=self._labels)
        for labels, value in {**dict.fromkeys(zeros, 0.0), **self._values}.items():
            found.add_metric(labels, value)
        return found


class Histogram:
    """A histogram of seconds with labels; ``bounds`` are the upper bounds of its buckets, ascending."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self._about = (name, documentation)
        self._labels = list(labels)
        self._bounds = tuple(bounds)
        self._names = [*map(str, self._bounds), "+Inf"]
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}

    def add(self, seconds: float, *labels: str) -> None:
        """Add one observation."""
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * len(self._names)
        counts[bisect_left(self._bounds, seconds)] += 1
        self._sums[labels] = self._sums.get(labels, 0.0) + seconds

    def family(self) -> HistogramMetricFamily:
        """Return the metric family."""
        found = HistogramMetricFamily(*self._about, labels=self._labels)
        for labels, counts in self._counts.items():
            sofar = 0
            buckets: list[tuple[str, float]] = []
            for name, count in zip(self._names, counts, strict=True):
                sofar += count
                buckets.append((name, float(sofar)))
            found.add_metric(labels, buckets, self._sums[labels])
        return found
