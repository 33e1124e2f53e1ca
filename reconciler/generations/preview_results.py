"""Results of previews: what a change or a rollback would do. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from reconciler.generations.record import Record
from reconciler.planning.drift import Drift
from reconciler.planning.plan_types import Plan, Step, Unresolved


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewResult:
    """All steps in order, assuming that each succeeds, the services left after them, and current drift."""

    steps: tuple[Step, ...] = ()
    drifts: tuple[Drift, ...] = ()
    left: tuple[Unresolved, ...] = ()
    complete: bool = True

    def __str__(self) -> str:
        if not self.complete:
            return "nothing: the observation of the engine was incomplete"
        lines = [f"{s.service}: {s.action} ({s.cause}: {s.why})" for s in self.steps]
        lines += [f"{rest.service}: {rest.phase} ({rest.reason}: {rest.message})" for rest in self.left]
        return "\n".join(lines) or "nothing to do"


class RollbackPreview(NamedTuple):
    """Effect of a rollback: changes as text, files that would change, and the steps.

    ``record`` is the target generation, None for a commit that was never one. ``rest`` is the plan after the
    steps. ``observed``: whether the engine has been observed; if not, there are no steps.
    """

    record: Record | None
    commit: str
    changes: tuple[str, ...]
    files: tuple[str, ...]
    steps: tuple[Step, ...]
    rest: Plan
    observed: bool
    group_of: Mapping[str, str]
