"""Measured figures beside their limits, as a Markdown table."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

HEAD = ("what", "ours", "against", "figure", "limit", "aim", "", "runs", "load")


def load() -> float:
    """The machine's load average over the last minute, as a measure of noise."""
    return round(os.getloadavg()[0], 1)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row. With ``against`` (measured in turn, in the same unit) the figure is a ratio, else the median.

    The ratio is the median of the ratios of neighbouring runs, so a changing load affects it less than either
    side.
    """

    what: str
    values: Sequence[float]
    unit: str = "s"
    against: Sequence[float] = ()
    limit: float | None = None
    aim: float | None = None
    least: bool = False
    note: str = ""
    load: float = field(default_factory=load)

    @property
    def ratios(self) -> list[float]:
        """Each of our runs divided by the following run of the other side."""
        return [ours / theirs for ours, theirs in zip(self.values, self.against, strict=False)]

    @property
    def figure(self) -> float:
        """The figure that the limit applies to."""
        return median(self.ratios) if self.against else median(self.values)

    @property
    def verdict(self) -> str:
        """``ok``, ``over`` (or ``under`` if more is better), or empty without a limit."""
        if self.limit is None:
            return ""
        if self.least:
            return "ok" if self.figure >= self.limit else "under"
        return "ok" if self.figure <= self.limit else "over"

    def row(self) -> tuple[str, ...]:
        """The cells, in the order of ``HEAD``."""
        ratios = self.ratios
        figure = f"**{_number(self.figure)}**" + ("" if self.against else f" {self.unit}")
        if ratios:
            figure += f" ({_number(min(ratios))}–{_number(max(ratios))})"
        return (
            self.what + (f"<br>{self.note}" if self.note else ""),
            _spread(self.values, self.unit),
            _spread(self.against, self.unit),
            figure,
            _limit(self.limit, least=self.least),
            _limit(self.aim, least=self.least),
            self.verdict,
            str(len(self.values)),
            str(self.load),
        )

    def plain(self) -> dict[str, Any]:
        """For ``--json``."""
        return {**asdict(self), "figure": self.figure, "verdict": self.verdict}


def table(figures: Iterable[Figure]) -> str:
    """All rows as Markdown."""
    rows = [HEAD, tuple("---" for _ in HEAD), *(figure.row() for figure in figures)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def as_json(figures: Iterable[Figure]) -> str:
    """All rows with every single value."""
    return json.dumps([figure.plain() for figure in figures], indent=1, ensure_ascii=False)


def _spread(values: Sequence[float], unit: str) -> str:
    if not values:
        return ""
    return f"{_number(median(values))} {unit} ({_number(min(values))}–{_number(max(values))})"


def _limit(value: float | None, *, least: bool) -> str:
    return "" if value is None else f"{'≥' if least else '≤'} {value:g}"


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"
