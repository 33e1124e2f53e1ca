"""Shows the series of a counter as 0 before the first count: one that starts at 1 has no visible increase."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Counter

Labels = tuple[str, ...]


class ZeroSeries:
    """The series of one counter that exist without a count."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._shown: frozenset[Labels] = frozenset()

    def show(self, series: Iterable[Labels]) -> None:
        """Show these series, and no longer those of an earlier call that were never counted."""
        wanted = frozenset(series)
        if wanted == self._shown:
            return
        for labels in wanted - self._shown:
            self._counter.labels(*labels)
        gone = self._shown - wanted
        for labels in gone & self._zeros():
            self._counter.remove(*labels)
        self._shown = wanted

    def _zeros(self) -> set[Labels]:
        return {
            tuple(sample.labels.values())
            for family in self._counter.collect()
            for sample in family.samples
            if not sample.value
        }
